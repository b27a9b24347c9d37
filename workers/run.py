"""`psalm-stream run` without its screen: one input through the embedded path into a results folder.

DIR gets masks/00000.png ..., masks.jsonl, overlay.mp4 and run.json. What is written stays readable whenever a run stops. Flags, progress
bar and messages are cli.py's.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..psalm.tracker import Rules
from ..stream.errors import BadConfig, BadPrompt, Undecodable
from ..stream.sinks import JsonLinesSink, OverlaySink, PaletteSink, Sink
from ..stream.sources import Source
from ..stream.types import Frame, MaskFrame
from ..stream.video import without_credentials
from .answering import Model
from .pipeline import Embedded
from .prompt_flags import VOID, Flag, check, prompts, read_ids
from .settings import Settings
from .tally import Tally

SESSION = "run"
MASKS, LINES, OVERLAY, RECORD = "masks", "masks.jsonl", "overlay.mp4", "run.json"
LIBRARIES = ("psalm-stream", "torch", "transformers", "numpy", "opencv-python-headless", "av")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run. url: as the user gave it; out: the results folder; oracle: annotations that say which ids exist, or None."""

    url: str
    out: Path
    flags: tuple[Flag, ...]
    settings: Settings
    oracle: Path | None = None
    limit: int | None = None
    overlay: bool = True

    def refuse_misfits(self, source: Source) -> None:
        """Raise BadPrompt for a shape that does not fit its frame, or a frame that never comes, before anything is computed.

        The pictures of a folder may differ in size: there only the first frame's prompts are looked at, the others when their frame comes.
        A video's header only estimates its number of frames: there a prompt beyond the end shows at the end.
        """
        pictures = Path(self.url).is_dir()
        check((flag for flag in self.flags if flag.frame == 0 or not pictures), source.size_hw)
        end = source.frames if pictures else self.limit
        if late := [flag for flag in self.flags if end is not None and flag.frame >= end]:
            raise BadPrompt(f"{late[0].said}: frame {late[0].frame} never comes, the run has frames 0 to {end - 1}; counting starts at 0")

    def notes(self) -> list[str]:
        """What the user did not say and should know, one line each."""
        notes = [
            f"{flag.said}: {flag.void} pixels are 255, undecided as in DAVIS; they belong to no object" for flag in self.flags if flag.void
        ]
        if self.settings.weights == "nano":
            notes.append("weights: the shipped nano, a small model for trying out; choose others with --weights")
        return list(dict.fromkeys(notes))


def refuse_results(out: Path, overwrite: bool) -> None:
    """Raise BadConfig for a results folder that holds anything, unless `overwrite`."""
    if out.exists() and not out.is_dir():
        raise BadConfig(f"--out {out} is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise BadConfig(f"--out {out} is not empty; choose another folder, or replace the results in it with --overwrite")


def clear_results(out: Path) -> None:
    """Make the results folder, and take away what an earlier run wrote there; nothing else in it is touched. Raises BadConfig."""
    try:
        (out / MASKS).mkdir(parents=True, exist_ok=True)
        for path in [*(out / MASKS).glob("[0-9]*.png"), out / LINES, out / OVERLAY, out / RECORD]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise BadConfig(f"--out {out} cannot be written ({error}); choose a folder that can") from error


def load_model(settings: Settings) -> Model:
    """The model of the settings, on its device. Raises BadWeights, and BadConfig for a device that is not there."""
    import torch

    from ..psalm.weights import load

    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if settings.device not in (*available, *(["cuda"] if len(available) > 1 else [])):
        raise BadConfig(f"device is {settings.device!r}, available here: {', '.join(available)}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return load(
        settings.weights,
        dtype=settings.dtype,
        official_rounding=settings.official_rounding,
        device=settings.device,
        sampled_regions=settings.sampled_regions,
    )


def read_oracle(folder: Path) -> dict[int, tuple[int, ...]]:
    """Which object ids exist in each frame, from a folder of annotation PNGs in frame order: frame index -> ids. Raises BadConfig."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise BadConfig(f"--oracle {folder} holds no *.png, expected one annotation a frame, such as Annotations/480p/SEQUENCE of DAVIS")
    for one, other in pairwise(files):
        if one.stem.isdigit() and other.stem.isdigit() and int(other.stem) != int(one.stem) + 1:
            raise BadConfig(f"--oracle {folder} skips from {one.name} to {other.name}, expected one annotation a frame")
    return {index: tuple(int(i) for i in np.unique(read_ids(file)) if i not in (0, VOID)) for index, file in enumerate(files)}


def rules_of(job: Job) -> Rules:
    """The tracker's rules. Raises BadConfig for a policy, motion and oracle that do not go together."""
    return Rules(job.settings.policy, job.settings.motion, None if job.oracle is None else read_oracle(job.oracle))


def run(job: Job, source: Source, model: Model, rules: Rules, tally: Tally, on_answer: Callable[[MaskFrame], None]) -> None:
    """Send the input through worker and sinks, counting into `tally`; `on_answer` is called after each frame.

    run.json is written whatever happens, and says in `stopped_by` what ended the run early. Raises BadPrompt, SourceFailed, BadConfig.
    """
    embedded = Embedded(model, rules, job.settings)
    clear_results(job.out)
    began = time.perf_counter()
    stopped_by = None
    try:
        with ExitStack() as stack:
            sinks = [stack.enter_context(closing(sink)) for sink in _sinks(job, source)]
            for frame, answer in embedded.answer(_read(job, source, tally), prompts(job.flags, SESSION)):
                written = time.perf_counter()
                for sink in sinks:
                    sink.write(frame, answer)
                tally.time("write", (time.perf_counter() - written) * 1e3)
                tally.add(answer)
                on_answer(answer)
    except BaseException as error:
        stopped_by = f"{type(error).__name__}: {error}".rstrip(": ")
        raise
    finally:
        record = describe(job, model) | tally.as_json() | {"seconds": round(time.perf_counter() - began, 3), "stopped_by": stopped_by}
        (job.out / RECORD).write_text(json.dumps(record, indent=2, default=str) + "\n")


def describe(job: Job, model: Model) -> dict[str, object]:
    """What it takes to run the job again and get the same masks, as plain values."""
    import torch

    return {
        "input": without_credentials(job.url),
        "limit": job.limit,
        "prompts": list(dict.fromkeys(flag.said for flag in job.flags)),
        "oracle": job.oracle and str(job.oracle),
        "settings": job.settings.model_dump(),
        "weights_digest": model.digest,
        "versions": versions(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),  # the order of summation depends on it
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that masks depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _sinks(job: Job, source: Source) -> list[Sink]:
    sinks: list[Sink] = [PaletteSink(job.out / MASKS), JsonLinesSink(job.out / LINES)]
    return [*sinks, OverlaySink(job.out / OVERLAY, source.fps)] if job.overlay else sinks


def _read(job: Job, source: Iterable[Frame], tally: Tally) -> Iterator[Frame]:
    """The source's frames, their time counted as the stage `read`.

    Raises BadPrompt, naming the flag, for a prompt that does not fit its frame, or whose frame is no picture: it would move to the next.
    """
    frames = iter(source)
    while True:
        began = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        tally.time("read", (time.perf_counter() - began) * 1e3)
        named = [flag for flag in job.flags if flag.frame == frame.key.index]
        check(named, frame.size_hw)
        try:
            if named:
                frame.pixels()
        except Undecodable as error:
            raise BadPrompt(f"{named[0].said}: {error}; name the object on another frame") from error
        yield frame

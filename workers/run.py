"""`psalm-stream run` without its screen: one input, or several views of one session, through the embedded path into a results folder.

What is written stays readable whenever a run stops. The folder is run_files.py's, flags, progress bar and messages are cli/run.py's.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..psalm.tracker import Rules
from ..stream.errors import BadConfig, BadPrompt, Undecodable
from ..stream.sources import Source, open_source
from ..stream.types import Frame, MaskFrame
from ..stream.video import without_credentials
from ..stream.views import View, Views, open_views
from .answering import Model
from .pipeline import Embedded
from .prompt_flags import VIEW, VOID, Flag, check, prompts, read_ids
from .run_files import RECORD, clear_results, open_sinks
from .settings import Settings, mask_settings
from .tally import Tally

SESSION = "run"
LIBRARIES = (
    *("psalm-stream", "torch", "transformers", "tokenizers", "safetensors"),
    *("numpy", "scipy", "opencv-python-headless", "pillow", "av", "pycocotools"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    url: as the user gave it; out: the results folder; oracle: annotations that say which ids exist, or None; limit: frames of each input;
    views: what to run in place of url, two or more.
    """

    url: str
    out: Path
    flags: tuple[Flag, ...]
    settings: Settings
    oracle: Path | None = None
    limit: int | None = None
    overlay: bool = True
    views: tuple[View, ...] = ()

    def open(self) -> Source | Views:
        """Open the input, or every view. Raises SourceFailed, BadConfig."""
        if self.views:
            return open_views(self.views, session=SESSION, limit=self.limit)
        return open_source(self.url, session=SESSION, limit=self.limit)

    def refuse_misfits(self, source: Source | Views) -> None:
        """Raise BadPrompt for a shape that does not fit its frame, or a frame that never comes, before anything is computed.

        The pictures of a folder may differ in size: there only the first frame's prompts are looked at, the others when their frame comes.
        A video's header only estimates its number of frames: there a prompt beyond the end shows at the end.
        """
        sources = _by_view(source)
        for view in self.views or (View(VIEW, self.url),):
            flags = [flag for flag in self.flags if flag.view == view.name]
            pictures = Path(view.url).is_dir()
            check((flag for flag in flags if flag.frame == 0 or not pictures), sources[view.name].size_hw)
            end = sources[view.name].frames if pictures else self.limit
            if late := [flag for flag in flags if end is not None and flag.frame >= end]:
                whose = f"view {view.name}" if self.views else "the run"
                raise BadPrompt(
                    f"{late[0].said}: frame {late[0].frame} never comes, {whose} has frames 0 to {end - 1}; counting starts at 0"
                )

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
    """The tracker's rules. Raises BadConfig for a policy, motion, oracle and views that do not go together."""
    settings = job.settings
    if job.views and settings.policy == "official":
        raise BadConfig(
            "--policy is official, which repeats a loop over one video, and --view names several; choose honest, or run each alone"
        )
    return Rules(settings.policy, settings.motion, None if job.oracle is None else read_oracle(job.oracle), settings.max_skew_s)


def run(job: Job, source: Source | Views, model: Model, rules: Rules, tally: Tally, on_answer: Callable[[MaskFrame], None]) -> None:
    """Send the input through worker and sinks, counting into `tally`; `on_answer` is called after each frame.

    run.json is written whatever happens, and says in `stopped_by` what ended the run early. A view that is damaged or goes away does not
    stop the others; it is named in the end. Raises BadPrompt, SourceFailed, BadConfig.
    """
    embedded = Embedded(model, rules, job.settings)
    clear_results(job.out, [view.name for view in job.views])
    tally.views.update({view.name: Tally() for view in job.views})
    files = digests(job)
    began = time.perf_counter()
    stopped_by = None
    try:
        with ExitStack() as stack:
            sinks = open_sinks(job.out, _by_view(source), bool(job.views), job.overlay)
            for sink in {id(sink): sink for own in sinks.values() for sink in own}.values():
                stack.enter_context(closing(sink))
            for frame, answer in embedded.answer(_read(job, source, tally), prompts(job.flags, SESSION)):
                written = time.perf_counter()
                for sink in sinks[frame.key.view]:
                    sink.write(frame, answer)
                tally.time("write", (time.perf_counter() - written) * 1e3)
                tally.add(answer)
                on_answer(answer)
    except BaseException as error:
        stopped_by = f"{type(error).__name__}: {error}".rstrip(": ")
        raise
    finally:
        ending = {"seconds": round(time.perf_counter() - began, 3), "stopped_by": stopped_by}
        record = describe(job, model) | {"files_sha256": files} | tally.as_json() | ending
        for view, counts in tally.views.items():
            record["views"][view] |= counts.as_json()
        (job.out / RECORD).write_text(json.dumps(record, indent=2, default=str) + "\n")


def digests(job: Job) -> dict[str, str]:
    """SHA-256 of every file a job reads, by its path as given: inputs and mask prompts. Folders, URLs and cameras have none."""
    paths = [job.url, *(view.url for view in job.views), *(flag.file for flag in job.flags)]
    return {path: _sha256(path) for path in dict.fromkeys(paths) if os.path.isfile(path)}  # Path.is_file raises for a long URL


def describe(job: Job, model: Model) -> dict[str, object]:
    """What it takes to run the job again and get the same masks, as plain values."""
    import torch

    views = {view.name: {"input": without_credentials(view.url), "offset_s": view.offset_ns / 1e9} for view in job.views}
    return {
        **({"views": views} if views else {"input": without_credentials(job.url)}),
        "limit": job.limit,
        "prompts": list(dict.fromkeys(flag.said for flag in job.flags)),
        "oracle": job.oracle and str(job.oracle),
        "settings": mask_settings(job.settings),
        "weights_digest": model.digest,
        "versions": versions(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),  # the order of summation depends on it
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that masks depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_view(source: Source | Views) -> Mapping[str, Source]:
    return source.sources if isinstance(source, Views) else {VIEW: source}


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
        named = [flag for flag in job.flags if (flag.view, flag.frame) == (frame.key.view, frame.key.index)]
        check(named, frame.size_hw)
        try:
            if named:
                frame.pixels()
        except Undecodable as error:
            raise BadPrompt(f"{named[0].said}: {error}; name the object on another frame") from error
        yield frame

"""What Kafka and Redis cost where the model is the bottleneck: the same clip through the embedded path and through the service.

    python -m psalm_stream.eval.service.cost [--video FILE --mask PNG] [--frames 40] [--repetitions 3] [--weights nano]

Both paths run in one go, one after the other, in pairs whose order alternates: one worker, one thread, batch 1, a process of its own each
time. The log is filled beforehand, so no worker waits for its source. Loading the model and the first turn are left out of every figure.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...psalm.tracker import Rules
from ...stream.bus import Record
from ...stream.codec import digest, unpack
from ...stream.errors import BadConfig
from ...stream.sources import open_source
from ...stream.types import Frame, MaskFrame, Prompt
from ...workers.demo import draw
from ...workers.dev import DevServers
from ...workers.pipeline import Embedded
from ...workers.prompt_flags import PromptFlags, prompts
from ...workers.settings import Settings, read_settings
from .rig import Rig, WorkerProcess, cpu_s, fed, machine, plain_table, spread

RATIO_BAR = 0.95
SESSION = "cost"
PATIENCE_S = 300.0  # between two answers; a full-size model takes a minute or two a frame
PROCESSES = ("worker", "broker", "redis")


@dataclass(frozen=True, slots=True)
class Clip:
    """What both paths are given."""

    frames: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """One answered frame.

    at_s: when its answer was committed; work_s: spent on it in decode, plan, model and settle; cpu_s: what each process had used by then.
    """

    digest: str
    at_s: float
    work_s: float
    cpu_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of each path. turn: frames that the service answered in its first turn; sending_ms: CPU a frame while the log was filled."""

    embedded: list[Mark]
    service: list[Mark]
    turn: int
    sending_ms: dict[str, float]

    @property
    def ratio(self) -> float:
        """Frames a second of the service over those of the embedded path, from the end of the service's first turn on."""
        return frame_s(self.embedded, self.turn) / frame_s(self.service, self.turn)

    @property
    def share_ratio(self) -> float:
        """The ratio as it were if both had worked equally fast: other load on the machine slows both, but rarely equally."""
        return work_share(self.service, self.turn) / work_share(self.embedded, self.turn)

    @property
    def same(self) -> bool:
        """Whether every answer is equal by digest."""
        return [mark.digest for mark in self.embedded] == [mark.digest for mark in self.service]


def frame_s(marks: Sequence[Mark], skip: int) -> float:
    """Seconds a frame, without the first `skip`."""
    return (marks[-1].at_s - marks[skip - 1].at_s) / (len(marks) - skip)


def work_share(marks: Sequence[Mark], skip: int) -> float:
    """Share of the time in which a frame was worked on, without the first `skip`; the rest went into transport, and waiting for it."""
    return sum(mark.work_s for mark in marks[skip:]) / (marks[-1].at_s - marks[skip - 1].at_s)


def cpu_ms(marks: Sequence[Mark], process: str, skip: int) -> float:
    """CPU milliseconds a frame of one process, without the first `skip`."""
    return 1e3 * (marks[-1].cpu_s[process] - marks[skip - 1].cpu_s[process]) / (len(marks) - skip)


def first_turn(records: Sequence[Record]) -> int:
    """How many records were committed with the first: the end of a transaction takes an offset of its own, so there is a gap."""
    return next((n for n, (one, other) in enumerate(pairwise(records), 1) if other.offset > one.offset + 1), len(records))


# -- the two paths ----------------------------------------------------------------------------------------------------


def embedded_process(clip: Clip, settings: Settings, out: multiprocessing.connection.Connection) -> None:
    """Answer the clip in this process, and say of each answer its digest, when it was there, and the CPU used until then."""
    from ...workers.run import load_model
    from ...workers.service import warm_up

    model = load_model(settings)
    warm_up(model)
    for _, answer in Embedded(model, Rules(settings.policy, settings.motion), settings).answer(clip.frames, clip.prompts):
        out.send((digest(answer), time.time(), work_s(answer), time.process_time()))


def work_s(answer: MaskFrame) -> float:
    """Seconds that the worker says it spent on a frame, transport left out."""
    return sum(answer.ms.values()) / 1e3


def run_embedded(clip: Clip, servers: dict[str, int], settings: Settings, advance: Callable[[], None]) -> list[Mark]:
    """The embedded path, in a process of its own; the servers idle beside it. servers: their pids."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=embedded_process, args=(clip, settings, there), daemon=True)
    process.start()
    marks = []
    try:
        while len(marks) < len(clip.frames):
            if not here.poll(PATIENCE_S) or not process.is_alive():
                raise BadConfig(f"the embedded path ended or stood still after {len(marks)} of {len(clip.frames)} frames; see above")
            *said, used_s = here.recv()
            marks.append(Mark(*said, {"worker": used_s} | {name: cpu_s(pid) for name, pid in servers.items()}))
            advance()
        process.join()
    finally:
        process.kill()
    return marks


def run_service(clip: Clip, rig: Rig, advance: Callable[[], None]) -> tuple[list[Mark], int, dict[str, float]]:
    """The path through Kafka and Redis, `psalm-stream segment-worker` on a filled log: marks, frames of its first turn, sending_ms."""
    sending_ms = fill(clip, rig)
    worker = WorkerProcess(rig)
    pids = {"worker": worker.process.pid, **rig.pids}
    records: list[Record] = []
    marks: list[Mark] = []
    try:
        with rig.answers() as answers:
            heard_s = time.monotonic()
            while len(marks) < len(clip.frames):
                found = answers.poll(1.0)
                used_s = {name: cpu_s(pid) for name, pid in pids.items()} if not worker.ended else {}
                heard_s = time.monotonic() if found else heard_s
                if not used_s or time.monotonic() > heard_s + PATIENCE_S:
                    raise BadConfig(f"the worker ended or stood still after {len(marks)} of {len(clip.frames)} frames; see its log above")
                for record in found:
                    if isinstance(answer := unpack(record.kind, record.data), MaskFrame):
                        records.append(record)
                        marks.append(Mark(digest(answer), record.t_ms / 1e3, work_s(answer), used_s))
                        advance()
    finally:
        worker.end()
    return marks, first_turn(records), sending_ms


def fill(clip: Clip, rig: Rig) -> dict[str, float]:
    """Send the clip, its prompts first, and say the CPU milliseconds a frame of the source and the broker."""
    pids = {"source": os.getpid(), "broker": rig.pids["broker"]}
    with fed(rig.cluster, SESSION) as feed:
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        feed((*clip.prompts, *clip.frames))
        return {name: 1e3 * (cpu_s(pid) - before[name]) / len(clip.frames) for name, pid in pids.items()}


def measure(clip: Clip, servers: DevServers, settings: Settings, repetitions: int, advance: Callable[[str], None]) -> list[Pair]:
    """Both paths, `repetitions` times, the order turned around each time; `advance` is told of each answer's path."""
    pairs = []
    for number in range(repetitions):
        rig = Rig.on(servers, partitions=1, weights=settings.weights, turn_records=settings.turn_records)

        def embedded(rig: Rig = rig) -> list[Mark]:
            return run_embedded(clip, rig.pids, settings, lambda: advance("embedded"))

        before = embedded() if number % 2 == 0 else None
        service, turn, sending_ms = run_service(clip, rig, lambda: advance("service"))
        if 2 * turn > len(service):
            raise BadConfig(f"the first turn took {turn} of {len(service)} frames; give more frames, at least twice a turn")
        pairs.append(Pair(before or embedded(), service, turn, sending_ms))
    return pairs


# -- the command ------------------------------------------------------------------------------------------------------


def show(pairs: Sequence[Pair], console: Console) -> None:
    """Print frames a second, answers, and CPU a frame by process."""
    measured = {
        "embedded": [1 / frame_s(p.embedded, p.turn) for p in pairs],
        "service": [1 / frame_s(p.service, p.turn) for p in pairs],
        f"ratio (bar {RATIO_BAR})": [p.ratio for p in pairs],
        "embedded at work": [work_share(p.embedded, p.turn) for p in pairs],
        "service at work": [work_share(p.service, p.turn) for p in pairs],
        "ratio of these": [p.share_ratio for p in pairs],
    }
    speed = plain_table("frames/s after the service's first turn, and the share of the time at work", "run", list(measured))
    for number in range(len(pairs)):
        speed.add_row(str(number + 1), *(f"{values[number]:.3f}" for values in measured.values()))
    speed.add_section()
    for name, of in (("median", median), ("least", min), ("most", max)):
        speed.add_row(name, *(f"{of(values):.3f}" for values in measured.values()))
    console.print(speed)
    cost = plain_table("CPU ms a frame, median (range) over the runs", "process", ["embedded", "service", "transport"])
    total = [0.0] * len(pairs)
    for process in PROCESSES:
        one, other = ([cpu_ms(marks, process, p.turn) for p, marks in zip(pairs, runs, strict=True)] for runs in _runs(pairs))
        total = _line(cost, total, process, one, other)
    for process in pairs[0].sending_ms:
        total = _line(cost, total, f"{process}, filling the log", [0.0] * len(pairs), [p.sending_ms[process] for p in pairs])
    cost.add_section()
    cost.add_row("all", "", "", spread(total, 1))
    console.print(cost)


def _runs(pairs: Sequence[Pair]) -> tuple[list[list[Mark]], list[list[Mark]]]:
    return [p.embedded for p in pairs], [p.service for p in pairs]


def _line(table: object, total: list[float], name: str, one: list[float], other: list[float]) -> list[float]:
    """Add a row, and its differences to the total."""
    differences = [b - a for a, b in zip(one, other, strict=True)]
    table.add_row(name, f"{median(one):.1f}", f"{median(other):.1f}", spread(differences, 1))
    return [a + b for a, b in zip(total, differences, strict=True)]


def read_clip(video: Path | None, flags: PromptFlags, frames: int) -> Clip:
    """The first frames of a video with its prompts, or of the drawn clip with its mask."""
    with tempfile.TemporaryDirectory() as folder:
        if video is None:
            video, mask = draw(Path(folder))
            flags = PromptFlags(masks=(str(mask),))
        asked = prompts(flags.parse(), SESSION)
        with open_source(str(video), session=SESSION, limit=frames) as source:
            return Clip(tuple(source), asked)


def cost_command(
    video: Annotated[Path | None, typer.Option(help="The clip. Default: the drawn one of the demo, 48 frames of 480x270.")] = None,
    mask: Annotated[list[str] | None, typer.Option(help="Its prompt, as `psalm-stream run` takes it.")] = None,
    box: Annotated[list[str] | None, typer.Option(help="Likewise.")] = None,
    frames: Annotated[int, typer.Option(min=4, help="Of the clip, from its first on.")] = 40,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each path.")] = 3,
    weights: Annotated[str, typer.Option(help="Checkpoint folder or hub id; nano is the shipped one.")] = "nano",
) -> None:
    """Measure the embedded path against Kafka and Redis; fails when an answer differs or the median ratio is below the bar."""
    console = Console(highlight=False)
    clip = read_clip(video, PromptFlags(masks=mask or (), boxes=box or ()), frames)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = read_settings(weights=weights, threads=1)
    said = machine()
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, DevServers() as servers:
        tasks = {path: progress.add_task(path, total=len(clip.frames) * repetitions) for path in ("embedded", "service")}
        pairs = measure(clip, servers, settings, repetitions, lambda path: progress.advance(tasks[path]))
    size = "x".join(map(str, reversed(clip.frames[0].size_hw)))
    kilobytes = sum(len(frame.data) for frame in clip.frames) / len(clip.frames) / 1e3
    console.print(f"\n{len(clip.frames)} frames of {size}, {kilobytes:.0f} kB each; weights {weights}; one worker, one thread, batch 1")
    console.print(said)
    show(pairs, console)
    same, ratio = all(pair.same for pair in pairs), median(pair.ratio for pair in pairs)
    console.print(f"answers: {'identical by digest in every run' if same else 'DIFFERENT'}; first turn: {pairs[0].turn} frames")
    console.print(
        "times: embedded, when the answer was there; service, its record's stamp in topic masks (the worker's clock, in its commit)"
    )
    console.print("at work: in decode, plan, model and settle. On a busy machine believe the ratio of these shares before that of frames/s")
    if not same or ratio < RATIO_BAR:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(cost_command)

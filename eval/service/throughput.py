"""What transport alone can do: pictures of 100 kB through Kafka, a worker with Redis, and back, with a model that costs nothing.

    python -m psalm_stream.eval.service.throughput [--frames 600] [--rate FRAMES_S] [--repetitions 3] [--profile]

The model is a fake on purpose: always the same proposal. What is left in the worker is everything else it does for a tracked object: decode
the JPEG, plan and settle (run-lengths, no optical flow), pack the state with its three pictures, Redis, one Kafka transaction a turn.
Saturated: sources as fast as the window of unanswered frames lets them, so latency is the window over the rate. Paced: at half of that, or
at --rate. Latency: from the picture in the source's hand until a subscriber has the committed answer, one clock, the source's transaction
included. Sources send as an ingest worker does; worker, sources, subscriber and servers are processes of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import pstats
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...stream.codec import unpack
from ...stream.errors import BadConfig
from ...stream.kafka_tail import Tail
from ...stream.types import MaskFrame
from ...workers.dev import DevServers
from ...workers.dev_server import guard
from ...workers.settings import Settings
from .load import SIZE_HW, Load, pictures, source_process, worker_process
from .rig import END_S, Rig, cpu_s, machine, plain_table, spread

PICTURES, KILOBYTES = 16, 100  # different ones, sent over and over; of each
PATIENCE_S = 120.0  # between two answers
PROFILED = 16  # functions shown
PARTS = {
    "read frames": ("kafka_bus.py", "poll"),
    "unpack frames": ("answering.py", "_message"),
    "decode JPEG": ("pictures.py", "decode_rgb"),
    "plan": ("tracker.py", "plan"),
    "settle": ("tracker.py", "settle"),
    "pack states and answers": ("codec.py", "pack"),
    "Redis": ("redis_store.py", "prepare"),
    "commit": ("kafka_bus.py", "commit"),
    "a turn in all": ("segment.py", "turn"),
}


@dataclass(frozen=True, slots=True)
class Flow:
    """What one run measured.

    latency_s: per frame; cpu_s: by process, while they were answered; stage_ms: of the worker, mean a frame; written_bytes: by server.
    """

    frames: int
    seconds: float
    latency_s: tuple[float, ...]
    cpu_s: dict[str, float]
    stage_ms: dict[str, float]
    written_bytes: dict[str, int]

    def latency_ms(self, share: float) -> float:
        """The latency that `share` (0..1) of the frames do not exceed."""
        return 1e3 * float(np.quantile(self.latency_s, share))

    def cpu_ms(self, process: str) -> float:
        """CPU milliseconds a frame of one process."""
        return 1e3 * self.cpu_s[process] / self.frames

    def written_kb(self, server: str) -> float:
        """Kilobytes (of 1000 bytes) a frame that a server was given to keep."""
        return self.written_bytes[server] / self.frames / 1e3

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


# -- one run ----------------------------------------------------------------------------------------------------------


def run(servers: DevServers, load: Load, advance: Callable[[], None], profile: Path | None = None) -> Flow:
    """Send a load through topics of its own, and measure from the first frame after the warm-up to the last answer."""
    rig = Rig.on(servers, partitions=len(load.sessions))
    settings = Settings(**rig.knobs, motion="off")
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    permits = {session: context.Semaphore(max(1, load.window // len(load.sessions))) for session in load.sessions}
    with ExitStack() as stack:
        answers = stack.enter_context(rig.answers())
        pids = {"subscriber": os.getpid(), **rig.pids}
        for name, target, args in (
            ("worker", worker_process, (settings, profile)),
            ("source", source_process, (rig.cluster, load, go, list(permits.values()))),
        ):
            process = context.Process(target=target, args=args, name=name, daemon=True)
            process.start()
            stack.callback(_end, process, guard(process.pid))
            pids[name] = process.pid
        _take(answers, load.warm_up * len(load.sessions), lambda _: None)
        written, before, began_s, latency_s, stages = rig.written, _used(pids), time.time(), [], []

        def take(answer: MaskFrame) -> None:
            latency_s.append(time.time() - answer.t_ns / 1e9)
            stages.append(answer.ms)
            permits[answer.key.session].release()
            advance()

        go.set()
        _take(answers, load.frames_each * len(load.sessions), take)
        seconds, after = time.time() - began_s, _used(pids)
        used_s = {name: after[name] - before[name] for name in pids}
        written = {server: now - written[server] for server, now in rig.written.items()}
        stage_ms = {stage: float(np.mean([ms[stage] for ms in stages])) for stage in stages[0]}
        return Flow(len(latency_s), seconds, tuple(latency_s), used_s, stage_ms, written)


def _take(answers: Tail, count: int, take: Callable[[MaskFrame], None]) -> None:
    """Read `count` masks. Raises BadConfig when none come for PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while count:
        for record in answers.poll(1.0):
            if isinstance(answer := unpack(record.kind, record.data), MaskFrame):
                take(answer)
                count -= 1
                until = time.monotonic() + PATIENCE_S
        if time.monotonic() > until:
            raise BadConfig(f"no answer for {PATIENCE_S:.0f} s, {count} are missing; see what worker and sources said above")


def _used(pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_s(pid) for name, pid in pids.items()}


def _end(process: multiprocessing.Process, guarding: subprocess.Popen) -> None:
    process.terminate()
    process.join(END_S)
    process.kill()
    guarding.wait()


# -- the command ------------------------------------------------------------------------------------------------------


def show(flows: dict[str, list[Flow]], console: Console) -> None:
    """Print rates, latencies and CPU by process, a column for each way of sending."""
    table = plain_table("median (range) over the runs", "", list(flows))

    def line(name: str, value: Callable[[Flow], float], digits: int = 1) -> None:
        table.add_row(name, *(spread([value(flow) for flow in runs], digits) for runs in flows.values()))

    line("frames/s", lambda f: f.rate)
    line("latency p50, ms", lambda f: f.latency_ms(0.5), 0)
    line("latency p95, ms", lambda f: f.latency_ms(0.95), 0)
    table.add_section()
    service = ("worker", "source", "broker", "redis")
    for process in (*service, "subscriber"):
        line(f"{process}, CPU ms a frame", lambda f, process=process: f.cpu_ms(process), 2)
    line("all but the subscriber", lambda f: sum(f.cpu_ms(p) for p in service), 2)
    table.add_section()
    line("frames/s per core of the worker", lambda f: 1e3 / f.cpu_ms("worker"))
    line("frames/s per core of all but the subscriber", lambda f: 1e3 / sum(f.cpu_ms(p) for p in service))
    table.add_section()
    line("written to Redis, kB a frame", lambda f: f.written_kb("redis"))
    line("in the broker's logs, kB a frame", lambda f: f.written_kb("broker"))
    table.add_section()
    for stage in next(iter(flows.values()))[0].stage_ms:
        line(f"  in the worker: {stage}, ms a frame", lambda f, stage=stage: f.stage_ms[stage], 2)
    console.print(table)


def parts_of(profile: Path) -> dict[str, tuple[float, int]]:
    """Seconds and calls of each of the PARTS of a turn, in a profile."""
    found = dict.fromkeys(PARTS, (0.0, 0))
    for (path, _, called), (_, calls, _, seconds, _) in pstats.Stats(str(profile)).stats.items():
        for part, (file_name, name) in PARTS.items():
            if called == name and path.endswith(f"/{file_name}"):
                found[part] = (found[part][0] + seconds, found[part][1] + calls)
    return found


def show_profile(profile: Path, frames: int, console: Console) -> None:
    """Print what the parts of a turn cost, and the functions that cost most by themselves; CPU time, which profiling adds to."""
    found = pstats.Stats(str(profile)).stats
    parts = plain_table("CPU of the worker's main thread, profiled", "part", ["ms a frame", "calls a frame"])
    for part, (seconds, calls) in parts_of(profile).items():
        parts.add_row(part, f"{1e3 * seconds / frames:.2f}", f"{calls / frames:.2f}")
    console.print(parts)
    table = plain_table("the same by function", "function", ["itself, ms a frame", "with what it calls", "calls"])
    for (path, number, name), (_, calls, own_s, all_s, _) in sorted(found.items(), key=lambda item: -item[1][2])[:PROFILED]:
        where = f"{Path(path).parent.name}/{Path(path).name}:{number} {name}" if number else name
        table.add_row(where, f"{1e3 * own_s / frames:.2f}", f"{1e3 * all_s / frames:.2f}", f"{calls / frames:.1f}")
    console.print(table)


def throughput_command(
    frames: Annotated[int, typer.Option(min=8, help="Frames of a run, after the warm-up.")] = 600,
    sessions: Annotated[int, typer.Option(min=1, help="Streams, each with a partition of its own.")] = 4,
    window: Annotated[int, typer.Option(min=1, help="Saturated: frames that may be unanswered at a time, in all.")] = 64,
    rate: Annotated[float | None, typer.Option(help="Paced: frames a second, in all. Default: half of the saturated rate.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    profile: Annotated[bool, typer.Option(help="Profile the worker in one more saturated run.")] = False,
) -> None:
    """Measure transport alone: frames a second per core, latency, and who used the CPU."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"
    made = pictures(PICTURES, KILOBYTES)
    names = tuple(f"stream-{number}" for number in range(sessions))
    saturated = Load(made, names, frames, window)
    flows: dict[str, list[Flow]] = {"saturated": [], "paced": []}
    said = machine()
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, DevServers() as servers, tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions):
            for way in flows:
                pace = None if way == "saturated" else rate or flows["saturated"][0].rate / 2
                task = progress.add_task(way, total=saturated.frames_each * sessions)
                load = replace(saturated, rate=pace)
                flows[way].append(run(servers, load, lambda task=task: progress.advance(task)))
        stats = Path(folder) / "profile"
        if profile:
            task = progress.add_task("profiled", total=saturated.frames_each * sessions)
            run(servers, saturated, lambda: progress.advance(task), stats)
        size = "x".join(map(str, reversed(SIZE_HW)))
        mean_kb = sum(map(len, made)) / len(made) / 1e3
        console.print(f"\n{frames} JPEGs of {size}, {mean_kb:.0f} kB each, in {sessions} streams; one worker, model: a constant answer")
        console.print(said)
        show(flows, console)
        if profile:
            show_profile(stats, (saturated.frames_each + saturated.warm_up) * sessions, console)


if __name__ == "__main__":
    typer.run(throughput_command)

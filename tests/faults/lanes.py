"""Runs of the fault tests, side by side on one broker, each with a Redis that nobody else uses, and how they ended."""

from __future__ import annotations

import queue
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ground import Place, Run, Timing
from points import Point
from psalm_stream.workers.dev import redis_server
from psalm_stream.workers.dev_server import Server, free_ports
from story import Verdict


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    effects: of each commit that a worker died in, whether it was made; failures: of turns, as number of the
    worker, name and text; error: what did not come about."""

    point: str
    seed: str
    hits: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    takeovers: tuple[float, ...] = ()
    effects: tuple[bool | None, ...] = ()
    failures: tuple[tuple[int, str, str], ...] = ()
    rebuilds: int = 0
    error: str = ""
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return self.verdict.clean and not self.error


@dataclass
class Lanes:
    """What runs share, and what each has for itself: as many runs go on at a time as there are Redis servers."""

    kafka: Server
    folder: Path
    redis: queue.Queue = field(default_factory=queue.Queue)

    def go(self, point: Point, number: int, seed: int, timing: Timing) -> Outcome:
        """One run on a free lane."""
        redis = self.redis.get()
        try:
            return one_run(Place(self.kafka, redis, self.folder), point, f"{seed}/{point.name}/{number}", timing)
        finally:
            if not redis.running:
                redis.start()
            self.redis.put(redis)


@contextmanager
def lanes(kafka: Server, folder: Path, count: int) -> Iterator[Lanes]:
    """Lanes on one broker, each with a Redis that only its runs kill, empty and roll back."""
    with ExitStack() as stack:
        made = Lanes(kafka, folder)
        for number, port in enumerate(free_ports(count)):
            redis = redis_server(folder / f"redis-{number}", port)
            stack.callback(redis.stop)
            redis.start()
            made.redis.put(redis)
        yield made


def one_run(place: Place, point: Point, seed: str, timing: Timing) -> Outcome:
    """Let a point's story happen once, and judge it."""
    began = time.monotonic()
    verdict, error = Verdict(), ""
    with Run(place, seed, timing) as run:
        try:
            verdict = point.happens(run)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
            (run.folder / "error.txt").write_text(traceback.format_exc())
        hits = [(worker, note) for worker in run.workers for note in worker.told("hit")]
        effects = tuple(run.took_effect(w) for w, note in hits if note.said == "committing" and w.faults[-1].action == "kill")
        rebuilds = sum(len(worker.told("rebuilt")) for worker in run.workers)
        if error or not verdict.clean:
            error += f" (logs in {run.folder})"
        else:
            shutil.rmtree(run.folder)
        failures = tuple((number, *note.said) for number, worker in enumerate(run.workers) for note in worker.told("failed"))
        takeovers = tuple(run.takeovers())
        return Outcome(point.name, seed, len(hits), verdict, takeovers, effects, failures, rebuilds, error, time.monotonic() - began)

"""Does the service hold? Paced streams for many minutes, while one of the workers is taken away every two.

    python -m psalm_stream.eval.service.soak [--streams 4] [--minutes 20] [--rate 1] [--every 120]

Every stream loops a drawn clip at `--rate` frames a second; workers take turns in dying, by SIGTERM or SIGKILL, and are started again at
once. At the end every record of `frames` must have exactly one answer in `masks`, in order (verdict.py). Lag and resident memory
are sampled to samples.csv and judged by steady.py: memory between workers of one age and within a life, lag by what has come meanwhile.
"""

from __future__ import annotations

import csv
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ...stream.errors import BadConfig
from ...stream.kafka_tail import Tail
from ...stream.sources import open_source
from ...stream.types import Frame, FrameKey, Prompt
from ...workers.demo import draw
from ...workers.dev import DevServers
from ...workers.prompt_flags import PromptFlags, prompts
from .rig import VIEW, Rig, WorkerProcess, fed, machine, plain_table
from .steady import AGES_S, MAX_LAG_S, Finding, Sample, at_age, judge_lag, judge_memory
from .verdict import Verdict, judge_log

WORKERS = 2
SAMPLE_S = 5.0
DRAIN_S = 300.0  # for the last answers, after the last frame
BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """The course of a figure as a line of blocks, the largest of each stretch, scaled to the largest of all."""
    cuts = [round(n * len(values) / min(width, len(values))) for n in range(min(width, len(values)) + 1)]
    tops = [max(values[start:stop]) for start, stop in pairwise(cuts)]
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * top / max(max(tops), 1e-9))] for top in tops)


# -- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen. rate: frames a second of one stream; every_s: between two deaths."""

    streams: int
    seconds: float
    rate: float
    workers: int
    every_s: float
    weights: str

    @property
    def sessions(self) -> list[str]:
        """Names of the streams."""
        return [f"stream-{number}" for number in range(self.streams)]


class Workers:
    """The worker processes, each in a place of its own; they take turns in dying."""

    def __init__(self, rig: Rig, count: int) -> None:
        self.rig = rig
        self.deaths: list[str] = []
        self.places = [self._start(place) for place in range(count)]
        self._dying: set[int] = set()

    def end_next(self) -> None:
        """Take the next worker away."""
        place, how = death(len(self.deaths), len(self.places))
        self.places[place].process.send_signal(how)
        self._dying.add(place)
        self.deaths.append(how.name)

    def revive(self) -> None:
        """Start the ones that were taken away and are gone. Raises BadConfig for one that ended by itself."""
        for place, worker in enumerate(self.places):
            if not worker.ended:
                continue
            if place not in self._dying:
                raise BadConfig(f"worker {place} ended by itself with exit code {worker.process.returncode}; see its log above")
            worker.end()
            self._dying.remove(place)
            self.places[place] = self._start(place)

    def close(self) -> None:
        """End all of them."""
        for worker in self.places:
            worker.end()

    def _start(self, place: int) -> WorkerProcess:
        return WorkerProcess(self.rig, "--slot", str(place))


def soak(plan: Plan, clip: Sequence[Frame], prompt: Prompt, rig: Rig, advance: Callable[[Sample], None]) -> tuple[list[Sample], list[str]]:
    """Run the plan, and wait for the last answer. Returns the samples and how workers died; `advance` is told of each sample."""
    samples: list[Sample] = []
    with ExitStack() as stack:
        feeds = {session: stack.enter_context(fed(rig.cluster, session)) for session in plan.sessions}
        answers = stack.enter_context(rig.answers())
        workers = Workers(rig, plan.workers)
        stack.callback(workers.close)
        for session, feed in feeds.items():
            feed([replace(prompt, key=replace(prompt.key, session=session))])
        accepted, answered = plan.streams, _first_answers(answers, plan.streams, workers)
        sent, began_s = dict.fromkeys(feeds, 0), time.monotonic()
        while True:
            now_s = time.monotonic() - began_s
            due = int(min(now_s, plan.seconds) * plan.rate) + 1
            for session, feed in feeds.items():
                feed([looped(clip, session, index) for index in range(sent[session], due)])
                accepted += due - sent[session]
                sent[session] = due
            answered += len(answers.poll(0.05))
            workers.revive()
            if now_s < plan.seconds and now_s > plan.every_s * (len(workers.deaths) + 1):
                workers.end_next()
            over = now_s > plan.seconds and (answered >= accepted or now_s > plan.seconds + DRAIN_S)
            if over or now_s >= SAMPLE_S * len(samples):
                samples.append(sample(now_s, accepted, answered, rig, workers.places))
                advance(samples[-1])
            if over:
                return samples, workers.deaths


def death(number: int, workers: int) -> tuple[int, signal.Signals]:
    """Which worker dies, and how: each in turn, by SIGTERM and SIGKILL alternately, the other way round when it is its turn again."""
    rounds, place = divmod(number, workers)
    return place, (signal.SIGTERM, signal.SIGKILL)[(place + rounds) % 2]


def looped(clip: Sequence[Frame], session: str, index: int) -> Frame:
    """Frame `index` of a stream that plays the clip forwards and backwards without end."""
    there_and_back = [*clip, *clip[-2:0:-1]]
    shown = there_and_back[index % len(there_and_back)]
    return replace(shown, key=FrameKey(session, VIEW, index), t_ns=time.time_ns(), live=True)


def sample(t_s: float, accepted: int, answered: int, rig: Rig, workers: Sequence[WorkerProcess]) -> Sample:
    """How the service is now; a worker that has just died is left out."""
    rss_mb = {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in rig.pids.items()}
    age_s = {}
    for place, worker in enumerate(workers):
        with suppress(psutil.NoSuchProcess):
            rss_mb[f"worker {place}"] = worker.process.memory_info().rss / 2**20
            age_s[f"worker {place}"] = time.time() - worker.process.create_time()
    return Sample(t_s, accepted, answered, rss_mb, age_s)


def _first_answers(answers: Tail, count: int, workers: Workers) -> int:
    """Wait until the prompts are answered, so that nothing measured is about starting."""
    found, until = 0, time.monotonic() + DRAIN_S
    while found < count:
        found += len(answers.poll(0.2))
        workers.revive()
        if time.monotonic() > until:
            raise BadConfig(f"{found} of {count} prompts were answered in {DRAIN_S:.0f} s; see the workers' log above")
    return found


# -- the command ------------------------------------------------------------------------------------------------------


def show(samples: Sequence[Sample], deaths: Sequence[str], found: Verdict, console: Console) -> None:
    """Print answers, lag and memory."""
    answers = plain_table("records and answers (committed, read to the end of both topics)", "", ["count"])
    for name in ("accepted", "lost", "doubled", "unasked", "disordered"):
        answers.add_row(name, str(getattr(found, name)))
    for status, count in sorted(found.statuses.items()):
        answers.add_row(f"  answered {status}", str(count))
    for how, count in Counter(deaths).items():
        answers.add_row(f"workers ended by {how}", str(count))
    console.print(answers)
    lag = plain_table("lag, records behind", "", ["median", "largest"])
    quarters = [samples[n * len(samples) // 4 : (n + 1) * len(samples) // 4] for n in range(4)]
    for name, part in (("whole run", samples), *((f"quarter {n}", part) for n, part in enumerate(quarters, 1))):
        if part:
            lag.add_row(name, f"{median(s.lag for s in part):.0f}", str(max(s.lag for s in part)))
    console.print(lag)
    console.print(f"[dim]lag[/] {sparkline([s.lag for s in samples])}")
    memory = plain_table("resident memory, MB", "", ["first", "last", "least", "most", "lives"])
    for age_s in AGES_S:
        if len(found_mb := at_age(samples, age_s)) > 1:
            memory.add_row(f"worker at {age_s} s", *_four(found_mb), str(len(found_mb)))
    for server in ("broker", "redis"):
        memory.add_row(server, *_four([s.rss_mb[server] for s in samples]), "")
    console.print(memory)


def judged(plan: Plan, samples: Sequence[Sample], found: Verdict) -> list[Finding]:
    """Answers, memory and lag against what they must be."""
    wrong = f"{found.lost} lost, {found.doubled} doubled, {found.unasked} to nothing, {found.disordered} out of order"
    answers = Finding(f"answers: {wrong}, of {found.accepted} records", found.good)
    return [answers, *judge_memory(samples), *judge_lag(samples, plan.streams * plan.rate)]


def _four(values: Sequence[float]) -> list[str]:
    return [f"{value:.0f}" for value in (values[0], values[-1], min(values), max(values))]


def write_samples(samples: Sequence[Sample], file: Path) -> None:
    """One line a sample; memory and age of a worker that had just died are empty."""
    names = sorted({name for s in samples for name in s.rss_mb})
    workers = [name for name in names if name.startswith("worker")]
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["t_s", "accepted", "answered", "lag", *(f"{n} MB" for n in names), *(f"{n} age_s" for n in workers)])
        for s in samples:
            cells = [*(s.rss_mb.get(name, "") for name in names), *(s.age_s.get(name, "") for name in workers)]
            rounded = (round(cell, 1) if cell != "" else "" for cell in cells)
            writer.writerow([round(s.t_s, 2), s.accepted, s.answered, s.lag, *rounded])


def read_clip() -> tuple[list[Frame], Prompt]:
    """The drawn clip of the demo, with its objects' first masks."""
    with tempfile.TemporaryDirectory() as folder:
        video, mask = draw(Path(folder))
        with open_source(str(video), session="soak") as source:
            return list(source), prompts(PromptFlags(masks=(str(mask),)).parse(), "soak")[0]


def soak_command(
    streams: Annotated[int, typer.Option(min=1, help="Paced live streams.")] = 4,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long they play.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second of each; two workers answer about six in all on two cores.")] = 1,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two deaths of a worker.")] = 120,
    weights: Annotated[str, typer.Option(help="Checkpoint folder or hub id; nano is the shipped one.")] = "nano",
    out: Annotated[Path, typer.Option(help="Where samples.csv goes.")] = Path("out/soak"),
) -> None:
    """Play streams while workers die in turn; fails when an answer is lost, doubled, out of order or to nothing, or memory or lag grows."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(streams, 60 * minutes, rate, WORKERS, every, weights)
    clip, prompt = read_clip()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with DevServers() as servers:
        rig = Rig.on(servers, partitions=2 * streams, weights=weights, max_lag_s=MAX_LAG_S)
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("soaking", total=plan.seconds, note="")

            def advance(s: Sample) -> None:
                progress.update(task, completed=min(s.t_s, plan.seconds), note=f"{s.answered} answered, {s.lag} behind")

            samples, deaths = soak(plan, clip, prompt, rig, advance)
        found = judge_log(rig.cluster)
    out.mkdir(parents=True, exist_ok=True)
    write_samples(samples, out / "samples.csv")
    console.print(f"\n{streams} streams of {rate:g} frames/s, {minutes:g} minutes, {WORKERS} workers, one ended every {every:g} s")
    console.print(machine())
    show(samples, deaths, found, console)
    console.print(f"wrote {out / 'samples.csv'}")
    findings = judged(plan, samples, found)
    for finding in findings:
        console.print(str(finding), soft_wrap=True)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(soak_command)

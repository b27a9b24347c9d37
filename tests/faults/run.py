"""The fault tests at length: `python tests/faults/run.py` runs every line of the table in points.py four times and prints it.

Exits 1 when a record is lost, doubled or answered differently, when a run stalls, or when a full run hits a point less than three times.
Each run has a seed of its own, "SEED/POINT/NUMBER", so `--only POINT` repeats it. What a failing run left is kept, and its folder named.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where pytest finds what tests share

from ground import Timing
from lanes import Outcome, lanes
from points import POINTS
from psalm_stream.workers.dev import DevServers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LEAST_HITS, FULL = 3, 100
WIDE = 140  # columns, also where the output goes to a file
COUNTS = ("runs", "hits", "lost", "doubled", "differing", "disordered", "stalled", "fenced", "rebuilds", "slowest takeover s")


def main() -> int:
    options = read_options()
    names = options.only or list(POINTS)
    plan = [(POINTS[names[n % len(names)]], n // len(names)) for n in range(options.runs)]
    timing = Timing(session_s=options.session, transaction_s=options.transaction)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    folder = Path(tempfile.mkdtemp(prefix="psalm-faults-"))
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with DevServers() as servers, lanes(servers.kafka, folder, options.parallel) as lane, progress(console) as bar:
        task = bar.add_task("runs", total=len(plan))
        for alone in (True, False):  # a broker that was just started is back sooner than one with the logs of all runs
            wanted = [(point, number) for point, number in plan if point.alone == alone]
            with ThreadPoolExecutor(1 if alone else options.parallel) as pool:
                for done in as_completed([pool.submit(lane.go, point, number, options.seed, timing) for point, number in wanted]):
                    outcomes.append(done.result())
                    bar.advance(task)
                    report(console, outcomes[-1])
    bad = judged(outcomes, full=not options.only and options.runs >= FULL)
    console.print(table_of(outcomes, names))
    console.print(summary(outcomes, timing, options.seed, time.monotonic() - began))
    for line in bad:
        console.print(f"[red]{line}[/]")
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill, stop and starve workers, servers and sources; count what is lost or doubled.")
    parser.add_argument("--runs", type=int, default=4 * len(POINTS), help="how many, spread over the points (default: four of each)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn by lot (default: 0)")
    parser.add_argument("--parallel", type=int, default=3, help="runs at a time (default: 3)")
    parser.add_argument("--only", action="append", choices=list(POINTS), metavar="POINT", help=f"any of: {', '.join(POINTS)}")
    parser.add_argument("--session", type=float, default=Timing.session_s, help="seconds until a silent worker is expelled (default: 3)")
    parser.add_argument("--transaction", type=float, default=Timing.transaction_s, help="seconds until an open transaction is (default: 5)")
    return parser.parse_args()


def progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)


def report(console: Console, outcome: Outcome) -> None:
    if not outcome.clean:
        console.print(f"[red]{outcome.seed}[/]: {outcome.verdict} {outcome.error}", highlight=False)


def table_of(outcomes: list[Outcome], names: list[str]) -> Table:
    """A line a point: how often it was tried and hit, what went wrong, and the slowest takeover."""
    table = Table(title="Faults")
    table.add_column("point")
    for heading in COUNTS:
        table.add_column(heading, justify="right")
    for name in names:
        table.add_row(name, *cells([outcome for outcome in outcomes if outcome.point == name]))
    table.add_section()
    table.add_row("all", *cells(outcomes))
    return table


def cells(outcomes: list[Outcome]) -> list[str]:
    def total(what: str) -> int:
        return sum(getattr(outcome.verdict, what) for outcome in outcomes)

    slowest = max((seconds for outcome in outcomes for seconds in outcome.takeovers), default=None)
    counts = [len(outcomes), sum(o.hits for o in outcomes), total("lost"), total("doubled") + total("strange"), total("differing")]
    counts += [total("disordered"), sum("Stalled" in o.error for o in outcomes)]
    counts += [sum(name == "Fenced" for o in outcomes for _, name, _ in o.failures), sum(o.rebuilds for o in outcomes)]
    return [*map(str, counts), "" if slowest is None else f"{slowest:.1f}"]


def summary(outcomes: list[Outcome], timing: Timing, seed: int, seconds: float) -> str:
    effects = [effect for outcome in outcomes for effect in outcome.effects]
    return (
        f"seed {seed}; session timeout {timing.session_s:g} s, transaction timeout {timing.transaction_s:g} s; {seconds:.0f} s in all. "
        f"Deaths during commit: {effects.count(True)} commits were made, {effects.count(False)} were not."
    )


def judged(outcomes: list[Outcome], full: bool) -> list[str]:
    """What is wrong, a line each."""
    bad = [f"{outcome.seed}: {outcome.verdict} {outcome.error}" for outcome in outcomes if not outcome.clean]
    for name in POINTS if full else ():
        if (hits := sum(outcome.hits for outcome in outcomes if outcome.point == name)) < LEAST_HITS:
            bad.append(f"{name} was hit {hits} times, expected at least {LEAST_HITS}")
    return bad


if __name__ == "__main__":
    sys.exit(main())

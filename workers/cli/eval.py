"""`psalm-stream eval` and `psalm-stream score`: flags in, a progress bar, a table and a report out.

What they do is in eval/davis: evaluation.py runs and scores, page.py draws, comparison.py compares. Other data sets add their commands
to the two groups from files of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...stream.errors import BadConfig, BadInput
from ..settings import Settings, read_settings
from .console import INTERRUPTED, clean_errors, knob, out

if TYPE_CHECKING:
    from ...eval.davis.evaluation import Evaluation
    from ...eval.davis.layout import Davis
    from ...eval.davis.results import Results, SequenceResult
    from ...eval.davis.tracking import Tracker

eval_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)
score_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)

Root = Annotated[Path, typer.Argument(metavar="ROOT", help="A DAVIS folder, in the layout of 2017 or of 2016.")]
SetName = Annotated[str, typer.Option("--set", metavar="NAME", help="Which list of sequences: ImageSets/2017/NAME.txt or 480p/NAME.txt.")]
Names = Annotated[
    str, typer.Option("--sequences", metavar="A,B,...", help="Only these. [dim]\\[default: all of the set][/]", show_default=False)
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=3, help="Only the first N frames of each; not comparable with full runs.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@eval_app.command("davis")
def eval_davis_command(
    root: Root,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; one of the same evaluation goes on.")],
    set_name: SetName = "val",
    sequences: Names = "",
    limit: Limit = None,
    weights: Annotated[str | None, knob("weights", "FOLDER|HUB_ID")] = None,
    policy: Annotated[str | None, knob("policy", "honest|official")] = None,
    motion: Annotated[str | None, knob("motion", "on|off|only")] = None,
    device: Annotated[str | None, knob("device", "DEVICE")] = None,
    dtype: Annotated[str | None, knob("dtype", "float32|float16|bfloat16")] = None,
    threads: Annotated[int | None, knob("threads", "N")] = None,
    official_rounding: Annotated[bool | None, knob("official_rounding")] = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    bus: Annotated[
        str | None, typer.Option(metavar="kafka://HOST:PORT", help="Send the frames through this broker, to running segment workers.")
    ] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="With --bus: how long an answer may take.")] = 300.0,
    kafka_properties: Annotated[str | None, knob("kafka_properties", "FILE")] = None,
    topic_prefix: Annotated[str | None, knob("topic_prefix", "TEXT")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh: replace the results that are in DIR.")] = False,
    quiet: Quiet = False,
) -> None:
    """Follow the objects of DAVIS sequences from their first masks on, as [bold]run[/] does, and score the masks.

    Policy [bold]honest[/] decides from its predictions alone. [bold]official[/] repeats PSALM's own evaluation, which is told by the
    annotations which objects exist in each frame; the report says so.

    [bold]psalm-stream eval davis DAVIS --out results[/]

    [bold]psalm-stream eval davis DAVIS --out quick --sequences dog,parkour --limit 20[/]

    [bold]psalm-stream eval davis DAVIS --out streamed --bus kafka://127.0.0.1:9092[/]

    DIR gets SEQUENCE/00000.png ... (indexed PNGs, as they are submitted), the CSVs of the official scorer, results.json and report.html.
    Interrupted, the same command goes on after the last sequence that was finished.
    """
    model_knobs = {
        "weights": weights,
        "policy": policy,
        "motion": motion,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "official_rounding": official_rounding,
        "sampled_regions": sampled_regions,
    }
    with clean_errors():
        settings = read_settings(**model_knobs, kafka_properties=kafka_properties, topic_prefix=topic_prefix)
        from ...eval.davis.evaluation import Evaluation, clear, finished
        from ...eval.davis.layout import check_pictures

        before = finished(out_dir, overwrite)
        davis = _open(root, set_name, sequences, limit, before)
        for sequence in davis.sequences:
            check_pictures(sequence, whole=limit is None)
        if bus is None:
            track, method = _embedded(settings)
        else:
            track, method = _on_bus(bus, settings, [name for name, value in model_knobs.items() if value is not None], wait)
        if overwrite:
            clear(out_dir, davis)
        _evaluate(Evaluation(davis, out_dir, track, method), before, Console(quiet=quiet, highlight=False, emoji=False))


@eval_app.command("compare")
def compare_command(
    one: Annotated[Path, typer.Argument(metavar="A", help="A results folder of eval davis or score davis.")],
    two: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="The page. [dim]\\[default: compared-with-A.html in B][/]", show_default=False),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="ROOT", help="Where the data set is now, for the pictures. [dim]\\[default: as it was][/]"),
    ] = None,
) -> None:
    """Put two results of one data set side by side: as a table, and as a page with J&F over time and the frames that differ most.

    [bold]psalm-stream eval compare results other-results[/]
    """
    with clean_errors():
        from ...eval.davis.comparison import compare, comparison_table, write_comparison

        found = compare(one, two)
        path = out_file or two / f"compared-with-{one.resolve().name}.html"
        data = root or Path(found.results[0].dataset["root"])
        there = data.is_dir() or root is not None
        write_comparison(found, path, data if there else None)
    out.print(comparison_table(found))
    for name, *values in found.settings:
        out.print(f"{escape(name)}: {escape(values[0])} | {escape(values[1])}", soft_wrap=True)
    if found.unshared:
        out.print(f"[yellow]note[/] left out, because only one of them has it: {', '.join(found.unshared)}", soft_wrap=True)
    if not there:
        out.print(f"[yellow]note[/] no pictures: {escape(str(data))} is not there; name the data set's folder with --root", soft_wrap=True)
    out.print(f"page in [bold]{escape(str(path))}[/]", soft_wrap=True)


@score_app.command("davis")
def score_davis_command(
    root: Root,
    results_dir: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of SEQUENCE/00000.png ...: masks of any method.")],
    set_name: SetName = "val",
    sequences: Names = "",
    limit: Limit = None,
    quiet: Quiet = False,
) -> None:
    """Score masks that are there already, by the rules of the DAVIS-2017 evaluation.

    Masks are indexed PNGs whose values are the object ids of the first annotation; for DAVIS-2016 whatever is not 0 is the object.

    [bold]psalm-stream score davis DAVIS masks[/]

    RESULTS gets the CSVs of the official scorer, computed anew each time, results.json and report.html.
    """
    with clean_errors():
        from ...eval.davis.evaluation import score_folder
        from ...eval.davis.results import read_results

        say = Console(quiet=quiet, highlight=False, emoji=False)
        if not results_dir.is_dir():
            raise BadInput(f"RESULTS {results_dir} is no folder, expected one with a folder of label PNGs for each sequence")
        davis = _open(root, set_name, sequences, limit, read_results(results_dir))
        with _progress(say, davis, "scoring") as advance:
            results = score_folder(davis, results_dir, advance)
        _conclude(results, davis, results_dir, say)


def _open(root: Path, set_name: str, sequences: str, limit: int | None, before: Results | None) -> Davis:
    """The sequences that were asked for, and those the results folder has already."""
    from ...eval.davis.layout import open_davis

    names = [name.strip() for name in sequences.split(",") if name.strip()]
    davis = open_davis(root, set_name, names, limit)
    if not names or before is None:
        return davis
    return open_davis(root, set_name, [*names, *(s.name for s in before.sequences if s.name in davis.listed)], limit)


def _embedded(settings: Settings) -> tuple[Tracker, dict[str, object]]:
    """The tracker in this process, and how it makes masks."""
    from ...eval.davis.tracking import embedded_tracker, method_of
    from ...psalm.tracker import Rules
    from ..run import load_model

    Rules(settings.policy, settings.motion)  # what does not go together shows before a model is loaded
    model = load_model(settings)
    return embedded_tracker(model, settings), method_of(settings, model.digest)


def _on_bus(bus: str, settings: Settings, given: Sequence[str], wait_s: float) -> tuple[Tracker, dict[str, object]]:
    """The tracker behind a broker, and what is known of how its workers make masks."""
    if settings.policy == "official":
        raise BadConfig("policy 'official' needs the annotations' oracle, which does not travel; leave out --bus, or choose policy honest")
    if theirs := [name for name in given if name != "policy"]:
        raise BadConfig(
            f"--{theirs[0].replace('_', '-')} is decided by the workers behind --bus; start them with it, and leave it out here"
        )
    scheme, _, servers = bus.rpartition("://")
    if scheme != "kafka":
        raise BadConfig(f"--bus is {bus!r}, expected kafka://HOST:PORT,...")
    from ...eval.davis.bus_tracking import bus_tracker
    from ...stream.kafka_client import open_cluster
    from ..run import versions

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what fails is said in words, once
    cluster = open_cluster(servers, settings.kafka_properties or None, settings.topic_prefix)
    return bus_tracker(cluster, wait_s), {"policy": "honest", "bus": bus, "weights_digest": None, "versions": versions()}


def _evaluate(job: Evaluation, before: Results | None, say: Console) -> None:
    from ...eval.davis.evaluation import evaluate
    from ...eval.davis.results import Results, read_results

    done: list[SequenceResult] = []
    try:
        with _progress(say, job.davis, "following") as advance:
            for result, kept in evaluate(job, before, advance):
                done.append(result)
                say.print(_line(result, kept))
    except KeyboardInterrupt:
        say.print("[yellow]stopped[/]; what is finished is kept: the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    made = read_results(job.out)
    _conclude(Results(made.dataset, made.method, tuple(done)), job.davis, job.out, say)


def _line(result: SequenceResult, kept: bool) -> str:
    """One sequence in a line: its score, and how fast it was followed."""
    score, run = result.score, result.run
    said = f"{escape(result.name):<22} J&F [bold]{100 * score.jf:5.1f}[/]  J {100 * score.j.mean:5.1f}  F {100 * score.f.mean:5.1f}"
    return f"{said}  {'[dim]finished before[/]' if kept else f'{len(result.frames) / run.seconds:.1f} frames/s'}"


@contextmanager
def _progress(say: Console, davis: Davis, doing: str) -> Iterator[Callable[[int], None]]:
    """A bar over the frames of all sequences; yields a function that is told how many more are done."""
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]} frames/s"), TimeRemainingColumn())
    with Progress(*columns, console=say, disable=say.quiet) as progress:
        task = progress.add_task("", total=sum(len(sequence.frames) for sequence in davis.sequences), rate="-")

        def advance(frames: int) -> None:
            progress.advance(task, frames)
            rate = progress.tasks[0].speed
            progress.update(task, rate=f"{rate:.1f}" if rate else "-")

        yield advance


def _conclude(results: Results, davis: Davis, folder: Path, say: Console) -> None:
    """Write what a finished evaluation leaves behind, and show its table."""
    from ...eval.davis.page import write_report
    from ...eval.davis.results import write_csvs, write_results
    from ...eval.davis.tables import scores_table

    try:
        write_results(folder, results)
        csvs = write_csvs(folder, results)
        report = write_report(folder, results, davis)
    except OSError as error:
        raise BadConfig(f"{folder} cannot be written ({error}); the report lies beside the masks: put these where it can") from error
    say.print(scores_table(results))
    for remark in results.remarks:
        say.print(f"[yellow]note[/] {escape(remark)}", soft_wrap=True)
    say.print(f"report in [bold]{escape(str(report))}[/]; results.json, {', '.join(path.name for path in csvs)}", soft_wrap=True)

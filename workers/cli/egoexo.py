"""`psalm-stream eval egoexo` and `psalm-stream score egoexo`: flags in, a progress bar, tables and a report out.

What they do is in eval/egoexo: run.py asks the model, score.py scores, report.py writes, page.py draws.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...stream.errors import BadConfig
from ..settings import MODEL_KNOBS, Settings, read_settings
from .console import INTERRUPTED, clean_errors, knob

if TYPE_CHECKING:
    from ...eval.egoexo.data import DataRoot
    from ...eval.egoexo.report import Direction, Results
    from ...eval.egoexo.run import Job
    from ..answering import Model

BOTH = "both"

Names = Annotated[
    str,
    typer.Option(
        "--takes", metavar="A,B,...", help="Only these, by uid or name. [dim]\\[default: all of the split][/]", show_default=False
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N annotated frames of each take; not comparable.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def mount(eval_app: typer.Typer, score_app: typer.Typer) -> None:
    """Add both commands to their groups."""
    eval_app.command("egoexo")(eval_egoexo_command)
    score_app.command("egoexo")(score_egoexo_command)


def eval_egoexo_command(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Processed takes: TAKE/CAMERA/FRAME.jpg, split.json, relations_SPLIT.json.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; one of the same evaluation goes on.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="Which takes: a list of split.json.")] = "val",
    relations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Relations or scoring truth, where it is not in ROOT or ROOT/annotations.")
    ] = None,
    direction: Annotated[
        str, typer.Option(metavar="ego-exo|exo-ego|both", help="In which view the masks are given, in which asked.")
    ] = BOTH,
    protocol: Annotated[
        str, typer.Option(metavar="official|objectrelator|both", help="The benchmark's own rules, or those of ObjectRelator's paper.")
    ] = "official",
    takes: Names = "",
    limit: Limit = None,
    upright_ego: Annotated[
        str | None,
        typer.Option(metavar="cw|ccw", help="Turn ego pictures and masks by a quarter before the model, and masks back after it."),
    ] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Answer frames without a picture with empty masks.")] = False,
    weights: Annotated[str | None, knob("weights", "FOLDER|HUB_ID")] = None,
    device: Annotated[str | None, knob("device", "DEVICE")] = None,
    dtype: Annotated[str | None, knob("dtype", "float32|float16|bfloat16")] = None,
    threads: Annotated[int | None, knob("threads", "N")] = None,
    official_rounding: Annotated[bool | None, knob("official_rounding")] = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Questions of one time that the model answers together.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh: replace the results that are in DIR.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find objects across views of Ego-Exo4D: given an object's mask in one camera, answer its mask in another at the same time.

    The mask in the other view is the model's condition, as in [bold]run[/] with several views. How sure an answer is that the object
    is there comes from its proposal's score: 0.5 is the tracker's own border between seen and absent.

    [bold]psalm-stream eval egoexo DATA --out results[/]

    [bold]psalm-stream eval egoexo DATA --out quick --takes drawn_table_00,drawn_table_01 --limit 5 --upright-ego cw[/]

    DIR gets predictions.json (the official format; with both directions and all takes a submission), results.json, pairs.csv (a line an
    object and frame) and report.html. Interrupted, the same command goes on where it stopped.

    No data at hand: [bold]python -m psalm_stream.eval.egoexo.scenes DATA[/] draws takes in this layout.
    """
    given = {name: value for name, value in locals().items() if name in MODEL_KNOBS}
    with clean_errors():
        settings = read_settings(**given)
        directions, protocols = _directions(direction), _protocols(protocol, upright_ego)
        from ...eval.egoexo.data import open_root
        from ...eval.egoexo.objectrelator import CHOICES
        from ...eval.egoexo.run import Job, open_results, refuse_missing

        say = Console(quiet=quiet, highlight=False, emoji=False)
        data = open_root(root, split, relations, _listed(takes), limit)
        missing = refuse_missing(data, directions, allow_missing)
        model, method = _model(settings)
        job = Job(data, out_dir, directions, settings.batch_size, upright_ego, method | {"upright_ego": upright_ego, "split": split})
        open_results(job, overwrite)
        _answer(job, protocols, model, say)
        told = {"root": str(root), "split": split, "takes": len(data.takes), "limit": limit, "directions": directions}
        small = "weights nano: the small model that is shipped for trying things out" if settings.weights == "nano" else ""
        theirs = CHOICES if "objectrelator" in protocols else ()
        remarks = _remarks(data, [missing, small, *getattr(model, "remarks", ()), *theirs], takes, limit)
        _conclude(job, protocols, told, remarks, say)


def score_egoexo_command(
    truth: Annotated[Path, typer.Argument(metavar="GT", help="relations_SPLIT.json, or a scoring truth with annotated_frames.")],
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="A prediction file, made by any method.")],
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write results.json and pairs.csv there.")] = None,
    takes: Names = "",
    limit: Limit = None,
    quiet: Quiet = False,
) -> None:
    """Score a prediction file that is there already, by the rules of the Ego-Exo4D correspondence challenge.

    What the official script stops at (missing takes, objects, pairs or frames, masks of another size) is listed in words.

    [bold]psalm-stream score egoexo relations_val.json submission.json[/]
    """
    with clean_errors():
        from ...eval.egoexo.data import chosen, read_truth
        from ...eval.egoexo.predictions import is_submission, read_predictions
        from ...eval.egoexo.report import Results, official_table, write_results

        say = Console(quiet=quiet, highlight=False, emoji=False)
        known = chosen(read_truth(truth).values(), _listed(takes))
        known = [take if limit is None else take.first(limit) for take in known]
        found = read_predictions(predictions)
        scored = _scored(known, found, say)
        remarks = [] if is_submission(found) else [f"only direction {', '.join(found)}: a submission holds both"]
        told = {"truth": str(truth), "predictions": str(predictions), "takes": len(known), "limit": limit}
        results = Results(told, {}, [*remarks, *_undecodable(scored)], scored)
        say.print(official_table(scored))
        _notes(results, say)
        if out_dir is not None:
            with _writable(out_dir):
                write_results(out_dir, results)
            say.print(f"results.json and pairs.csv in [bold]{escape(str(out_dir))}[/]", soft_wrap=True)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _directions(said: str) -> tuple[str, ...]:
    from ...eval.egoexo.data import DIRECTIONS

    if said not in (*DIRECTIONS, BOTH):
        raise BadConfig(f"--direction is {said!r}, expected one of {', '.join(DIRECTIONS)} or {BOTH}")
    return DIRECTIONS if said == BOTH else (said,)


def _protocols(said: str, upright_ego: str | None) -> tuple[str, ...]:
    from ...eval.egoexo.ask import TURNS
    from ...eval.egoexo.run import PROTOCOLS

    if said not in (*PROTOCOLS, BOTH):
        raise BadConfig(f"--protocol is {said!r}, expected one of {', '.join(PROTOCOLS)} or {BOTH}")
    if upright_ego is not None and upright_ego not in TURNS:
        raise BadConfig(
            f"--upright-ego is {upright_ego!r}, expected cw or ccw, or leave it out: pictures are then taken as they are stored"
        )
    if upright_ego is not None and said != "official":
        raise BadConfig("--upright-ego turns pictures that ObjectRelator's evaluation takes as stored; use it with --protocol official")
    return PROTOCOLS if said == BOTH else (said,)


def _model(settings: Settings) -> tuple[Model, dict[str, Any]]:
    """The model, and how answers are made with it as plain values."""
    from ...eval.egoexo.ask import CALIBRATION
    from ..run import load_model, versions

    model = load_model(settings)
    knobs = settings.model_dump(include=set(MODEL_KNOBS))
    made = {"weights_digest": model.digest, "confidence": CALIBRATION, "versions": versions(), "machine": platform.machine()}
    return model, knobs | made


def _answer(job: Job, protocols: Sequence[str], model: Model, say: Console) -> None:
    """Make every answer that is not there yet. Interrupted, what was answered is kept."""
    from ...eval.egoexo.run import still_to_do, work

    try:
        with _progress(say, "looking", len(job.data.takes), "takes") as advance:
            left = {}
            for take in job.data.takes:
                left[take.uid] = still_to_do(job, take, protocols)
                advance(1)
        with _progress(say, "asking", sum(left.values()), "questions") as advance:
            for take in job.data.takes:
                for count in work(job, take, protocols, model) if left[take.uid] else ():
                    advance(count)
    except KeyboardInterrupt:
        say.print("[yellow]stopped[/]; what was answered is kept: the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def _conclude(job: Job, protocols: Sequence[str], told: Mapping[str, Any], remarks: Sequence[str], say: Console) -> None:
    """Write what a finished evaluation leaves behind, and show its tables."""
    from ...eval.egoexo.objectrelator import totals
    from ...eval.egoexo.page import write_page
    from ...eval.egoexo.report import Results, objectrelator_table, official_table, write_results
    from ...eval.egoexo.run import sample_scores

    official, ms = _official(job, say) if "official" in protocols else ({}, [])
    theirs = {}
    if "objectrelator" in protocols:
        theirs = {d: totals({take.uid: sample_scores(job, take, d) for take in job.data.takes}) for d in job.directions}
    results = Results(told, job.method, [*remarks, *_undecodable(official)], official, theirs, ms)
    with _writable(job.out):
        write_results(job.out, results)
        page = write_page(job, results)
    for table in (*([official_table(official)] if official else []), *([objectrelator_table(theirs)] if theirs else [])):
        say.print(table)
    _notes(results, say)
    written = f"report in [bold]{escape(str(page))}[/]; results.json"
    say.print(f"{written}, pairs.csv, predictions.json" if official else written, soft_wrap=True)


def _official(job: Job, say: Console) -> tuple[dict[str, Direction], list[float]]:
    """Write the prediction file, and score it where the truth allows."""
    from ...eval.egoexo.predictions import refuse_misfits, write_predictions
    from ...eval.egoexo.run import PREDICTIONS, predictions

    by_direction: dict[str, dict[str, object]] = {direction: {} for direction in job.directions}
    ms: list[float] = []
    for take in job.data.takes:
        parts, took = predictions(job, take)
        ms += took
        for direction, part in parts.items():
            by_direction[direction][take.uid] = part
    with _writable(job.out):
        write_predictions(job.out / PREDICTIONS, by_direction)
    if job.data.scorable:
        return _scored(job.data.takes, by_direction, say), ms
    for direction, results in by_direction.items():
        refuse_misfits(job.data.takes, results, direction)
    return {}, ms


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Say in words that the results folder cannot be written. Raises BadConfig."""
    try:
        yield
    except OSError as error:
        raise BadConfig(f"--out {folder} cannot be written ({error}); make it writable or choose another, and repeat the call") from error


def _scored(takes: Sequence, by_direction: Mapping[str, Mapping], say: Console) -> dict[str, Direction]:
    from ...eval.egoexo.report import score_directions

    with _progress(say, "scoring", len(takes) * len(by_direction), "takes") as advance:
        return score_directions(takes, by_direction, lambda: advance(1))


def _remarks(data: DataRoot, others: Sequence[str], takes: str, limit: int | None) -> list[str]:
    """What must be known to compare the scores with others."""
    remarks = [*data.notes, *(remark for remark in others if remark)]
    remarks += [f"only {len(data.takes)} takes were chosen: not the score of the split"] if takes else []
    return remarks + ([f"only the first {limit} annotated frames of each take: not comparable"] if limit else [])


def _undecodable(scored: Mapping[str, Direction]) -> list[str]:
    counts = ", ".join(f"{found.undecodable} ({direction})" for direction, found in scored.items() if found.undecodable)
    return [f"true masks that cannot be decoded are not counted: {counts}"] if counts else []


def _notes(results: Results, say: Console) -> None:
    for remark in results.remarks:
        say.print(f"[yellow]note[/] {escape(remark)}", soft_wrap=True)


@contextmanager
def _progress(say: Console, doing: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar over `total` of a unit; yields a function that is told how many more are done."""
    columns = (TextColumn(f"{doing:<8}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=say, disable=say.quiet) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)

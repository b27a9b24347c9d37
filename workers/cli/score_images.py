"""`psalm-stream score refcoco|grefcoco|interactive|panoptic|semantic|instance`: two files in, a table out.

The figures, and the layouts of the files, are in the eval package. What a benchmark's official evaluation does is the first column; where
it does something that it should not, the second has the figure without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .console import clean_errors, err, out

if TYPE_CHECKING:
    from ...eval.pictures.panoptic_files import PanopticScore
    from ...eval.pictures.referring_scores import BothScores

PADDED_SIDE = 1024  # of the released model

Truth = Annotated[Path, typer.Argument(metavar="GT", help="The true answers: PSALM's JSON, or a line of JSON a question.")]
Answers = Annotated[Path, typer.Argument(metavar="PREDICTIONS", help='A line of JSON an answer: {"id": ..., "segmentation": run-length}.')]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object, fractions of 1.")]


def mount(score_app: typer.Typer) -> None:
    """Put the commands into the group `score`."""
    score_app.command("refcoco")(refcoco_command)
    score_app.command("grefcoco")(grefcoco_command)
    score_app.command("interactive")(interactive_command)
    score_app.command("panoptic")(panoptic_command)
    score_app.command("semantic")(semantic_command)
    score_app.command("instance")(instance_command)


def refcoco_command(truth: Truth, answers: Answers, as_json: AsJson = False) -> None:
    """Score answers to referring expressions: cIoU and gIoU (mean IoU).

    GT is one of PSALM's files (RefCOCO's val, testA, ... as JSON), or JSON lines such as

    {"id": "7", "size": \\[480, 640], "segmentation": polygons or run-length}

    where null means that nothing answers to the expression. PREDICTIONS are JSON lines such as

    {"id": "7", "segmentation": run-length or null}

    The id is PSALM's new_img_id, run-lengths are COCO's. What a line asks is one sample: PSALM asks all sentences of an object at once.

    Official is PSALM's evaluation: polygons drawn with whole pixels, 1e-5 added to each union. Corrected: COCO's polygons, nothing added.

    [bold]psalm-stream score refcoco refcoco_val.json predictions.jsonl[/]
    """
    with clean_errors():
        _score_questions(truth, answers, as_json)


def grefcoco_command(truth: Truth, answers: Answers, as_json: AsJson = False) -> None:
    """Score answers to expressions that may mean several objects or none: cIoU, gIoU, N-acc. and T-acc.

    Files as for [bold]score refcoco[/]. An expression without a target is right, and has an IoU of 1, exactly when its answer has no pixel.
    N-acc.: share of those; T-acc.: share of the expressions with a target whose answer has any pixel. PSALM's own evaluation answers
    with the best mask where none is sure, so that it is hardly ever right about nothing, and does not print N-acc. and T-acc.

    [bold]psalm-stream score grefcoco grefcoco_val.json predictions.jsonl[/]
    """
    with clean_errors():
        _score_questions(truth, answers, as_json, gref=True)


def interactive_command(
    truth: Truth,
    answers: Answers,
    side: Annotated[int, typer.Option(metavar="PIXELS", min=32, help="Side of the model's padded square.")] = PADDED_SIDE,
    as_json: AsJson = False,
) -> None:
    """Score answers to points, scribbles, boxes or masks (COCO-Interactive): cIoU and gIoU (mean IoU) over all regions.

    Files as for [bold]score refcoco[/], one question a region; in PSALM's JSON its id is new_img_id/annotation id. Official is PSALM's
    evaluation, whose truth went through the padded square and back, and which leaves out regions that vanish there. Corrected: the truth
    itself, every region.

    [bold]psalm-stream score interactive coco_interactive_val.json predictions.jsonl[/]
    """
    with clean_errors():
        _score_questions(truth, answers, as_json, side=side)


def panoptic_command(
    truth: Annotated[Path, typer.Argument(metavar="GT.json", help="The truth in COCO's panoptic format, with its categories.")],
    answers: Annotated[Path, typer.Argument(metavar="PREDICTIONS.json", help="The answers in the same format.")],
    truth_folder: Annotated[
        Path | None, typer.Option("--gt-folder", metavar="DIR", help="Of the true PNGs. [dim]\\[default: GT without .json][/]")
    ] = None,
    answer_folder: Annotated[
        Path | None,
        typer.Option("--pred-folder", metavar="DIR", help="Of the answered PNGs. [dim]\\[default: PREDICTIONS without .json][/]"),
    ] = None,
    per_category: Annotated[bool, typer.Option("--per-category", help="A line for every category too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score panoptic segmentation: PQ, SQ and RQ over all categories, things and stuff.

    The rules are panopticapi's: a match has the same category and an IoU above 0.5; void and crowds excuse an answer; each figure is the
    mean over the categories that any segment has. Corrected: areas are counted from the pixels instead of believed, and every crowd of a
    category excuses answers, not only its last.

    [bold]psalm-stream score panoptic panoptic_val2017.json results/panoptic.json[/]
    """
    with clean_errors():
        from ...eval.pictures.panoptic_files import PanopticFiles, score_panoptic

        with _progress("pictures") as advance:
            found = score_panoptic(PanopticFiles(truth, truth_folder), PanopticFiles(answers, answer_folder), advance)
        _panoptic(found, per_category, as_json)


def semantic_command(
    truth: Annotated[Path, typer.Argument(metavar="GT", help="Folder of true maps: PNGs whose values are category numbers from 0.")],
    answers: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder of answered maps of the same names.")],
    categories: Annotated[int, typer.Option(metavar="N", min=1, help="How many categories there are.")],
    ignored: Annotated[int, typer.Option("--ignore", metavar="VALUE", help="Value of true pixels that are not scored.")] = 255,
    as_json: AsJson = False,
) -> None:
    """Score semantic segmentation: mean IoU and accuracies, from one count over all pixels of all pictures.

    mIoU is the mean over the categories the truth has (detectron2's rule); mIoU, answered counts a category that was answered and is
    nowhere true as 0.

    [bold]psalm-stream score semantic annotations/validation results/semantic --categories 150[/]
    """
    with clean_errors():
        from ...eval.pictures.semantic_files import score_semantic

        with _progress("pictures") as advance:
            found = score_semantic(truth, answers, categories, ignored, advance)
        figures = {
            "mIoU": found.miou,
            "mIoU, answered": found.miou_answered,
            "fwIoU": found.fwiou,
            "pixel accuracy": found.accuracy,
            "mean accuracy": found.mean_accuracy,
        }
        _show(figures, f"{found.pixels:,} pixels, {(found.iou == found.iou).sum()} of {categories} categories", as_json)


def instance_command(
    truth: Annotated[Path, typer.Argument(metavar="GT.json", help="COCO's annotations, instances_val2017.json for example.")],
    answers: Annotated[Path, typer.Argument(metavar="PREDICTIONS.json", help="Answers in COCO's results format, with run-lengths.")],
    as_json: AsJson = False,
) -> None:
    """Score instance segmentation: COCO's average precision and recall of masks, by pycocotools.

    [bold]psalm-stream score instance instances_val2017.json results/instances.json[/]
    """
    with clean_errors():
        from ...eval.pictures.instance_scores import score_instances

        _show(score_instances(truth, answers), "by pycocotools", as_json)


def _score_questions(truth: Path, answers: Path, as_json: bool, gref: bool = False, side: int | None = None) -> None:
    from ...eval.pictures.referring_files import read_answers, read_questions
    from ...eval.pictures.referring_scores import score_answers

    questions = read_questions(truth, interactive=side is not None)
    with _progress("questions") as advance:
        found = score_answers(questions, read_answers(answers), side, advance)
    if as_json:
        typer.echo(referring_json(found))
    else:
        show_referring(found, gref)


def show_referring(found: BothScores, gref: bool) -> None:
    """Print the table of expressions or regions; gref: with N-acc. and T-acc."""
    official, corrected = found.official, found.corrected
    names = {"cIoU": "ciou", "gIoU": "giou"} | ({"N-acc.": "n_acc", "T-acc.": "t_acc"} if gref else {})
    figures = {name: getattr(official, field) for name, field in names.items()}
    beside = {name: getattr(corrected, "giou_exact" if field == "giou" else field) for name, field in names.items()}
    samples = f"{official.samples} samples, {official.without_target} without a target"
    if found.dropped:
        samples += f"; {found.dropped} more in the corrected column"
    _show(figures, samples, False, beside)


def referring_json(found: BothScores, remarks: Sequence[str] = ()) -> str:
    """The same figures, and all others, as one JSON object; null for what is not defined. remarks: what must be known, if anything."""
    columns = {name: asdict(getattr(found, name)) for name in ("official", "corrected")}
    plain = {name: {k: None if v != v else v for k, v in column.items()} for name, column in columns.items()}
    return json.dumps(plain | {"dropped": found.dropped} | ({"remarks": list(remarks)} if remarks else {}))


def _panoptic(found: PanopticScore, per_category: bool, as_json: bool) -> None:
    rows = {"all": None, "things": True, "stuff": False}
    official = {name: found.quality(is_thing) for name, is_thing in rows.items()}
    corrected = {name: found.quality(is_thing, corrected=True) for name, is_thing in rows.items()}
    if as_json:
        columns = {"official": official, "corrected": corrected}
        categories = {c.name: asdict(found.official[c.id]) for c in found.categories}
        shown = {column: {name: asdict(q) for name, q in figures.items()} for column, figures in columns.items()}
        typer.echo(json.dumps({**shown, "categories": categories, "pictures": found.pictures}))
        return
    table = _table("percent", "PQ", "SQ", "RQ", "categories", "PQ corrected")
    for name, q in official.items():
        table.add_row(name, *map(_percent, (q.pq, q.sq, q.rq)), str(q.categories), _percent(corrected[name].pq))
    out.print(table)
    if per_category:
        from ...eval.pictures.panoptic_metrics import quality

        listed = _table("category", "PQ", "SQ", "RQ", "matched", "wrong", "missed")
        for category in found.categories:
            tally = found.official[category.id]
            q = quality([tally])
            listed.add_row(category.name, *map(_percent, (q.pq, q.sq, q.rq)), str(tally.matched), str(tally.wrong), str(tally.missed))
        out.print(listed)
    out.print(f"{found.pictures} pictures")


def _show(figures: Mapping[str, float], about: str, as_json: bool, corrected: Mapping[str, float] | None = None) -> None:
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = _table("percent", *(("official", "corrected") if corrected else ("",)))
    for name, figure in figures.items():
        table.add_row(name, _percent(figure), *((_percent(corrected[name]),) if corrected else ()))
    out.print(table)
    out.print(about)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _percent(figure: float) -> str:
    """Two places; a dash for what is not defined, or what pycocotools has as -1."""
    return f"{100 * figure:.2f}" if figure >= 0 else "-"


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; whoever advances it says how many there are."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=None)

        def advance(total: int) -> None:
            progress.update(task, total=total, advance=1)

        yield advance

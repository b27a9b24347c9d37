"""`psalm-stream eval refcoco|grefcoco|interactive`: a benchmark's questions through the model, then scored.

How they are asked is in eval/pictures/asking.py; the table is that of cli/score_images.py.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...stream.errors import BadConfig
from ..settings import Settings, mask_settings, read_settings
from .console import INTERRUPTED, clean_errors, knob
from .images import NANO_NOTE
from .score_images import referring_json, show_referring

if TYPE_CHECKING:
    from ...eval.pictures.asking import Asking

KNOBS = ("policy", "weights", "device", "dtype", "threads", "official_rounding", "sampled_regions")
RECORD, SCORES = "run.json", "scores.json"


class PromptName(StrEnum):
    """What is drawn on a region."""

    POINT = "point"
    SCRIBBLE = "scribble"
    BOX = "box"
    MASK = "mask"


Questions = Annotated[Path, typer.Argument(metavar="GT", help="PSALM's JSON of the benchmark, or a line of JSON a question.")]
Images = Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of the pictures, COCO's train2014 for example.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; one of the same evaluation goes on.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N questions; not comparable with full runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the figures and errors.")]
Weights = Annotated[str | None, knob("weights", "FOLDER|HUB_ID")]
Device = Annotated[str | None, knob("device", "DEVICE")]
Dtype = Annotated[str | None, knob("dtype", "float32|float16|bfloat16")]
Threads = Annotated[int | None, knob("threads", "N")]
Rounding = Annotated[bool | None, knob("official_rounding")]
Policy = Annotated[
    str | None,
    typer.Option(
        metavar="honest|official",
        help="official: as PSALM's evaluation decides. [dim]\\[default: honest; env: PSALM_POLICY][/]",
    ),
]


def mount(eval_app: typer.Typer) -> None:
    """Put the commands into the group `eval`."""
    eval_app.command("refcoco")(refcoco_command)
    eval_app.command("grefcoco")(grefcoco_command)
    eval_app.command("interactive")(interactive_command)


def refcoco_command(
    questions: Questions,
    images: Images,
    out_dir: Out,
    limit: Limit = None,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    official_rounding: Rounding = None,
    quiet: Quiet = False,
) -> None:
    """Answer referring expressions by the best proposal, and score the answers: cIoU and gIoU.

    A line of JSON has id, image, size, sentences and segmentation ([bold]score refcoco --help[/]); all its sentences are asked at once.

    [bold]psalm-stream eval refcoco refcoco_val.json train2014/ --out results --weights EnmingZhang/PSALM[/]

    DIR gets predictions.jsonl, run.json and scores.json. Interrupted, the same command goes on where it stopped.
    """
    given = {name: value for name, value in locals().items() if name in KNOBS}
    with clean_errors():
        from ...eval.pictures.asking import Asking

        _evaluate(questions, Asking(images), out_dir, limit, read_settings(**given), quiet)


def grefcoco_command(
    questions: Questions,
    images: Images,
    out_dir: Out,
    limit: Limit = None,
    policy: Policy = None,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    official_rounding: Rounding = None,
    quiet: Quiet = False,
) -> None:
    """Answer expressions that may mean several objects or none, by all proposals above 0.6, and score: cIoU, gIoU, N-acc., T-acc.

    Where no proposal is above 0.6 the answer is nothing; with policy official it is the best one, as in PSALM's evaluation.

    [bold]psalm-stream eval grefcoco grefcoco_val.json train2014/ --out results --policy official --weights EnmingZhang/PSALM[/]
    """
    given = {name: value for name, value in locals().items() if name in KNOBS}
    with clean_errors():
        from ...eval.pictures.asking import Asking

        settings = read_settings(**given)
        asking = Asking(images, generalized=True, official=settings.policy == "official")
        _evaluate(questions, asking, out_dir, limit, settings, quiet)


def interactive_command(
    questions: Questions,
    images: Images,
    out_dir: Out,
    prompt: Annotated[PromptName, typer.Option(help="What is drawn on a region.")] = PromptName.POINT,
    limit: Limit = None,
    policy: Policy = None,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    official_rounding: Rounding = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    quiet: Quiet = False,
) -> None:
    """Answer shapes drawn on pictures, and score the answers: cIoU and gIoU over all regions.

    A line of JSON has id, image, size, segmentation and prompts ({"box": run-length, ...}); all regions of a picture are asked at once, the
    marked pixels of points grown by 10 px, of scribbles by 5. With policy official the best score alone decides, as in PSALM's
    evaluation; else also how well the shape is met.

    [bold]psalm-stream eval interactive coco_interactive_val.json val2017/ --out results --prompt box --policy official[/]
    """
    given = {name: value for name, value in locals().items() if name in KNOBS}
    with clean_errors():
        from ...eval.pictures.asking import Asking

        settings = read_settings(**given)
        asking = Asking(images, prompt.value, official=settings.policy == "official")
        _evaluate(questions, asking, out_dir, limit, settings, quiet)


def _evaluate(path: Path, asking: Asking, out_dir: Path, limit: int | None, settings: Settings, quiet: bool) -> None:
    from ...eval.pictures.asking import PREDICTIONS, ask, askable, done_before
    from ...eval.pictures.referring_files import read_answers, read_questions
    from ...eval.pictures.referring_scores import score_answers
    from ..run import load_model, versions

    say = Console(quiet=quiet, highlight=False, emoji=False)
    read = read_questions(path, interactive=asking.prompt is not None)[:limit]
    questions = askable(read, asking)
    if len(questions) < len(read):
        say.print(f"{len(read) - len(questions)} of {len(read)} questions cannot be asked so and are left out", soft_wrap=True)
    if settings.weights == "nano":
        say.print(NANO_NOTE, soft_wrap=True)
    model = load_model(settings)
    remarks = tuple(getattr(model, "remarks", ()))
    asked = {"questions": path.name, "prompt": asking.prompt, "generalized": asking.generalized, "limit": limit}
    _begin(out_dir, {"asked": asked, "settings": mask_settings(settings), "weights_digest": model.digest, "versions": versions()})
    predictions = out_dir / PREDICTIONS
    done = done_before(predictions, questions)
    try:
        with _bar(say) as progress, predictions.open("a", encoding="utf-8", buffering=1) as file:
            task = progress.add_task("", total=len(questions), completed=len(done))
            for answer in ask([q for q in questions if q.id not in done], asking, model):
                file.write(answer.line())
                progress.advance(task)
    except KeyboardInterrupt:
        say.print("[yellow]stopped[/]; the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    found = score_answers(questions, read_answers(predictions), model.config.image_size if asking.prompt else None)
    show_referring(found, gref=asking.generalized)
    for remark in remarks:
        say.print(f"[yellow]note[/] {escape(remark)}", soft_wrap=True)
    (out_dir / SCORES).write_text(referring_json(found, remarks) + "\n")
    say.print(f"results in [bold]{escape(str(out_dir))}[/]", soft_wrap=True)


def _begin(out_dir: Path, record: dict[str, object]) -> None:
    """Make the folder, or see that it is one of the same evaluation. Raises BadConfig."""
    from ..picture_files import refuse_other_record

    if (out_dir / RECORD).exists():
        return refuse_other_record(out_dir / RECORD, record)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise BadConfig(f"--out {out_dir} is not an empty folder; choose another")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise BadConfig(f"--out {out_dir} cannot be written ({error}); choose a folder that can") from error


def _bar(say: Console) -> Progress:
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TextColumn("questions"), TimeRemainingColumn())
    return Progress(*columns, console=say, disable=say.quiet)

"""What a model makes of drawn pictures, one line a way of naming: the figures of nano's model card.

    python -m psalm_stream.eval.pictures.table [--weights PATH] [--pictures N] [--out DIR]

Draws a benchmark (drawn.py), then asks and scores as `psalm-stream eval` and `psalm-stream segment` do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ...stream.coco import rle_json
from ...stream.rle import encode
from ...workers.images import ImageJob, Looker, pictures_of, segment_images
from ...workers.naming import naming
from ...workers.picture_files import PictureFiles
from ...workers.prompt_flags import PromptFlags
from ...workers.run import load_model
from ...workers.settings import Settings
from .asking import Asking, ask, region_of
from .drawn import EXPRESSIONS, PANOPTIC, PICTURES, SHAPES, write_benchmark
from .panoptic_files import PanopticFiles, score_panoptic
from .referring_files import Question, read_questions
from .referring_scores import score_answers

PROMPTS = ("point", "scribble", "box", "mask")
console = Console(highlight=False)


def gious(questions: Sequence[Question], asking: Asking, model: Looker) -> tuple[float, float]:
    """Mean IoU of the model's answers, and, for drawn shapes, of the very pixels that were drawn (as grown for the model)."""
    answers = {a.id: rle_json(encode(a.mask)) for a in ask(questions, asking, model)}
    own = float("nan")
    if asking.prompt is not None:
        drawn = {q.id: rle_json(encode(region_of(asking.prompt, q))) for q in questions}
        own = score_answers(questions, drawn).corrected.giou_exact
    return score_answers(questions, answers).corrected.giou_exact, own


def panoptic_row(folder: Path, model: Looker, settings: Settings) -> tuple[str, str, str, str]:
    """PQ over all categories, and how many segments there were, true and answered."""
    named = naming(str(folder / f"{PANOPTIC}.json"), None, (), PromptFlags())
    job = ImageJob(pictures_of([folder / PICTURES]), named, folder / "answers", settings, overlay=False)
    with PictureFiles(job, model.digest) as files:
        for found in segment_images(job, model):
            files.write(found)
    score = score_panoptic(PanopticFiles(folder / f"{PANOPTIC}.json"), PanopticFiles(job.out / "panoptic.json"))
    true = sum(t.matched + t.missed for t in score.official.values())
    answered = sum(t.matched + t.wrong for t in score.official.values())
    return f"categories, PQ ({true} segments, {answered} answered)", f"{100 * score.quality().pq:.1f}", "", ""


def main(
    weights: Annotated[str, typer.Option(help="Checkpoint: a folder, a Hugging Face id, or nano.")] = "nano",
    pictures: Annotated[int, typer.Option(min=1, help="How many pictures are drawn.")] = 100,
    out: Annotated[Path | None, typer.Option(help="Keep pictures, truth and answers here.")] = None,
) -> None:
    """Print mean IoU in percent for sentences and drawn shapes, and PQ for categories."""
    settings = Settings(weights=weights)
    model = load_model(settings)
    with _folder(out) as folder:
        with Progress(TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), console=console, transient=True) as progress:
            task = progress.add_task("", total=pictures)
            write_benchmark(folder, pictures, lambda: progress.advance(task))
        table = Table("named by", "mean IoU", "by score alone", "the shape itself", box=SIMPLE_HEAD)
        shapes, expressions = read_questions(folder / SHAPES), read_questions(folder / EXPRESSIONS)
        for prompt in PROMPTS:
            with console.status(f"asking with a {prompt}"):
                honest, own = gious(shapes, Asking(folder / PICTURES, prompt), model)
                official, _ = gious(shapes, Asking(folder / PICTURES, prompt, official=True), model)
            table.add_row(f"{prompt} ({len(shapes)} objects)", *(f"{100 * v:.1f}" for v in (honest, official, own)))
        with console.status("asking in words"):
            words, _ = gious(expressions, Asking(folder / PICTURES), model)
            table.add_row(f"sentence ({len(expressions)})", "", f"{100 * words:.1f}", "")
            table.add_row(*panoptic_row(folder, model, settings))
        console.print(table)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    typer.run(main)

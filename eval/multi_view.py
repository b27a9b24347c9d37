"""What carrying objects to another view is worth: IoU in each view of drawn two-camera scenes with known truth.

    python -m psalm_stream.eval.multi_view [--weights PATH] [--seeds 0,1,2] [--frames N] [--motion on|off] [--out DIR]

Objects are named by their true masks on the first frame of view ego; in exo they are found by how they look in ego. Beside the weights
stand the true proposals with the true correspondence, which show what tracking itself loses, and the weights with exo's objects named too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..psalm.overlap import pair_iou
from ..psalm.tracker import Rules
from ..stream import rle
from ..stream.errors import PsalmStreamError
from ..stream.types import MaskFrame
from ..workers.answering import Model
from ..workers.pipeline import Embedded
from ..workers.settings import Settings
from .two_cameras import EGO, EXO, STORIES, Story, TrueSegmenter, TwoCameras, frames_of

ROWS = ("truth", "weights", "named in both")


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one story in one scene, for one view.

    ids: of the objects that had a mask; iou: mean over every visible object of every frame, 0 where it was not found; found: share of those
    that had any mask; elsewhere: share of the masks, of objects that are not to be seen or less than 0.1 of which lies on them.
    """

    row: str
    story: str
    seed: int
    view: str
    ids: tuple[int, ...]
    iou: float
    found: float
    elsewhere: float


def track(clip: TwoCameras, story: Story, model: Model, rules: Rules, named: Sequence[str] = (EGO,)) -> list[MaskFrame]:
    """The answers to a story, its objects named by their true masks on the first frame of each of the views `named`."""
    prompts = [clip.prompt(view, story.indices(view, clip.count)[0]) for view in named]
    return [answer for _, answer in Embedded(model, rules, Settings()).answer(frames_of(clip, story), prompts)]


def figures(row: str, story: Story, clip: TwoCameras, answers: Sequence[MaskFrame]) -> list[Figures]:
    """The figures of each view. Only objects that ego's first frame shows are counted: nobody named the others."""
    meant = set(clip.truth(EGO, 0))
    found = []
    for view in (EGO, EXO):
        ious, wrong, ids = [], [], set()
        for answer in (a for a in answers if a.key.view == view):
            truth = {i: mask for i, mask in clip.truth(view, answer.key.index).items() if i in meant}
            masks = {o.object_id: rle.decode(o.rle) for o in answer.objects if o.rle is not None}
            overlap = {i: pair_iou(mask[None], truth[i][None])[0, 0] if i in truth else 0.0 for i, mask in masks.items()}
            ious += [overlap.get(i) for i in truth]
            wrong += [value < 0.1 for value in overlap.values()]
            ids |= masks.keys()
        known = [0.0 if value is None else value for value in ious]
        share = float(np.mean([value is not None for value in ious]))
        found.append(
            Figures(row, story.name, clip.seed, view, tuple(sorted(ids)), float(np.mean(known)), share, float(np.mean(wrong or [0.0])))
        )
    return found


def measure(weights: Model, seeds: Sequence[int], count: int, rules: Rules, progress: Progress) -> Iterator[Figures]:
    """Every row of every story of every scene."""
    task = progress.add_task("tracking", total=len(seeds) * len(STORIES) * len(ROWS))
    for seed in seeds:
        clip = TwoCameras(seed, count)
        for story in STORIES:
            for row in ROWS:
                model = TrueSegmenter(clip) if row == "truth" else weights
                named = (EGO, EXO) if row == "named in both" else (EGO,)
                yield from figures(row, story, clip, track(clip, story, model, rules, named))
                progress.advance(task)


def table_of(measured: Sequence[Figures]) -> Table:
    """A line a story and row: the mean over the scenes."""
    table = Table(title="mean over the scenes; IoU in percent", title_justify="left")
    for name in ("", "model", "ego IoU", "exo IoU", "exo found", "exo elsewhere", "ids of exo are ego's"):
        table.add_column(name, justify="left" if name in ("", "model") else "right")
    for story in dict.fromkeys(f.story for f in measured):
        for row in ROWS:
            here = [f for f in measured if (f.story, f.row) == (story, row)]
            ego, exo = ([f for f in here if f.view == view] for view in (EGO, EXO))
            same = sum(set(b.ids) <= set(a.ids) for a, b in zip(ego, exo, strict=True))
            cells = [mean(ego, "iou"), mean(exo, "iou"), mean(exo, "found"), mean(exo, "elsewhere"), f"{same} of {len(exo)}"]
            table.add_row(story if row == ROWS[0] else "", row, *cells, end_section=row == ROWS[-1])
    return table


def mean(measured: Sequence[Figures], name: str) -> str:
    """The mean of a figure, in percent."""
    return f"{100 * np.mean([getattr(f, name) for f in measured]):.1f}"


def multi_view_command(
    weights: Annotated[str, typer.Option(help="Checkpoint folder or hub id; nano is the shipped one.")] = "nano",
    seeds: Annotated[str, typer.Option(help="Comma-separated, a scene each.")] = "0,1,2",
    frames: Annotated[int, typer.Option(min=10, help="Of each camera, ten a second.")] = 30,
    motion: Annotated[str, typer.Option(help="on or off.")] = "on",
    out: Annotated[Path, typer.Option(help="Where figures.json goes.")] = Path("out/multi-view"),
) -> None:
    """Print how well objects are followed in the view they were named in and in the other one."""
    from ..psalm.weights import load

    console = Console()
    try:
        model, rules = load(weights), Rules(motion=motion)
        with Progress(console=console) as progress:
            measured = list(measure(model, [int(seed) for seed in seeds.split(",")], frames, rules, progress))
    except PsalmStreamError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps({"digest": model.digest, "figures": [asdict(f) for f in measured]}, indent=1) + "\n")
    console.print(table_of(measured))
    console.print(f"wrote {out / 'figures.json'}", highlight=False)


if __name__ == "__main__":
    typer.run(multi_view_command)

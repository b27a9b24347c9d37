"""`psalm-stream segment`: flags in, a progress bar and one clean line out. What is done with a picture is in images.py."""

from __future__ import annotations

import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..settings import read_settings
from .console import INTERRUPTED, clean_errors, knob

if TYPE_CHECKING:
    from ..images import ImageJob, Segmented

NANO_NOTE = (
    "weights: the shipped nano, for trying things out: it names no category and hardly understands sentences "
    "(psalm-stream segment --help says more); choose others with --weights"
)


class TaskName(StrEnum):
    """What is made of categories."""

    PANOPTIC = "panoptic"
    INSTANCE = "instance"
    SEMANTIC = "semantic"


def segment_command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEGs, PNGs, or folders of them.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; must be empty or new.")],
    categories: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,...|FILE.json", help="What to look for: names of things, or a COCO file that lists them."),
    ] = None,
    stuff: Annotated[str | None, typer.Option(metavar="NAME,...", help="Categories that are not countable, such as sky or grass.")] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="SENTENCE", help="One object in words; repeat it for more objects.")] = None,
    point: Annotated[list[str] | None, typer.Option(metavar="ID[@N]:x,y", help="A click on an object; repeat it for more clicks.")] = None,
    box: Annotated[list[str] | None, typer.Option(metavar="ID[@N]:x0,y0,x1,y1", help="A box around an object.")] = None,
    scribble: Annotated[list[str] | None, typer.Option(metavar="ID[@N]:x,y;x,y;...", help="A stroke over an object.")] = None,
    mask: Annotated[
        list[str] | None, typer.Option(metavar="FILE[@N]", help="Indexed PNG of rough masks; its values are object ids, 255 is undecided.")
    ] = None,
    task: Annotated[
        TaskName,
        typer.Option(help="What is made of categories. panoptic also gives semantic maps and instances, as PSALM's COCO evaluation does."),
    ] = TaskName.PANOPTIC,
    generalized: Annotated[
        bool, typer.Option("--generalized", help="A sentence may mean several objects or none: all masks that score above 0.6.")
    ] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="honest|official",
            help="honest: a drawn shape is answered by what also fits it, a generalized sentence by nothing where nothing is sure. "
            "official: by the best score alone, as PSALM's evaluation. [dim]\\[default: honest; env: PSALM_POLICY][/]",
        ),
    ] = None,
    weights: Annotated[str | None, knob("weights", "FOLDER|HUB_ID")] = None,
    device: Annotated[str | None, knob("device", "DEVICE")] = None,
    dtype: Annotated[str | None, knob("dtype", "float32|float16|bfloat16")] = None,
    threads: Annotated[int | None, knob("threads", "N")] = None,
    official_rounding: Annotated[bool | None, knob("official_rounding")] = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write no overlay pictures.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results that are in DIR.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run into DIR stopped.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Segment pictures: everything of some categories, what sentences say, or what was drawn on them.

    One way at a time. ID is the object's number, from 1 to 255; @N the picture a shape is drawn on, counted from 0 in the order given (0
    when left out). Coordinates are pixels of the displayed picture, origin top left.

    [bold]psalm-stream segment street.jpg --out results --categories "person,car" --stuff "road,sky"[/]

    [bold]psalm-stream segment val2017/ --out results --categories panoptic_val2017.json --weights EnmingZhang/PSALM[/]

    [bold]psalm-stream segment a.jpg --out results --text "the red cup" --text "the cup on the left"[/]

    [bold]psalm-stream segment a.jpg b.jpg --out results --box 1:100,50,300,200 --point 1@1:320,180[/]

    DIR gets masks/ (indexed PNGs, value = object id), overlay/, masks.jsonl and run.json; of categories also panoptic/ and panoptic.json in
    COCO's panoptic format, semantic/ (value = number of the category, from 0) and instances.json in COCO's results format.

    [bold]nano[/], the default weights, is for trying the command out, not for its masks. On drawn scenes like those it was trained on they
    have a mean IoU of 51 % with a box, 34 % with a click and 16 % with a sentence; it names no category at all, so panoptic maps stay
    void. Its words: colours, "thing", "shape", "square", "star", "on the left", ... (psalm/nano/README.md).
    """
    with clean_errors():
        settings = read_settings(
            weights=weights,
            policy=policy,
            device=device,
            dtype=dtype,
            threads=threads,
            official_rounding=official_rounding,
            sampled_regions=sampled_regions,
        )
        from ..images import ImageJob, pictures_of
        from ..naming import naming
        from ..prompt_flags import PromptFlags

        named = naming(categories, stuff, text or (), PromptFlags(mask or (), point or (), box or (), scribble or ()))
        job = ImageJob(pictures_of(images), named, out_dir, settings, task.value, generalized, not no_overlay)
        _segment(job, overwrite, resume, Console(quiet=quiet, highlight=False, emoji=False))


def _segment(job: ImageJob, overwrite: bool, resume: bool, say: Console) -> None:
    from ..images import refuse_misfits, segment_images
    from ..picture_files import PictureFiles
    from ..run import load_model, refuse_results

    refuse_results(job.out, overwrite or resume)
    refuse_misfits(job)
    if job.settings.weights == "nano":
        say.print(NANO_NOTE, soft_wrap=True)
    model = load_model(job.settings)
    tally, began = Counter(), time.perf_counter()
    with PictureFiles(job, model.digest, resume) as files:
        if files.done:
            say.print(f"{len(files.done)} pictures are done already")
        try:
            with _bar(say) as progress:
                waiting = progress.add_task("", total=len(job.images), completed=len(files.done))
                for found in segment_images(job, model, skip=lambda path: path.name in files.done):
                    files.write(found)
                    _count(tally, found)
                    progress.advance(waiting)
        except KeyboardInterrupt:
            say.print("[yellow]stopped[/]; the results so far are readable, go on with --resume")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            _summary(say, job, tally, time.perf_counter() - began)


def _bar(say: Console) -> Progress:
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TimeRemainingColumn())
    return Progress(*columns, console=say, disable=say.quiet)


def _count(tally: Counter, found: Segmented) -> None:
    tally["pictures"] += 1
    tally.update("found" if item.rle is not None else "absent" for item in found.masks.objects)
    tally["empty"] += all(item.rle is None for item in found.masks.objects)


def _summary(say: Console, job: ImageJob, tally: Counter, seconds: float) -> None:
    """The closing lines: what was found, how long it took, where it is."""
    if not tally["pictures"]:
        return
    what = "segments" if job.naming.categories else "objects"
    absent = f", {tally['absent']} not found" if tally["absent"] else ""
    say.print(f"[bold]{tally['pictures']}[/] pictures in {seconds:.1f} s: {tally['found']} {what}{absent}", soft_wrap=True)
    if tally["empty"]:
        say.print(f"[yellow]note[/] nothing was found in {tally['empty']} of them", soft_wrap=True)
    say.print(f"results in [bold]{escape(str(job.out))}[/]", soft_wrap=True)

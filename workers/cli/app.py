"""The program `psalm-stream`: its commands together. Only the modules of this folder print.

What a command does is in a module of its own (run.py, ...), loaded when the command runs: `--help` and `--version` start without torch.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .console import clean_errors, out
from .dev import dev_app
from .egoexo import mount as mount_egoexo
from .eval import eval_app, score_app
from .eval_images import mount as mount_image_evals
from .images import segment_command
from .ingest import mount as mount_ingest
from .masks import masks_command
from .run import run_command
from .score_images import mount as mount_image_scores
from .segment import segment_worker_command
from .topics import topics_app

if TYPE_CHECKING:
    from ...psalm.weights import Inspection

app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
weights_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)

EXTRA_INPUTS = {
    "mask_prior": "an object's carried mask, and the likeness of colours to it",
    "ring_detail": "detail in a mask and in a ring around it",
}


def main() -> None:
    """Entry point of the program."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end: as with Ctrl-C, leave readable results
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"psalm-stream {version('psalm-stream')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Segment objects in video with PSALM: name them once, get their masks with stable ids on every frame.

    Try: [bold]psalm-stream run video.mp4 --out results --box 1:100,50,300,200[/]
    """


def demo_command(
    context: typer.Context,
    video: Annotated[str | None, typer.Argument(metavar="[VIDEO]", help="A video; without one, a clip is found or drawn.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results, replaced each time.")] = Path("out/demo"),
) -> None:
    """Segment a video without saying what: takes the middle of the picture. More flags go to [bold]run[/].

    [bold]psalm-stream demo holiday.mp4[/]

    [bold]psalm-stream demo holiday.mp4 --point 1:640,360[/]
    """
    with clean_errors():
        from ..demo import demo_arguments

        arguments, chosen = demo_arguments(video, context.args, out_dir)
    out.print(escape(chosen), soft_wrap=True)
    app(["run", *arguments])


@weights_app.command("inspect")
def inspect_command(path: Annotated[str, typer.Argument(metavar="PATH", help="A folder, a Hugging Face id, or nano.")]) -> None:
    """Say what a checkpoint is, its digest, and whether it fits. Exit code 1 when it does not.

    [bold]psalm-stream weights inspect nano[/]

    [bold]psalm-stream weights inspect EnmingZhang/PSALM[/]
    """
    with clean_errors():
        from ...psalm.weights import inspect

        found = inspect(path)
    out.print(_inspection_table(found))
    for problem in found.problems:
        out.print(f"[red]problem[/] {escape(problem)}", soft_wrap=True)
    out.print("[green]fits[/]" if not found.problems else f"[bold red]does not fit[/]: {len(found.problems)} problems")
    raise typer.Exit(1 if found.problems else 0)


def _inspection_table(found: Inspection) -> Table:
    table = Table(show_header=False, box=None)
    table.add_row("kind", escape(found.kind))
    table.add_row("folder", escape(str(found.folder)))
    table.add_row("files", escape(", ".join(file.name for file in found.files)))
    table.add_row("tensors", f"{found.tensors} ({', '.join(f'{n} {dtype}' for dtype, n in sorted(found.dtypes.items()))})")
    table.add_row("parameters", f"{found.parameters:,}")
    table.add_row("digest", found.digest)
    fusion = [f"ObjectRelator's fusion, predictor.fuse_model.* ({len(found.fusion)} tensors)"] if found.fusion else []
    extras, unused = _by_part(found.extras, EXTRA_INPUTS), _by_part(found.unused) + fusion
    parts = (("inputs PSALM lacks", extras), ("not used", unused), ("note", found.notes))
    for name, values in parts:
        if values:
            table.add_row(name, escape("\n".join(values)))
    return table


def _by_part(tensors: list[str], means: Mapping[str, str] | None = None) -> list[str]:
    """Tensor names, counted by the part of the model they belong to. means: what a part is, in words."""
    counts = Counter(name.partition(".")[0] for name in tensors)
    said = {part: f": {words}" for part, words in (means or {}).items()}
    return [f"{part}.* ({count} tensors){said.get(part, '')}" for part, count in counts.items()]


# In the order of --help
app.command("run")(run_command)
app.command("demo", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(demo_command)
app.command("segment")(segment_command)
mount_egoexo(eval_app, score_app)
app.add_typer(eval_app, name="eval", help="Run a benchmark, or compare two of its results.")
mount_image_scores(score_app)
mount_image_evals(eval_app)
app.add_typer(score_app, name="score", help="Score masks that are there already, made by any method.")
app.add_typer(weights_app, name="weights", help="Look at checkpoints.")
mount_ingest(app)
app.command("segment-worker")(segment_worker_command)
app.command("masks")(masks_command)
app.add_typer(topics_app, name="topics", help="The Kafka topics of the service.")
app.add_typer(dev_app, name="dev", help="A Kafka broker and a Redis to develop against.")

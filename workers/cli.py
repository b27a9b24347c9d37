"""The program `psalm-stream`: flags in, a progress bar and one clean line out. The only module that prints.

What a command does is in a module of its own (run.py, ...), loaded when the command runs: `--help` and `--version` start without torch.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .cli_dev import dev_app
from .cli_eval import eval_app, score_app
from .cli_images import segment_command
from .cli_ingest import mount as mount_ingest
from .cli_masks import masks_command
from .cli_score_images import mount as mount_image_scores
from .cli_segment import segment_worker_command
from .cli_topics import topics_app
from .console import INTERRUPTED, clean_errors, knob, out
from .settings import read_settings

if TYPE_CHECKING:
    from ..psalm.weights import Inspection
    from ..stream.sources import Source
    from .run import Job
    from .tally import Tally

app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
weights_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)
STAGES = ("read", "decode", "plan", "model", "settle", "write")


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


@app.command("run")
def run_command(
    url: Annotated[str, typer.Argument(metavar="INPUT", help="A video, a folder of pictures, a URL, or camera:0.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; must be empty or new.")],
    mask: Annotated[
        list[str] | None, typer.Option(metavar="FILE[@FRAME]", help="Indexed PNG; its values are object ids, 255 is undecided.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="ID[@FRAME]:x,y", help="A click on an object; repeat it for more clicks.")
    ] = None,
    box: Annotated[list[str] | None, typer.Option(metavar="ID[@FRAME]:x0,y0,x1,y1", help="A box around an object.")] = None,
    scribble: Annotated[list[str] | None, typer.Option(metavar="ID[@FRAME]:x,y;x,y;...", help="A stroke over an object.")] = None,
    weights: Annotated[str | None, knob("weights", "FOLDER|HUB_ID")] = None,
    policy: Annotated[str | None, knob("policy", "honest|official")] = None,
    oracle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Annotation PNGs that tell policy official which ids a frame has.")
    ] = None,
    motion: Annotated[str | None, knob("motion", "on|off|only")] = None,
    device: Annotated[str | None, knob("device", "DEVICE")] = None,
    dtype: Annotated[str | None, knob("dtype", "float32|float16|bfloat16")] = None,
    threads: Annotated[int | None, knob("threads", "N")] = None,
    official_rounding: Annotated[bool | None, knob("official_rounding")] = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N frames.")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write no overlay.mp4.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results that are in DIR.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Segment a video end to end on this machine.

    Prompts name objects by ids from 1 to 255 and repeat; @FRAME is the frame they are drawn on, counted from 0 (0 when left out).
    Coordinates are pixels of the displayed frame, origin top left.

    [bold]psalm-stream run cups.mp4 --out results --box 1:560,200,780,520 --point 2@30:410,330[/]

    [bold]psalm-stream run frames/ --out results --mask 00000.png --mask 00040.png@40[/]

    DIR gets masks/00000.png ... (indexed PNGs, value = object id), masks.jsonl, overlay.mp4 and run.json.
    """
    with clean_errors():
        knobs = read_settings(
            weights=weights,
            policy=policy,
            motion=motion,
            device=device,
            dtype=dtype,
            threads=threads,
            official_rounding=official_rounding,
            sampled_regions=sampled_regions,
        )
        from .prompt_flags import PromptFlags
        from .run import Job

        flags = PromptFlags(mask or (), point or (), box or (), scribble or ()).parse()
        _run(Job(url, out_dir, flags, knobs, oracle, limit, not no_overlay), overwrite, quiet)


def _run(job: Job, overwrite: bool, quiet: bool) -> None:
    from ..stream.sources import open_source
    from .run import SESSION, load_model, refuse_results, rules_of, run
    from .tally import Tally

    say = Console(quiet=quiet, highlight=False, emoji=False)
    tally = Tally()
    with open_source(job.url, session=SESSION, limit=job.limit) as source:
        job.refuse_misfits(source)
        rules = rules_of(job)
        refuse_results(job.out, overwrite)
        for note in job.notes():
            say.print(escape(note), soft_wrap=True)
        model = load_model(job.settings)
        began = time.perf_counter()
        try:
            with _progress(say, source) as advance:
                run(job, source, model, rules, tally, lambda answer: advance())
        except KeyboardInterrupt:
            say.print("[yellow]stopped[/]; the results so far are readable")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            if tally.frames:
                _summary(say, tally, time.perf_counter() - began, job)


@contextmanager
def _progress(console: Console, source: Source) -> Iterator:
    """A bar with frames, frames/s and the time left, when the number of frames is known."""
    columns = (
        TextColumn("segmenting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        task = progress.add_task("", total=source.frames, speed="-")

        def advance() -> None:
            progress.advance(task)
            speed = progress.tasks[0].speed
            progress.update(task, speed=f"{speed:.1f}" if speed else "-")

        yield advance


def _summary(console: Console, tally: Tally, seconds: float, job: Job) -> None:
    """The closing lines: what was found, how long it took, where it is."""
    ids = ", ".join(map(str, sorted(tally.objects))) or "none"
    counts = ", ".join(f"{tally.masks[status]} {status}" for status in ("seen", "carried", "absent"))
    unusual = {status: n for status, n in tally.statuses.items() if status in ("distrusted", "undecodable", "no_prompt") and n}
    say = partial(console.print, soft_wrap=True)
    say(f"[bold]{tally.frames}[/] frames in {seconds:.1f} s; objects {ids}: {counts}")
    if unusual:
        say("frames " + ", ".join(f"{status}: {n}" for status, n in unusual.items()))
    times = (f"{stage} {tally.times[stage].quantile(0.5):.1f}" for stage in STAGES if stage in tally.times)
    say("ms per frame (median): " + ", ".join(times))
    say(f"results in [bold]{escape(str(job.out))}[/]: masks/, masks.jsonl, {'overlay.mp4, ' if job.overlay else ''}run.json")


@app.command("demo", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
        from .demo import demo_arguments

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
        from ..psalm.weights import inspect

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
    parts = (("extra, not in PSALM", _by_part(found.extras)), ("not used", _by_part(found.unused) + fusion), ("note", found.notes))
    for name, values in parts:
        if values:
            table.add_row(name, escape("\n".join(values)))
    return table


def _by_part(tensors: list[str]) -> list[str]:
    """Tensor names, counted by the part of the model they belong to."""
    return [f"{part}.* ({count} tensors)" for part, count in Counter(name.partition(".")[0] for name in tensors).items()]


# In the order of --help, after run and demo
app.command("segment")(segment_command)
app.add_typer(eval_app, name="eval", help="Run a benchmark, or compare two of its results.")
mount_image_scores(score_app)
app.add_typer(score_app, name="score", help="Score masks that are there already, made by any method.")
app.add_typer(weights_app, name="weights", help="Look at checkpoints.")
mount_ingest(app)
app.command("segment-worker")(segment_worker_command)
app.command("masks")(masks_command)
app.add_typer(topics_app, name="topics", help="The Kafka topics of the service.")
app.add_typer(dev_app, name="dev", help="A Kafka broker and a Redis to develop against.")

"""`psalm-stream run`: flags in, a progress bar and a few lines out. What it does is in run.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..settings import read_settings
from .console import INTERRUPTED, clean_errors, knob

if TYPE_CHECKING:
    from ...stream.sources import Source
    from ...stream.views import Views
    from ..run import Job
    from ..tally import Tally

STAGES = ("read", "decode", "plan", "model", "settle", "write")


def run_command(
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; must be empty or new.")],
    url: Annotated[str | None, typer.Argument(metavar="INPUT", help="A video, a folder of pictures, a URL, or camera:0.")] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME=INPUT", help="In place of INPUT: one view of a scene; repeat it for the others.")
    ] = None,
    offset: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SECONDS", help="Added to the clock of a view, to bring it in step with the others.")
    ] = None,
    max_skew_s: Annotated[float | None, knob("max_skew_s", "SECONDS")] = None,
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
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N frames, of each view.")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write no overlay.mp4.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results that are in DIR.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Segment a video end to end on this machine.

    Prompts name objects by ids from 1 to 255 and repeat; @FRAME is the frame they are drawn on, counted from 0 (0 when left out).
    Coordinates are pixels of the displayed frame, origin top left.

    [bold]psalm-stream run cups.mp4 --out results --box 1:560,200,780,520 --point 2@30:410,330[/]

    [bold]psalm-stream run frames/ --out results --mask 00000.png --mask 00040.png@40[/]

    Several views of one scene share their objects: one named in a view is looked for in the others, and has the same id there. Each prompt
    starts with the view it is drawn on and a slash; frames of two views belong together by capture time.

    [bold]psalm-stream run --view ego=a.mp4 --view exo=b.mp4 --point ego/1:320,180 --out results[/]

    DIR gets masks/00000.png ... (indexed PNGs, value = object id), masks.jsonl, overlay.mp4 and run.json; of several views the first two
    lie in a folder a view.
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
            max_skew_s=max_skew_s,
        )
        from ..prompt_flags import PromptFlags
        from ..run import Job
        from ..view_flags import read_inputs

        views = read_inputs(url, view or (), offset or ())
        flags = PromptFlags(mask or (), point or (), box or (), scribble or ()).parse([v.name for v in views])
        _run(Job(url or "", out_dir, flags, knobs, oracle, limit, not no_overlay, views), overwrite, quiet)


def _run(job: Job, overwrite: bool, quiet: bool) -> None:
    from ..run import load_model, refuse_results, rules_of, run
    from ..tally import Tally

    say = Console(quiet=quiet, highlight=False, emoji=False)
    tally = Tally()
    rules = rules_of(job)
    with job.open() as source:
        job.refuse_misfits(source)
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
def _progress(console: Console, source: Source | Views) -> Iterator:
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
    from ..run_files import folder_of

    ids = ", ".join(map(str, sorted(tally.objects))) or "none"
    counts = ", ".join(f"{tally.masks[status]} {status}" for status in ("seen", "carried", "absent"))
    unusual = {status: n for status, n in tally.statuses.items() if status in ("distrusted", "undecodable", "no_prompt") and n}
    say = partial(console.print, soft_wrap=True)
    say(f"[bold]{tally.frames}[/] frames in {seconds:.1f} s; objects {ids}: {counts}")
    for view, own in tally.views.items():
        counts = ", ".join(f"{own.masks[status]} {status}" for status in ("seen", "carried", "absent"))
        say(f"  {escape(view)}: {own.frames} frames; objects {', '.join(map(str, sorted(own.objects))) or 'none'}: {counts}")
    if unusual:
        say("frames " + ", ".join(f"{status}: {n}" for status, n in unusual.items()))
    times = (f"{stage} {tally.times[stage].quantile(0.5):.1f}" for stage in STAGES if stage in tally.times)
    say("ms per frame (median): " + ", ".join(times))
    masks = ", ".join(escape(f"{folder_of(view)}/") for view in tally.views) or "masks/, masks.jsonl"
    say(f"results in [bold]{escape(str(job.out))}[/]: {masks}, {'overlay.mp4, ' if job.overlay else ''}run.json")

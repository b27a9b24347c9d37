"""`psalm-stream masks`: flags in, the answers of a session out, as lines or files. What it does is in masks.py."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from ..settings import read_settings
from .console import INTERRUPTED, asked_to_stop, clean_errors, err, knob, out

if TYPE_CHECKING:
    from ...stream.reader import Answer
    from ..masks import Counts, Subscription

STYLES = {"ok": "green", "distrusted": "yellow", "refused": "red", "source_gone": "red", "lost_state": "red", "undecodable": "red"}


def masks_command(
    session: Annotated[str, typer.Option("--session", metavar="NAME", help="Whose answers; psalm-stream streams lists sessions.")],
    view: Annotated[str | None, typer.Option("--view", metavar="NAME", help="Of one view alone. [dim]\\[default: all][/]")] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="earliest|latest|OFFSET", help="Where to begin; an earlier call says where it ended.")
    ] = "earliest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what will be answered, until the session has ended.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write masks/*.png and masks.jsonl, as run does.")] = None,
    overlay: Annotated[Path | None, typer.Option(metavar="FILE.mp4", help="Write the video under its masks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an answer.")] = False,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="With --follow: how long the first answer may take.")] = 30.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results that are there.")] = False,
    kafka: Annotated[str | None, knob("kafka", "HOST:PORT,...")] = None,
    kafka_properties: Annotated[str | None, knob("kafka_properties", "FILE")] = None,
    topic_prefix: Annotated[str | None, knob("topic_prefix", "TEXT")] = None,
) -> None:
    """Read the answers of a session, as lines for people, as JSON, or into files.

    Reads without a group: any number of subscribers, each from wherever it likes. DIR gets masks/00000.png ... with --view, else
    masks/VIEW/00000.png ... of every view. Ctrl-C leaves readable files.

    [bold]psalm-stream masks --session kitchen --follow[/]

    [bold]psalm-stream masks --session kitchen --view main --out results --overlay results.mp4[/]

    [bold]psalm-stream masks --session kitchen --json | jq .status[/]
    """
    with clean_errors():
        settings = read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix)
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # an outage is said by the reader, once
        from ...stream.kafka_client import open_cluster
        from ..masks import Counts, Subscription, start_of, subscribe

        wanted = Subscription(session, view, start_of(start), follow, out_dir, overlay, wait)
        cluster = open_cluster(settings.kafka, settings.kafka_properties or None, settings.topic_prefix)
        wanted.refuse_misfits(overwrite)
        counts = Counts()
        with asked_to_stop() as stopped:
            try:
                with _screen(counts, wanted, as_json) as tell:
                    subscribe(cluster, wanted, counts, tell, _note, stopped)
            finally:
                if counts.seconds:
                    _summary(counts, wanted, stopped())
        if stopped() and not follow:
            raise typer.Exit(INTERRUPTED)


@contextmanager
def _screen(counts: Counts, wanted: Subscription, as_json: bool) -> Iterator[Callable[[Answer], None]]:
    """What is done with an answer: printed unless it is written, then counted; what is no mask is said in any case."""
    from ...stream.types import Notice

    if as_json:
        yield _print_json
    elif wanted.out is None and wanted.overlay is None:
        yield partial(_print_line, out)
    else:
        columns = (SpinnerColumn(), TextColumn("{task.fields[frames]} frames, {task.fields[speed]:.1f} frames/s"))
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task("", total=None, frames=0, speed=0.0)

            def tell(answer: Answer) -> None:
                if isinstance(answer, Notice):
                    _print_line(err, answer)
                progress.update(task, frames=counts.frames, speed=counts.frames / counts.seconds)

            yield tell


def _print_json(answer: Answer) -> None:
    from ...stream.codec import mask_frame_json, notice_json
    from ...stream.types import Notice

    body = notice_json(answer) if isinstance(answer, Notice) else mask_frame_json(answer)
    typer.echo(json.dumps(body, ensure_ascii=False, separators=(",", ":")))


def _print_line(console: Console, answer: Answer) -> None:
    from ..masks import line_of

    place, status, rest = line_of(answer)
    console.print(f"{escape(place)}  [{STYLES.get(status, 'cyan')}]{status:<11}[/]  {escape(rest)}".rstrip(), soft_wrap=True)


def _note(text: str) -> None:
    from ..masks import printable

    err.print(f"[yellow]note[/] {escape(printable(text))}", soft_wrap=True)


def _summary(counts: Counts, wanted: Subscription, stopped: bool) -> None:
    """The closing line, on stderr: how much, how fast, and how to go on."""
    said = f"[bold]{counts.frames}[/] frames and {counts.notices} notices in {counts.seconds:.1f} s"
    said += f", {counts.frames / counts.seconds:.1f} frames/s"
    for count, what in ((counts.bad, "passed over"), (counts.gone, "drawn on black")):
        said += f", {count} {what}" if count else ""
    err.print(f"{'[yellow]stopped[/]; ' if stopped else ''}{said}; go on with --from {counts.offset}", soft_wrap=True)
    for path in (wanted.out, wanted.overlay):
        if path is not None and path.exists():
            err.print(f"results in [bold]{escape(str(path))}[/]", soft_wrap=True)

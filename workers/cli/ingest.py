"""`psalm-stream ingest`, `ingest-worker`, `stop`, `prompt` and `streams`: flags in, lines and a table out.

What they do is in workers/ingest.py and streams.py.
"""

from __future__ import annotations

import logging
import signal
import uuid
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..settings import Settings, read_settings
from .console import clean_errors, err, knob, out

if TYPE_CHECKING:
    from ...stream.kafka_client import Cluster
    from ...stream.types import MaskFrame, Notice, ObjectPrompt
    from ..streams import Stream

LOG_LINE = "%(asctime)s %(levelname)s %(message)s"
UNANSWERED = 3  # exit code

Kafka = Annotated[str | None, knob("kafka", "HOST:PORT,...")]
KafkaProperties = Annotated[str | None, knob("kafka_properties", "FILE")]
TopicPrefix = Annotated[str | None, knob("topic_prefix", "TEXT")]
Masks = Annotated[list[str] | None, typer.Option("--mask", metavar="FILE", help="Indexed PNG; its values are object ids.")]
Clicks = Annotated[list[str] | None, typer.Option("--point", metavar="ID:x,y", help="A click on an object; repeat it for more.")]
Boxes = Annotated[list[str] | None, typer.Option("--box", metavar="ID:x0,y0,x1,y1", help="A box around an object.")]
Scribbles = Annotated[list[str] | None, typer.Option("--scribble", metavar="ID:x,y;x,y;...", help="A stroke over an object.")]
Wait = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long an answer may take.")]


def mount(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    app.command("ingest")(ingest_command)
    app.command("ingest-worker")(ingest_worker_command)
    app.command("stop")(stop_command)
    app.command("prompt")(prompt_command)
    app.command("streams")(streams_command)


def ingest_command(
    url: Annotated[str, typer.Argument(metavar="INPUT", help="A video, a folder of pictures, a URL, or camera:0, as the workers see it.")],
    session: Annotated[str, typer.Option("--session", metavar="NAME", help="The session it belongs to.")],
    view: Annotated[str, typer.Option("--view", metavar="NAME", help="Which view of the session it is.")] = "main",
    mask: Masks = None,
    point: Clicks = None,
    box: Boxes = None,
    scribble: Scribbles = None,
    every: Annotated[int, typer.Option(metavar="N", min=1, help="Take each N-th picture.")] = 1,
    max_fps: Annotated[float | None, typer.Option(metavar="FPS", help="Take at most so many pictures a second.")] = None,
    transport: Annotated[str, typer.Option(metavar="tcp|udp", help="Of RTSP. [dim]\\[default: tcp if it can][/]", show_default=False)] = "",
    offset: Annotated[float, typer.Option(metavar="SECONDS", help="Added to the clock of this view.")] = 0.0,
    give_up: Annotated[float, typer.Option(metavar="SECONDS", help="How long a URL or camera may give no picture.")] = 600.0,
    kafka: Kafka = None,
    kafka_properties: KafkaProperties = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Have an input run as a view of a session, by whichever ingest worker; prompts are drawn on its first frame.

    Asked for again, a file starts over, and a live input is connected anew with its objects kept.

    [bold]psalm-stream ingest rtsp://camera/1 --session kitchen --view left --box 1:560,200,780,520[/]
    """
    with clean_errors():
        cluster = _cluster(read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix))
        from ...stream.url import absolute
        from ...stream.wanted import Wanted
        from ..streams import want

        flags = (mask, point, box, scribble)
        objects = _objects(*flags) if any(flags) else ()
        wanted = Wanted(
            session, view, absolute(url), uuid.uuid4().hex[:12], every, max_fps, round(offset * 1e9), transport, give_up, objects
        )
        want(cluster, wanted)
    out.print(f"[green]wanted[/] {escape(wanted.name)}: {escape(wanted.shown)}", soft_wrap=True)


def ingest_worker_command(
    kafka: Kafka = None,
    kafka_properties: KafkaProperties = None,
    topic_prefix: TopicPrefix = None,
    health_port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port of /healthz, /readyz and /metrics; 0: a free one, logged.")
    ] = 0,
) -> None:
    """Run sources: read cameras, URLs and files, and publish their frames; start as many as there is work for.

    Workers share the sources. Any of them may die at any moment: its sources move to the others, files go on where they were.

    [bold]PSALM_KAFKA=127.0.0.1:9092 psalm-stream ingest-worker[/]
    """
    with clean_errors():
        settings = read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix)
        logging.basicConfig(level=logging.INFO, format=LOG_LINE)
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        logging.getLogger("libav").setLevel(logging.CRITICAL)  # FFmpeg's own lines repeat URLs
        from ..ingest import serve
        from ..service import Stop

        stop = Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.ask)
        serve(settings, stop, health_port)


def stop_command(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session to stop.")],
    view: Annotated[str | None, typer.Option("--view", metavar="NAME", help="One view of it. [dim]\\[default: all][/]")] = None,
    wait: Wait = 15.0,
    kafka: Kafka = None,
    kafka_properties: KafkaProperties = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Stop the sources of a session, and forget what was tracked in it.

    [bold]psalm-stream stop kitchen --view left[/]
    """
    with clean_errors():
        cluster = _cluster(read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix))
        from ..streams import stop

        views, waiting = stop(cluster, session, view, wait)
    out.print(f"[green]stopped[/] {escape(session)}: {escape(', '.join(views)) or 'no source ran'}", soft_wrap=True)
    if waiting:
        said = f"no ingest worker has ended {', '.join(waiting)} within {wait:g} s; the next one to run does"
        err.print(f"[yellow]note[/] {escape(said)}", soft_wrap=True)


def prompt_command(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="A running session.")],
    view: Annotated[str, typer.Option("--view", metavar="NAME", help="The view the prompt is drawn on.")] = "main",
    mask: Masks = None,
    point: Clicks = None,
    box: Boxes = None,
    scribble: Scribbles = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="FILE[@FRAME]", help="The picture of this view they are drawn on. [dim]\\[default: the next frame][/]"),
    ] = None,
    correct: Annotated[bool, typer.Option("--correct", help="The objects must be tracked already, in any view.")] = False,
    remove: Annotated[
        list[int] | None, typer.Option(metavar="ID", min=1, max=255, help="Forget an object, in every view; may be repeated.")
    ] = None,
    prompt_id: Annotated[
        str | None, typer.Option("--id", metavar="TEXT", help="The same twice is applied once. [dim]\\[default: a random one][/]")
    ] = None,
    wait: Wait = 30.0,
    kafka: Kafka = None,
    kafka_properties: KafkaProperties = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Add, correct or remove objects of a running stream; applies to the view's next frame. Exit code 2: refused, 3: no answer yet.

    [bold]psalm-stream prompt kitchen --view left --correct --point 1:640,360[/]

    [bold]psalm-stream prompt kitchen --view left --on shown.jpg@1200 --box 2:10,20,200,240[/]

    [bold]psalm-stream prompt kitchen --view left --remove 2[/]
    """
    with clean_errors():
        cluster = _cluster(read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix))
        from ...stream.errors import BadPrompt
        from ...stream.types import FrameKey, Prompt
        from ..prompt_flags import read_picture
        from ..streams import positions_now, prompt

        flags = (mask, point, box, scribble)
        if not any(flags) and not remove:
            raise BadPrompt("no object was named, expected --mask, --point, --box, --scribble or --remove")
        objects = _objects(*flags) if any(flags) else ()
        position = positions_now(cluster).get(f"{session}/{view}")
        drawn_on = read_picture(on, session, view) if on else None
        key = drawn_on.key if drawn_on else FrameKey(session, view, max(0, position.index) if position else 0)
        said = Prompt(key, prompt_id or uuid.uuid4().hex[:12], objects, correct, tuple(remove or ()), drawn_on)
        last = None
        for last in prompt(cluster, said, wait):
            _say_answer(last)
        if last is None:
            err.print(f"[yellow]note[/] prompt {escape(said.prompt_id)} was sent, and not answered within {wait:g} s", soft_wrap=True)
            raise typer.Exit(UNANSWERED)
        if getattr(last, "kind", None) == "refused":
            raise typer.Exit(2)


def streams_command(
    kafka: Kafka = None,
    kafka_properties: KafkaProperties = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """List what is to run, where it runs, how fast, how far its answers are, and the objects of its latest masks."""
    with clean_errors():
        cluster = _cluster(read_settings(kafka=kafka, kafka_properties=kafka_properties, topic_prefix=topic_prefix))
        from ..service import GROUP
        from ..streams import streams

        found = streams(cluster, cluster.topic(GROUP))
    table = Table(box=None, pad_edge=False)
    for name in ("session", "view", "input", "worker", "partition", "frame", "frames/s", "lag", "objects"):
        table.add_column(name, overflow="fold", justify="right" if name in ("partition", "frame", "frames/s", "lag") else "left")
    for stream in found:
        table.add_row(*map(escape, _cells(stream)))
    out.print(table if found else "nothing is to run; psalm-stream ingest URL --session NAME")


def _cells(stream: Stream) -> tuple[str, ...]:
    wanted, at = stream.wanted, stream.position
    over = at is not None and at.done and at.run == wanted.run
    objects = ", ".join(f"{o.object_id}{f' {o.label}' if o.label else ''} {o.status.value}" for o in stream.objects)
    worker = "over" if over else stream.worker or "nobody"
    frame = str(at.index) if at is not None and at.index >= 0 else "-"
    return wanted.session, wanted.view, wanted.shown, worker, str(stream.partition), frame, f"{stream.fps:.1f}", str(stream.lag), objects


def _say_answer(answer: Notice | MaskFrame) -> None:
    from ...stream.types import Notice

    if isinstance(answer, Notice):
        style = "red" if answer.kind == "refused" else "green"
        out.print(f"[{style}]{answer.kind.value}[/] {escape(answer.message)}", soft_wrap=True)
    else:
        objects = ", ".join(f"{o.object_id} {o.status.value}" for o in answer.objects) or "no objects"
        said = f"; {answer.message}" if answer.message else ""
        out.print(f"[green]{answer.status.value}[/] frame {escape(str(answer.key))}: {escape(objects + said)}", soft_wrap=True)


def _cluster(settings: Settings) -> Cluster:
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    from ..ingest import cluster_of

    return cluster_of(settings)


def _objects(*flags: list[str] | None) -> tuple[ObjectPrompt, ...]:
    """The objects that prompt flags name; all of them on the frame the prompt applies to. Raises BadPrompt."""
    from ...stream.errors import BadPrompt
    from ...stream.types import ObjectPrompt
    from ..prompt_flags import PromptFlags

    named = PromptFlags(*(texts or () for texts in flags)).parse()
    for flag in named:
        if flag.frame:
            raise BadPrompt(
                f"{flag.said} is on frame {flag.frame}; a stream is prompted on its first or next frame, leave @{flag.frame} out"
            )
    return tuple(ObjectPrompt(flag.object_id, flag.shape) for flag in named)

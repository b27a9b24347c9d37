"""`psalm-stream topics`: make the topics, and look whether those that exist let the service keep its promise.

Which topics there are, and with which settings, is in kafka_topics.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..settings import read_settings
from .console import clean_errors, knob, out

if TYPE_CHECKING:
    from ...stream.kafka_client import Cluster
    from ...stream.kafka_topics import Problem

UNFIT = 1  # exit code

topics_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)


@topics_app.command("create")
def create_command(
    partitions: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many workers share the sessions; fixed for good.")] = 8,
    replication: Annotated[int, typer.Option(metavar="N", min=1, help="Brokers that hold each record.")] = 1,
    kafka: Annotated[str | None, knob("kafka", "HOST:PORT,...")] = None,
    kafka_properties: Annotated[str | None, knob("kafka_properties", "FILE")] = None,
    topic_prefix: Annotated[str | None, knob("topic_prefix", "TEXT")] = None,
) -> None:
    """Create the topics that are missing; those that exist are left as they are, and checked. Exit code 1 when one does not fit.

    [bold]psalm-stream topics create --kafka 127.0.0.1:9092[/]

    [bold]psalm-stream topics create --partitions 32 --replication 3 --kafka-properties client.properties[/]
    """
    with clean_errors():
        from ...stream.kafka_topics import check_topics, create_topics

        cluster = _cluster(kafka, kafka_properties, topic_prefix)
        created = create_topics(cluster, partitions, replication)
        problems = check_topics(cluster)
    out.print(escape(f"created: {', '.join(created) or 'none, all exist'}"), soft_wrap=True)
    _tell(problems)


@topics_app.command("check")
def check_command(
    kafka: Annotated[str | None, knob("kafka", "HOST:PORT,...")] = None,
    kafka_properties: Annotated[str | None, knob("kafka_properties", "FILE")] = None,
    topic_prefix: Annotated[str | None, knob("topic_prefix", "TEXT")] = None,
) -> None:
    """Say what is wrong with the topics, and how to mend it. Exit code 1 when something is.

    [bold]psalm-stream topics check --kafka 127.0.0.1:9092[/]
    """
    with clean_errors():
        from ...stream.kafka_topics import check_topics

        problems = check_topics(_cluster(kafka, kafka_properties, topic_prefix))
    if not problems:
        out.print("all topics fit")
    _tell(problems)


def _cluster(kafka: str | None, properties: str | None, prefix: str | None) -> Cluster:
    from ...stream.kafka_client import open_cluster

    settings = read_settings(kafka=kafka, kafka_properties=properties, topic_prefix=prefix)
    return open_cluster(settings.kafka, settings.kafka_properties or None, settings.topic_prefix)


def _tell(problems: list[Problem]) -> None:
    for problem in problems:
        out.print(f"[red]problem[/] {escape(str(problem))}", soft_wrap=True)
    if problems:
        raise typer.Exit(UNFIT)

"""`psalm-stream dev`: a Kafka broker and a Redis on this machine to develop against. What is started, and how, is in dev.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import clean_errors

if TYPE_CHECKING:
    from ..dev import DevServers

dev_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)


@dev_app.command("up")
def up_command(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that keeps the topics and states. [dim]\\[default: a temporary one][/]")
    ] = None,
    kafka_port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="[dim]\\[default: a free one][/]")] = None,
    redis_port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="[dim]\\[default: a free one][/]")] = None,
) -> None:
    """Start Apache Kafka and Redis on loopback ports, say how to use them, and run until Ctrl-C.

    What they need comes from [bold]deploy/servers[/], once. One node, no replicas, no passwords: not for production.

    [bold]psalm-stream dev up --data ~/psalm-data --kafka-port 9092 --redis-port 6379[/]
    """
    from ..dev import DevServers

    with clean_errors():
        try:
            typer.echo("Starting Apache Kafka and Redis ...", err=True)
            with DevServers(data, kafka_port, redis_port) as servers:
                _say_how_to_use(servers)
                while all(server.running for server in servers.both):
                    time.sleep(0.2)
                raise next(server for server in servers.both if not server.running).failed("ended by itself")
        except KeyboardInterrupt:
            typer.echo("stopped both", err=True)


def _say_how_to_use(servers: DevServers) -> None:
    kept = "removed at the end" if servers.data is None else "kept"
    typer.echo(f"Both answer; logs and data are in {servers.kafka.folder.parent}, {kept}. Ctrl-C stops both.\n", err=True)
    typer.echo(f"export PSALM_KAFKA={servers.kafka.address}\nexport PSALM_REDIS={servers.redis_url}")
    typer.echo("\nIn another terminal: paste these two lines, then try: psalm-stream topics create", err=True)

"""`psalm-stream segment-worker`: flags in, log lines out. What the process does is in service.py."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from ..settings import read_settings
from .console import clean_errors, knob

LOG_LINE = "%(asctime)s %(levelname)s %(message)s"


def segment_worker_command(
    kafka: Annotated[str | None, knob("kafka", "HOST:PORT,...")] = None,
    kafka_properties: Annotated[str | None, knob("kafka_properties", "FILE")] = None,
    redis: Annotated[str | None, knob("redis", "URL")] = None,
    topic_prefix: Annotated[str | None, knob("topic_prefix", "TEXT")] = None,
    slot: Annotated[str | None, knob("slot", "NAME")] = None,
    weights: Annotated[str | None, knob("weights", "FOLDER|HUB_ID")] = None,
    policy: Annotated[str | None, knob("policy", "honest|official")] = None,
    motion: Annotated[str | None, knob("motion", "on|off|only")] = None,
    max_skew_s: Annotated[float | None, knob("max_skew_s", "SECONDS")] = None,
    device: Annotated[str | None, knob("device", "DEVICE")] = None,
    dtype: Annotated[str | None, knob("dtype", "float32|float16|bfloat16")] = None,
    threads: Annotated[int | None, knob("threads", "N")] = None,
    official_rounding: Annotated[bool | None, knob("official_rounding")] = None,
    sampled_regions: Annotated[bool | None, knob("sampled_regions")] = None,
    batch_size: Annotated[int | None, knob("batch_size", "N")] = None,
    max_lag_s: Annotated[float | None, knob("max_lag_s", "SECONDS")] = None,
    turn_budget_s: Annotated[float | None, knob("turn_budget_s", "SECONDS")] = None,
    turn_records: Annotated[int | None, knob("turn_records", "N")] = None,
    cached_sessions: Annotated[int | None, knob("cached_sessions", "N")] = None,
    snapshot_every: Annotated[int | None, knob("snapshot_every", "FRAMES")] = None,
    health_port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port of /healthz, /readyz and /metrics; 0: a free one, logged.")
    ] = 0,
) -> None:
    """Answer the frames of every stream with masks; start as many as there is work for.

    Workers share the partitions of topic [bold]frames[/]. Any of them may die at any moment: its partitions move to the others, and every
    frame still gets exactly one answer. SIGTERM ends one after its turn.

    [bold]PSALM_KAFKA=127.0.0.1:9092 PSALM_REDIS=redis://127.0.0.1:6379/0 psalm-stream segment-worker[/]
    """
    given = {name: value for name, value in locals().items() if name != "health_port"}
    with clean_errors():
        settings = read_settings(**given)
        logging.basicConfig(level=logging.INFO, format=LOG_LINE)
        logging.getLogger("kafka").setLevel(logging.WARNING)
        logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # it warns of every 0.1 s the model keeps the process busy
        from ..run import load_model
        from ..service import Connection, Stop, serve

        Connection.of(settings)  # what is missing shows before a model is loaded
        stop = Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.ask)
        serve(settings, load_model(settings), stop, health_port)

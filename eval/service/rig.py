"""What the measurements on a real Kafka and a real Redis share: topics of their own, the way into them, CPU by process, bytes written, the
machine.

The measurements are cost.py, throughput.py and soak.py; the servers are workers/dev.py's.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import psutil
from rich.table import Table

from ...stream.bus import MASKS
from ...stream.errors import BadConfig
from ...stream.kafka_client import Cluster, open_cluster
from ...stream.kafka_sources import SourceLog
from ...stream.kafka_tail import Tail
from ...stream.kafka_topics import create_topics
from ...stream.types import Frame, Prompt
from ...stream.wanted import Position
from ...workers.dev import DevServers
from ...workers.dev_server import ask, guard
from ...workers.publishing import BATCH_ITEMS

VIEW = "main"
INFO_BYTES = 512  # of the answer, of which the figure is at the beginning
END_S = 30.0  # for a process that was told to end; a worker has 25 s for its turn


@dataclass(frozen=True, slots=True)
class Rig:
    """Topics of their own on running servers, and how a process finds them."""

    servers: DevServers
    cluster: Cluster
    knobs: Mapping[str, object]

    @classmethod
    def on(cls, servers: DevServers, partitions: int, **knobs: object) -> Rig:
        """Create the topics. knobs: more settings of the workers, which have one thread."""
        prefix = f"m{uuid.uuid4().hex[:8]}."
        cluster = open_cluster(servers.kafka.address, prefix=prefix)
        create_topics(cluster, partitions)
        connection = {"kafka": servers.kafka.address, "redis": servers.redis_url, "topic_prefix": prefix}
        return cls(servers, cluster, {**connection, "threads": 1, **knobs})

    @property
    def environment(self) -> dict[str, str]:
        """What a worker process is to be started with."""
        return os.environ | {"OMP_NUM_THREADS": "1"} | {f"PSALM_{name.upper()}": str(value) for name, value in self.knobs.items()}

    @property
    def pids(self) -> dict[str, int]:
        """The servers' processes."""
        return {"broker": self.servers.kafka.pid, "redis": self.servers.redis.pid}

    @property
    def written(self) -> dict[str, int]:
        """Bytes so far: sent to Redis by all its clients, and in the broker's logs, those of its own topics too."""
        logs = self.servers.kafka.folder.glob("data/*/*.log")
        return {"redis": redis_input_bytes(self.servers.redis.port), "broker": sum(log.stat().st_size for log in logs)}

    def answers(self) -> Tail:
        """All committed answers, from the first on."""
        return Tail(self.cluster, MASKS)


def publish(source: SourceLog, messages: Sequence[Prompt | Frame], position: Position) -> Position:
    """Send messages of one session as an ingest worker does: in transactions of at most BATCH_ITEMS, with the position of the source."""
    waiting = iter(messages)
    while batch := list(islice(waiting, BATCH_ITEMS)):
        position = source.publish(batch, replace(position, index=batch[-1].key.index))
    return position


@contextmanager
def fed(cluster: Cluster, session: str) -> Iterator[Callable[[Sequence[Prompt | Frame]], None]]:
    """A function that publishes messages of one session."""
    with closing(SourceLog(cluster, session, VIEW)) as source:
        position = Position(session, VIEW)

        def feed(messages: Sequence[Prompt | Frame]) -> None:
            nonlocal position
            position = publish(source, messages, position)

        yield feed


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, user and system, all its threads. Linux: by the process's own clock; /proc counts in 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


def redis_input_bytes(port: int) -> int:
    """What clients have sent to the Redis on a local port since it started. Raises BadConfig."""
    said = ask(port, b"INFO stats\r\n", size=INFO_BYTES)
    if not (found := re.search(rb"total_net_input_bytes:(\d+)\r", said)):
        raise BadConfig(f"the Redis on port {port} said {said[:60]!r}, expected its total_net_input_bytes; start it without a password")
    return int(found[1])


class WorkerProcess:
    """A `psalm-stream segment-worker`. It dies with whoever started it."""

    def __init__(self, rig: Rig, *flags: str) -> None:
        program = str(Path(sys.executable).with_name("psalm-stream"))
        self.process = psutil.Popen([program, "segment-worker", *flags], env=rig.environment)
        self._guard = guard(self.process.pid)

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def end(self) -> None:
        """Ask it to end, make it end when it does not, and wait for that."""
        if not self.ended:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except psutil.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._guard.wait()


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and range, "0.981 (0.975 to 0.990)"."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def plain_table(title: str, first: str, columns: Sequence[str]) -> Table:
    """A table of figures: a name, then numbers."""
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def machine() -> str:
    """The hardware and what runs on it, in a line, with how busy it is."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in ("kafka-python", "redis", "torch"))
    return f"{model}, {os.cpu_count()} cores, load average {load}; Python {platform.python_version()}, {versions}"

"""`psalm-stream ingest-worker` without its screen: runs the sources of the partitions of `ingest` that are its own.

Each source is a thread: decoding and JPEG leave Python's lock, and a camera costs no process of 80 MB; what needs more cores than one
process uses is spread over more workers. A worker that dies is noticed by Kafka, which gives its partitions to the others.
One source is publishing.py, the topics are stream/kafka_sources.py.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection
from contextlib import ExitStack, closing

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..stream.errors import BadConfig, PsalmStreamError
from ..stream.kafka_client import Cluster, open_cluster
from ..stream.kafka_sources import Backlog, Change, WantedSources
from ..stream.kafka_topics import check_topics
from .health import Flow, HealthServer
from .publishing import Batch, SourceRun
from .service import FIRST_PAUSE_S, GROUP, LONGEST_PAUSE_S, STALLED_S, Stop
from .settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.2
LET_GO_S = 5.0  # for all sources to let go at the end


class IngestMetrics:
    """What /metrics of an ingest worker shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.frames = Counter("psalm_source_frames", "Frames published", **given)
        self.dropped = Counter("psalm_source_frames_dropped", "Frames of live sources left out", **given)
        self.sources = Gauge("psalm_sources", "Sources this worker runs", **given)

    def published(self, batch: Batch) -> None:
        """Count what a transaction held."""
        self.frames.inc(batch.frames)
        self.dropped.inc(batch.dropped)


class IngestWorker:
    """A member of the group that shares the sources out, and the sources it runs."""

    def __init__(self, cluster: Cluster, segment_group: str, name: str, metrics: IngestMetrics) -> None:
        self.cluster, self.metrics = cluster, metrics
        self.runs: dict[tuple[str, str], SourceRun] = {}
        self.backlog = Backlog(cluster, segment_group)
        self.wanted = WantedSources(cluster, name, self.lost)

    def turn(self) -> None:
        """Start and stop what has changed. Raises BusFailed; sources run on meanwhile, and the next turn goes on."""
        for change in self.wanted.poll(POLL_S):
            self.change(change)
        self.metrics.sources.set(sum(run.running for run in self.runs.values()))

    def change(self, change: Change) -> None:
        """Make a source what it is to be from now on."""
        source = change.session, change.view
        before = self.runs.get(source)
        if before is not None:
            if before.wanted == change.wanted and before.running:
                return
            before.stop()
        self.runs[source] = SourceRun(self.cluster, self.backlog, change, self.metrics.published)
        self.runs[source].start(before)

    def lost(self, partitions: Collection[int]) -> None:
        """Stop the sources of partitions that are not this worker's any more."""
        for source, run in list(self.runs.items()):
            if run.partition in partitions:
                run.stop()
                del self.runs[source]

    def close(self) -> None:
        """Stop every source, then leave the group: an heir finds nothing undecided."""
        for run in self.runs.values():
            run.stop()
        until = time.monotonic() + LET_GO_S
        for run in self.runs.values():
            run.join(max(0.0, until - time.monotonic()))
        self.wanted.close()
        self.backlog.close()


def cluster_of(settings: Settings) -> Cluster:
    """The Kafka of the settings; connects to nothing. Raises BadConfig when none is named."""
    if not settings.kafka:
        raise BadConfig("kafka is not set; give --kafka or PSALM_KAFKA, such as 127.0.0.1:9092 (psalm-stream dev up starts one)")
    return open_cluster(settings.kafka, settings.kafka_properties or None, settings.topic_prefix)


def serve(settings: Settings, stop: Stop, health_port: int) -> None:
    """Run sources until `stop` is asked. Raises BadConfig for topics that cannot work, BusFailed without a broker at the start."""
    cluster = cluster_of(settings)
    if problems := check_topics(cluster):
        raise BadConfig("; ".join(str(problem) for problem in problems))
    metrics, flow = IngestMetrics(), Flow(stalled_s=STALLED_S)
    name = f"{socket.gethostname()}-{os.getpid()}"
    with ExitStack() as stack:
        port = stack.enter_context(HealthServer(health_port, flow, metrics)).port
        worker = stack.enter_context(closing(IngestWorker(cluster, cluster.topic(GROUP), name, metrics)))
        log.info("ingest worker %s runs sources of topic %s; health on port %d", name, worker.wanted.topic, port)
        turn_until(stop, worker, flow)


def turn_until(stop: Stop, worker: IngestWorker, flow: Flow) -> None:
    """Turn by turn until `stop` is asked; a turn that fails is followed by another, ever more slowly."""
    pause_s = FIRST_PAUSE_S
    while not stop.asked:
        try:
            worker.turn()
        except Exception as error:  # sources run on, or stop by themselves when the log does not take their frames
            flow.bad(error)
            log.warning("a turn failed, next in %.1f s: %s", pause_s, error, exc_info=not isinstance(error, PsalmStreamError))
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            pause_s = FIRST_PAUSE_S
            flow.good(ready=True)

"""`psalm-stream segment-worker` without its screen: a SegmentWorker on Kafka and Redis until it is told to stop.

A turn that fails is forgotten and tried again, ever more slowly; only what a restart cannot mend ends the process. Told to stop, the worker
finishes its turn; past a deadline it dies without a commit, which its heir makes good like any other death.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass

import cv2
import numpy as np

from ..psalm.tracker import Rules
from ..stream.errors import BadConfig, PsalmStreamError
from ..stream.kafka_bus import KafkaBus, Member
from ..stream.kafka_client import Cluster, open_cluster
from ..stream.kafka_topics import check_topics, identity
from ..stream.redis_store import RedisStore
from ..stream.types import Frame, FrameKey, Region, Regions, Request
from .answering import Model
from .health import Flow, HealthServer, Metrics
from .segment import SegmentWorker
from .settings import Settings
from .slot import own_slot

log = logging.getLogger(__name__)

GROUP = "psalm-segment"
DRAIN_S = 25.0  # Kubernetes kills 30 s after it asked
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0  # after failed turns
POLL_INTERVAL_S = 300.0  # Kafka's default; a rebalance waits for the slowest member's turn
TURNS_IN_POLL_INTERVAL = 5  # guarantee.md: as many budgets, or model calls, must fit into it
STALLED_S = 60.0  # without a good turn a worker counts as ill, or TURNS_IN_POLL_INTERVAL turns where those are longer
WARM_UP_HW = (480, 854)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a service is and how it is reached; what of it is secret stays in the settings."""

    cluster: Cluster
    redis: str

    @classmethod
    def of(cls, settings: Settings) -> Connection:
        """From the settings. Raises BadConfig for what is not set."""
        for name, value, example in (("kafka", settings.kafka, "127.0.0.1:9092"), ("redis", settings.redis, "redis://127.0.0.1:6379/0")):
            if not value:
                raise BadConfig(
                    f"{name} is not set; give --{name} or PSALM_{name.upper()}, such as {example} (psalm-stream dev up starts both)"
                )
        return cls(open_cluster(settings.kafka, settings.kafka_properties or None, settings.topic_prefix), settings.redis)


class Stop:
    """Whether the worker is to stop. Once asked, the process has DRAIN_S to finish its turn."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self, *_: object) -> None:
        """To be called by a signal handler, any number of times."""
        if not self._asked.is_set():
            self._asked.set()
            deadline = threading.Timer(DRAIN_S, os._exit, (1,))
            deadline.daemon = True
            deadline.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the ask; whether it came."""
        return self._asked.wait(timeout_s)

    @property
    def asked(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._asked.is_set()


def serve(settings: Settings, model: Model, stop: Stop, health_port: int) -> None:
    """Answer `frames` until `stop` is asked.

    Raises BadConfig for settings or topics that cannot work, at any time, and what the clients raise when Kafka or Redis is not to be
    reached at start.
    """
    at = Connection.of(settings)
    if problems := check_topics(at.cluster):
        raise BadConfig("; ".join(map(str, problems)))
    call_s = warm_up(model)
    turns_s = TURNS_IN_POLL_INTERVAL * max(settings.turn_budget_s, call_s)
    group, poll_interval_s = settings.topic_prefix + GROUP, max(POLL_INTERVAL_S, turns_s)
    metrics, flow = Metrics(), Flow(stalled_s=max(STALLED_S, turns_s))
    with ExitStack() as stack:
        port = stack.enter_context(HealthServer(health_port, flow, metrics)).port
        slot = settings.slot or stack.enter_context(own_slot(group))
        store = stack.enter_context(closing(RedisStore(at.redis, f"{identity(at.cluster)}/{group}")))
        bus = stack.enter_context(closing(KafkaBus(at.cluster, Member(group, slot, poll_interval_s))))
        worker = SegmentWorker(bus, store, model, Rules(settings.policy, settings.motion, max_skew_s=settings.max_skew_s), settings)
        worker.record_s, worker.on_commit = call_s, metrics.answered
        log.info("worker %s answers %sframes; one model call took %.2f s; health on port %d", slot, settings.topic_prefix, call_s, port)
        _turn_until(stop, worker, flow, metrics)


def _turn_until(stop: Stop, worker: SegmentWorker, flow: Flow, metrics: Metrics) -> None:
    pause_s = FIRST_PAUSE_S
    while not stop.asked:
        try:
            worker.turn()
        except BadConfig:  # trying again mends nothing
            raise
        except Exception as error:  # a turn has no side effects: whatever broke it, the next one starts from what is committed
            flow.bad(error)
            metrics.failures.labels(type(error).__name__).inc()
            told = isinstance(error, PsalmStreamError)
            log.warning("a turn failed and is tried again in %.1f s: %s", pause_s, error, exc_info=not told)
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            pause_s = FIRST_PAUSE_S
            metrics.partitions.set(len(worker.claims))
            metrics.rebuilding.set(len(worker.rebuilds))
            flow.good(ready=not worker.rebuilds)


def warm_up(model: Model) -> float:
    """Ask the model about a blank picture, twice: loads what it loads lazily. Returns the seconds of the second call."""
    blank = np.zeros((*WARM_UP_HW, 3), np.uint8)
    frame = Frame(FrameKey("warm-up", "main", 0), 0, False, WARM_UP_HW, cv2.imencode(".png", blank)[1].tobytes())
    mask = np.ones(WARM_UP_HW, bool)
    request = Request(frame, Regions((Region(1, frame, mask),)), {1: mask})
    for _ in range(2):
        began = time.perf_counter()
        model.segment([request])
    return time.perf_counter() - began

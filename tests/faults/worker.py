"""A segment worker in a process of its own, on the real bus and the real store, that dies, stops or stumbles at a point it was told.

The points lie in wrappers around what the worker is handed: bus, store, model, and the producer inside the bus. The product has none of
them. What happens is told through a pipe, whose content outlives the process. Which points there are is said in points.py.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from types import MappingProxyType

from kafka.protocol.producer import EndTxnRequest
from mutants import BUSES, STORES
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import Claim
from psalm_stream.stream.errors import BusFailed
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import Cluster
from psalm_stream.stream.redis_store import RedisStore
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter

PAUSE_S = 0.2  # after a failed turn
LEAVE, GO_ON = "leave", "go on"
NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Fault:
    """What is to happen at the `hit`-th time a point is reached, counted from the fault before it.

    action: kill, stop (SIGSTOP), slow (a call of rest_s), ask (wait for a word of the runner), fail (an error of the bus).
    delay_s: from the point to the action; rest_s: of a slow call, or after a stop.
    """

    point: str
    hit: int = 1
    action: str = "kill"
    delay_s: float = 0.0
    rest_s: float = 0.0


@dataclass(frozen=True)
class Life:
    """All a worker process is told. forget: seed of the turns after which it drops its cached states; None: it never does."""

    cluster: Cluster
    member: Member
    redis_url: str
    namespace: str
    log: str
    settings: Mapping[str, object]
    faults: tuple[Fault, ...] = ()
    mutants: tuple[str, ...] = ()
    forget: int | None = None


@dataclass
class Tell:
    """Says what happened, with the time: CLOCK_MONOTONIC, one clock for all processes."""

    runner: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, what: str, said: object = None) -> None:
        with self.lock:
            self.runner.send((time.monotonic(), what, said))


class Trap:
    """Counts how often points are reached, and does what is to happen there, one fault after the other."""

    def __init__(self, faults: tuple[Fault, ...], tell: Tell) -> None:
        self.faults, self.tell = list(faults), tell
        self.count = 0
        self.pending: threading.Timer | None = None

    def set(self, faults: tuple[Fault, ...]) -> None:
        self.faults, self.count = list(faults), 0

    def reach(self, point: str | None) -> None:
        if point is None or not self.faults or self.faults[0].point != point:
            return
        self.count += 1
        if self.count < self.faults[0].hit:
            return
        fault, self.count = self.faults.pop(0), 0
        self.tell("hit", point)
        if fault.delay_s:
            self.pending = threading.Timer(fault.delay_s, self.act, [fault])
            self.pending.start()
        else:
            self.act(fault)

    def act(self, fault: Fault) -> None:
        match fault.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(fault.rest_s)
            case "slow":
                time.sleep(fault.rest_s)
            case "ask":
                self.tell.runner.recv()
            case "fail":
                raise BusFailed("an error at a point of the fault tests")

    def wait(self) -> None:
        """Go no further while a fault is on its way."""
        if self.pending is not None:
            self.pending.join()


class Watched:
    """What it wraps, with points before or after some of its methods, by their names."""

    def __init__(self, inner: object, trap: Trap, before: Mapping[str, str] = NOWHERE, after: Mapping[str, str] = NOWHERE) -> None:
        self.inner, self.trap, self.before, self.after = inner, trap, before, after

    def __getattr__(self, name: str) -> object:
        found = getattr(self.inner, name)
        return partial(self._call, name, found) if name in self.before or name in self.after else found

    def _call(self, name: str, method: object, *arguments: object) -> object:
        self.trap.reach(self.before.get(name))
        result = method(*arguments)
        self.trap.wait()
        self.trap.reach(self.after.get(name))
        return result


class WatchedCluster(Cluster):
    """A cluster whose producers have the points of a transaction, also the one at which its end has been handed to the network."""

    __setattr__ = object.__setattr__  # not frozen: a mutant changes how consumers are made

    def watch(self, trap: Trap) -> WatchedCluster:
        self.trap = trap
        return self

    def producer(self, **knobs: object) -> Watched:
        producer = super().producer(**knobs)
        client = producer._sender._client
        send = client.send

        def sending(node: int, request: object, **more: object) -> object:
            answer = send(node, request, **more)
            if isinstance(request, EndTxnRequest):
                self.trap.reach("committing")
            return answer

        client.send = sending
        after = {"begin_transaction": "begun", "send_offsets_to_transaction": "offsets", "send": "sent", "flush": "flushed"}
        return Watched(producer, self.trap, after=after | {"commit_transaction": "committed"})


class ToldBus(Watched):
    """A bus that tells what it holds, and what it is about to commit."""

    def poll(self, limit: int, timeout_s: float) -> object:
        polled = self.inner.poll(limit, timeout_s)
        if polled.changed:
            self.trap.tell("held", ([(c.partition, c.offset, c.checkpoint) for c in polled.gained], list(polled.lost)))
        if polled.records:
            self.trap.reach("polled")
        return polled

    def commit(self, claims: list[Claim]) -> None:
        self.trap.tell("committing", [(c.partition, c.offset, c.checkpoint) for c in claims])
        self.trap.reach("ready")
        self.inner.commit(claims)


def live(life: Life, runner: Connection) -> None:
    """Answer records until told to leave, or until the runner is gone. Told faults, it lets them happen from then on."""
    logging.basicConfig(filename=life.log, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    tell = Tell(runner)
    trap = Trap(life.faults, tell)
    cluster = WatchedCluster(life.cluster.servers, life.cluster.prefix).watch(trap)
    bus = _one_of(BUSES, life.mutants, KafkaBus)(cluster, life.member)
    store = _one_of(STORES, life.mutants, RedisStore)(life.redis_url, life.namespace)
    assigned, restore = bus.assigned, store.restore
    store.restore = lambda claim, states: (restore(claim, states), tell("rebuilt", claim.partition))
    bus.assigned = lambda partitions: (tell("assigned", list(partitions)), assigned(partitions))
    worker = SegmentWorker(
        ToldBus(bus, trap),
        Watched(store, trap, before={"restore": "restoring"}, after={"claim": "claimed", "prepare": "prepared", "restore": "restored"}),
        Watched(DriftSegmenter(), trap, before={"segment": "model"}),
        Rules(motion="off"),
        Settings(**life.settings),
    )
    worker.on_commit = lambda steps: tell("committed", (sorted({step.record.partition for step in steps}), len(steps)))
    _turns(worker, life, trap)
    bus.close()
    store.close()


def _turns(worker: SegmentWorker, life: Life, trap: Trap) -> None:
    tell = trap.tell
    chance = None if life.forget is None else random.Random(life.forget)
    busy = False
    while parent_process().is_alive():
        if tell.runner.poll():
            if (word := tell.runner.recv()) == LEAVE:
                return
            trap.set(word)
        try:
            count = worker.turn()
        except Exception as error:
            tell("failed", (type(error).__name__, str(error)))
            logging.exception("turn failed")
            time.sleep(PAUSE_S)
            continue
        if busy and not count:
            tell("idle")
        busy = count > 0
        if chance is not None and chance.random() < 0.5:
            worker.states.clear()


def _one_of(mutants: Mapping[str, type], names: tuple[str, ...], product: type) -> type:
    return next((mutants[name] for name in names if name in mutants), product)

"""One run: topics and a store of its own on real servers, a source, workers that may be at fault, and the verdict over their answers.

Nothing here knows which faults there are (points.py) or how many runs (run.py). Waiting is for a condition, with a deadline; whatever
does not come about is an error that says what.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import psutil
from kafka import TopicPartition, errors
from psalm_stream.stream.bus import FRAMES, MASKS, Record
from psalm_stream.stream.errors import BusFailed
from psalm_stream.stream.kafka_bus import Member
from psalm_stream.stream.kafka_client import headers, open_cluster, record_of
from psalm_stream.stream.kafka_topics import TOPICS, create_topics, identity
from psalm_stream.workers.dev_server import Server
from story import Answers, Entry, Verdict, answers, compare, undisturbed
from worker import GO_ON, LEAVE, Fault, Life, live

PATIENCE_S = 120.0
STEP_S = 0.02  # between two looks at a condition
SPAWN = get_context("forkserver")  # a process is there in 20 ms instead of 1 s, and shares no thread with the runner
SPAWN.set_forkserver_preload(["cv2", "psalm_stream.workers.segment", "psalm_stream.stream.kafka_bus", "psalm_stream.stream.redis_store"])


class Stalled(AssertionError):
    """Something that was waited for did not come about."""


@dataclass(frozen=True)
class Timing:
    """Seconds after which a silent member is expelled, one that does not poll, and an open transaction."""

    session_s: float = 3.0
    poll_interval_s: float = 15.0
    transaction_s: float = 5.0


@dataclass(frozen=True)
class Place:
    """The servers of a run; the Redis is no one else's."""

    kafka: Server
    redis: Server
    folder: Path

    @property
    def redis_url(self) -> str:
        return f"redis://{self.redis.address}/0"


@dataclass(frozen=True)
class Note:
    """What a worker told."""

    t: float
    what: str
    said: object


class Worker:
    """A worker process as the runner sees it."""

    def __init__(self, life: Life) -> None:
        self.life, self.faults = life, life.faults
        self.notes: list[Note] = []
        self.pipe, far = SPAWN.Pipe()
        self.process = SPAWN.Process(target=live, args=(life, far), daemon=True)
        self.process.start()
        far.close()

    @property
    def slot(self) -> str:
        return self.life.member.slot

    def listen(self) -> None:
        """Take in what it has told."""
        with suppress(EOFError, ConnectionResetError):
            while self.pipe.poll():
                self.notes.append(Note(*self.pipe.recv()))

    def told(self, what: str, after: float = 0.0) -> list[Note]:
        self.listen()
        return [note for note in self.notes if note.what == what and note.t > after]

    @property
    def dead(self) -> bool:
        return self.process.exitcode is not None

    @property
    def stopped(self) -> bool:
        return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    @property
    def holds(self) -> set[int]:
        """The partitions it was told of by its bus and has not lost since."""
        held: set[int] = set()
        for note in self.told("held"):
            gained, lost = note.said
            held = held - set(lost) | {partition for partition, _, _ in gained}
        return held

    def set(self, *faults: Fault) -> None:
        """Let faults happen from now on; it must have had none before."""
        self.faults = faults
        self.pipe.send(faults)

    def go_on(self) -> None:
        """To a worker that asked."""
        self.pipe.send(GO_ON)

    def leave(self) -> None:
        """Let it end in good order."""
        self.pipe.send(LEAVE)

    def resume(self) -> float:
        """SIGCONT; returns when."""
        now = time.monotonic()
        os.kill(self.process.pid, signal.SIGCONT)
        return now

    def kill(self) -> None:
        if not self.dead:
            self.process.kill()
            self.process.join()
        self.listen()


class Run:
    """A context manager. All that is drawn by lot comes from `rng`."""

    def __init__(self, place: Place, seed: str, timing: Timing = Timing()) -> None:
        self.place, self.seed, self.timing = place, seed, timing
        self.rng = random.Random(seed)
        self.partitions = self.rng.choice((2, 3))
        self.knobs = {"cached_sessions": self.rng.choice((0, 64, 64)), "snapshot_every": self.rng.choice((3, 50))}
        self.workers: list[Worker] = []
        self.events: list[tuple[float, set[int], Worker | None]] = []  # when who failed, and what they held
        self.found: list[Record] = []
        self.accepted = 0

    def __enter__(self) -> Run:
        self.prefix = f"f{uuid.uuid4().hex[:10]}."
        self.folder = self.place.folder / self.prefix
        self.folder.mkdir()
        self.cluster = open_cluster(self.place.kafka.address, prefix=self.prefix)
        create_topics(self.cluster, self.partitions)
        self.group = self.prefix + "segment"
        self.namespace = f"{identity(self.cluster)}/{self.group}"
        self.source = self.cluster.producer()
        self.subscriber = self.cluster.consumer(group_id=self.group)
        self.masks = [TopicPartition(self.cluster.topic(MASKS), p) for p in range(self.partitions)]
        self.subscriber.assign(self.masks)
        self.subscriber.seek_to_beginning()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.source.abandon()
        with suppress(errors.KafkaError):
            self.subscriber.close(timeout_ms=2000)
        with suppress(errors.KafkaError, BusFailed), closing(self.cluster.admin()) as admin:
            admin.delete_topics([self.cluster.topic(name) for name in TOPICS])

    # -- what happens --------------------------------------------------------------------------------------------------

    def accept(self, entries: Sequence[Entry]) -> None:
        """Let the source publish; all of it is accepted when this returns."""
        for sent in [self.source.send(self.cluster.topic(FRAMES), data, key.encode(), headers(kind)) for key, kind, data in entries]:
            sent.get(timeout=PATIENCE_S)
        self.accepted += len(entries)

    def start(self, *faults: Fault, slot: str | None = None, mutants: tuple[str, ...] = (), **knobs: object) -> Worker:
        """A new worker, in the place of another one or its own, that takes some records a turn."""
        forget = knobs.pop("forget", None)
        timing = replace(self.timing, **{field.name: knobs.pop(field.name) for field in fields(Timing) if field.name in knobs})
        settings = {"turn_records": self.rng.randint(1, 6)} | self.knobs | knobs
        slot = slot or f"slot-{len(self.workers)}"
        member = Member(self.group, slot, timing.poll_interval_s, timing.session_s, timing.transaction_s)
        log = str(self.folder / f"worker-{len(self.workers)}.log")
        life = Life(self.cluster, member, self.place.redis_url, self.namespace, log, settings, faults, mutants, forget)
        self.workers.append(Worker(life))
        return self.workers[-1]

    # -- waiting -------------------------------------------------------------------------------------------------------

    def until(self, true: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> object:
        """Wait for a condition. Raises Stalled."""
        deadline = time.monotonic() + patience_s
        while not (found := true()):
            if time.monotonic() > deadline:
                raise Stalled(f"{what} did not happen within {patience_s:g} s; workers told {self._last_words()}")
            time.sleep(STEP_S)
        return found

    def hit(self, worker: Worker, number: int = 1) -> Note:
        """Wait until a worker has reached the point of its `number`-th fault, and is dead or stopped if that was the fault."""

        def reached() -> Note | None:
            hits = worker.told("hit")
            if len(hits) < number and worker.dead:
                raise Stalled(f"{worker.slot} died before its fault; it told {[note.what for note in worker.notes]}")
            return hits[number - 1] if len(hits) >= number else None

        fault = worker.faults[number - 1]
        note = self.until(reached, f"{worker.slot} reaching {fault.point}")
        if fault.action in ("kill", "stop"):
            self.until(lambda: worker.dead if fault.action == "kill" else worker.stopped, f"{fault.action} of {worker.slot}")
        if fault.action in ("kill", "stop", "slow"):
            self.events.append((note.t + fault.delay_s, worker.holds, worker))
        return note

    def idle(self, worker: Worker) -> Note:
        """Wait until a worker has answered something and found nothing more."""
        return self.until(lambda: worker.told("idle"), f"{worker.slot} being done")[0]

    def word(self, worker: Worker, after: float) -> Note:
        """Wait for how a turn ended that was under way."""
        ends = self.until(lambda: worker.told("failed", after) + worker.told("committed", after), f"{worker.slot} ending its turn")
        return ends[0]

    # -- the verdict ---------------------------------------------------------------------------------------------------

    def finish(self, patience_s: float = PATIENCE_S) -> Verdict:
        """Wait for the answer to every record, as long as some come; then nobody is left to answer, and all that is committed counts."""
        records = self.records()
        if len(records) != self.accepted:
            raise Stalled(f"topic frames holds {len(records)} committed records, {self.accepted} were accepted")
        expected = undisturbed(records, self.partitions)
        if self._complete(expected, patience_s):
            ends = {p: max(r.offset for r in records if r.partition == p) + 1 for p in range(self.partitions)}
            self.until(lambda: self._committed(ends), f"a commit at {ends}")
        for worker in self.workers:
            worker.kill()
        self.until(self._decided, "the end of every transaction")
        self._look()
        return compare(expected, answers(self.found))

    def takeovers(self) -> list[float]:
        """For each fault the seconds until another worker, or this one again, answered in a partition the failing one had held."""
        commits = sorted((n.t, w, n.said[0]) for w in self.workers for n in w.told("committed"))
        found = []
        for number, (t, held, failing) in enumerate(self.events):
            until = self.events[number + 1][0] if number + 1 < len(self.events) else float("inf")
            later = [c for c, worker, partitions in commits if t < c < until and held & set(partitions) and (worker is not failing)]
            found += [later[0] - t] if later else []
        return found

    def took_effect(self, worker: Worker) -> bool | None:
        """Whether the commit that a worker died in was made; None when nobody found out."""
        dying = {partition: checkpoint for partition, _, checkpoint in worker.told("committing")[-1].said}
        later = [claim for w in self.workers for note in w.told("held", worker.notes[-1].t) for claim in note.said[0]]
        found = [checkpoint == dying[partition] for partition, _, checkpoint in later if partition in dying]
        return found[0] if found else None

    def records(self) -> tuple[Record, ...]:
        """The committed records of `frames`."""
        frames = [TopicPartition(self.cluster.topic(FRAMES), p) for p in range(self.partitions)]
        with closing(self.cluster.consumer()) as reader:
            reader.assign(frames)
            reader.seek_to_beginning()
            return tuple(_read_to_the_end(reader, frames, FRAMES))

    def _complete(self, expected: Answers, patience_s: float) -> bool:
        """Whether every record is answered, or nothing has come for so long."""
        seen, deadline = 0, time.monotonic() + patience_s
        while time.monotonic() < deadline:
            self._look()
            if len(self.found) > seen:
                seen, deadline = len(self.found), time.monotonic() + patience_s
                if seen >= self.accepted and not compare(expected, answers(self.found)).lost:
                    return True
            time.sleep(STEP_S)
        return False

    def _look(self) -> None:
        """Take in what is committed on `masks`; a broker that is away is asked again later."""
        with suppress(errors.KafkaError):
            self.found += _read_to_the_end(self.subscriber, self.masks, MASKS)

    def _committed(self, ends: dict[int, int]) -> bool:
        with suppress(errors.KafkaError):
            at = {p: self.subscriber.committed(TopicPartition(self.cluster.topic(FRAMES), p), timeout_ms=2000) for p in ends}
            return all((at[p] or 0) >= end for p, end in ends.items())
        return False

    def _decided(self) -> bool:
        """Whether no transaction is open on `masks`."""
        with suppress(errors.KafkaError, BusFailed), closing(self.cluster.consumer(isolation_level="read_uncommitted")) as reader:
            reader.assign(self.masks)
            return reader.end_offsets(self.masks, timeout_ms=2000) == self.subscriber.end_offsets(self.masks, timeout_ms=2000)
        return False

    def _last_words(self) -> dict[str, list]:
        last = {number: worker.told("failed")[-3:] + worker.notes[-3:] for number, worker in enumerate(self.workers)}
        return {f"{number} in {self.workers[number].slot}": [(n.what, n.said) for n in notes] for number, notes in last.items()}


def _read_to_the_end(consumer: object, at: Sequence[TopicPartition], topic: str) -> list[Record]:
    ends = consumer.end_offsets(list(at), timeout_ms=2000)
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while any(consumer.position(tp) < ends[tp] for tp in at):
        found += [record_of(topic, message) for messages in consumer.poll(timeout_ms=50).values() for message in messages]
        if time.monotonic() > deadline:
            raise Stalled(f"topic {topic} could not be read to {ends}")
    return found

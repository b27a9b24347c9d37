"""Sources on Kafka: which ones this member is to run, what each publishes, and how far those who answer are.

`WantedSources` is a member of the group on `ingest`, which is used to share sources out and never commits. `SourceLog` is one source's way
into `frames`: its position travels in the transaction of its frames, so whoever opens the same source next knows exactly what is there.
Playing an input is capture.py's, running sources workers/ingest.py's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetSpec, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.partitioner import murmur2

from .bus import FRAMES
from .codec import End, Kind, kind_of, pack, unpack
from .errors import BadRecord, BusFailed
from .kafka_client import Cluster, headers, named_errors, settings_of
from .kafka_endings import SOURCE, open_producer
from .kafka_topics import INGEST, POSITIONS
from .types import Frame, Notice, Prompt
from .wanted import Position, Wanted

log = logging.getLogger(__name__)

GROUP = "psalm-ingest"
SESSION_TIMEOUT_S = 10.0
TRANSACTION_TIMEOUT_S = 10.0
JOIN_S = 10.0  # of waiting for a rebalance to end
UNDECIDED_S = 30.0  # for transactions of others to be decided: they time out after TRANSACTION_TIMEOUT_S
RECENT = 2000  # records at the end of `positions`, where that of a source that has just died is nearly always found
OVERHEAD = 1024  # bytes around a message, of its record and batch
CLOSE_S = 2.0


def home(key: str, partitions: int) -> int:
    """The partition of a key. Source: the default partitioner of Kafka's own clients and of kafka-python."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


class SourceLog:
    """One source's way into the log. To open it ends whatever its predecessor left undecided, and fences it.

    Every method raises BusFailed, or Fenced; after any error close it and open another.
    """

    def __init__(self, cluster: Cluster, session: str, view: str) -> None:
        self.session, self.view, self.cluster = session, view, cluster
        self._key, self._name = session.encode(), f"{session}/{view}"
        self._doing = f"publish source {self._name}"
        with named_errors(self._doing):
            written = cluster.topic(FRAMES), cluster.topic(POSITIONS)
            self._producer = open_producer(cluster, cluster.topic(f"{SOURCE}{self._name}"), TRANSACTION_TIMEOUT_S, written)
        try:
            with named_errors(self._doing):
                frames, self._positions = self._home(FRAMES), self._home(POSITIONS)
                self.partition = frames.partition
                with closing(cluster.admin()) as admin:
                    self.largest = int(settings_of(admin, [frames.topic])[frames.topic]["max.message.bytes"]) - OVERHEAD
                    """Bytes of a message that its topic takes."""
                    self._first, self._end = (_offset(admin, self._positions, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
        except BaseException:
            self.close()
            raise

    def position(self) -> Position:
        """Up to where the source was published when this was opened: of its transactions before, none is undecided any more."""
        with named_errors(f"{self._doing}: read its position"), closing(self.cluster.consumer()) as reader:
            reader.assign([self._positions])
            recent = max(self._first, self._end - RECENT)
            found = self._last_position(reader, recent, self._end)
            if found is None and recent > self._first:
                found = self._last_position(reader, self._first, recent)
        return found or Position(self.session, self.view)

    def publish(self, messages: Sequence[Frame | Prompt | Notice | End], position: Position) -> Position:
        """One transaction: the messages, in order, and up to where they bring the source. Returns that with the offset it has now."""
        with named_errors(self._doing):
            self._producer.begin_transaction()
            topic = self.cluster.topic(FRAMES)
            sent = [self._producer.send(topic, pack(m), self._key, headers(kind_of(m)), self.partition) for m in messages]
            self._producer.flush(TRANSACTION_TIMEOUT_S)
            for future in sent:  # one that failed can reset the producer, which then takes the end of the transaction for done
                position = replace(position, offset=future.get(timeout=0).offset)
            key, value = self._name.encode(), pack(position)
            told = self._producer.send(self._positions.topic, value, key, headers(Kind.POSITION), self._positions.partition)
            self._producer.flush(TRANSACTION_TIMEOUT_S)
            told.get(timeout=0)
            self._producer.commit_transaction()
        return position

    def close(self) -> None:
        """Let go at once. What is undecided is ended by who opens this source next, or by the broker in time."""
        self._producer.abandon()

    def _home(self, topic: str) -> TopicPartition:
        name = self.cluster.topic(topic)
        if not (partitions := self._producer.partitions_for(name)):
            raise errors.UnknownTopicOrPartitionError(name)
        return TopicPartition(name, home(self.session, len(partitions)))

    def _last_position(self, reader: KafkaConsumer, start: int, end: int) -> Position | None:
        """The last position of this source that is committed from `start` to before `end`.

        `end` lies behind every record, decided or not: what a reader of committed records calls the end is held back by any other
        source's open transaction, and a position behind that would be missed.
        """
        found, until = None, time.monotonic() + UNDECIDED_S
        reader.seek(self._positions, start)
        while reader.position(self._positions) < end:
            for message in reader.poll(timeout_ms=100).get(self._positions, ()):
                if message.offset < end and message.key == self._name.encode() and message.value is not None:
                    found = message.value
            if time.monotonic() > until:
                raise BusFailed(
                    f"source {self._name}: topic {self._positions.topic} {self._positions.partition} is not decided up to offset {end} "
                    f"after {UNDECIDED_S:g} s; see the broker's log for hanging transactions"
                )
        return None if found is None else unpack(Kind.POSITION, found)


class Backlog:
    """How far the group is that answers `frames`. Asked by many sources, it asks the broker at most every `fresh_s`."""

    def __init__(self, cluster: Cluster, group: str, fresh_s: float = 0.1) -> None:
        self.topic, self.group, self.fresh_s = cluster.topic(FRAMES), group, fresh_s
        self._admin = cluster.admin()
        self._lock = threading.Lock()
        self._asked, self._committed = -fresh_s, {}

    def ahead(self, partition: int, offset: int) -> int:
        """By how many offsets the record at `offset` is ahead of what is answered: at most 0 when it is. Raises BusFailed.

        Of a log that ends before `offset` the end counts: it was made anew.
        """
        at = TopicPartition(self.topic, partition)
        with self._lock, named_errors(f"ask how far group {self.group} is"):
            if time.monotonic() - self._asked >= self.fresh_s:
                self._committed = {t: found.offset for t, found in self._admin.list_group_offsets({self.group: None})[self.group].items()}
                self._asked = time.monotonic()
            committed = self._committed.get(at, -1)
            if committed < 0:  # who starts without a commit starts at the beginning
                committed = _offset(self._admin, at, OffsetSpec.EARLIEST)
            if offset + 1 - committed > 0:
                offset = min(offset, _offset(self._admin, at, OffsetSpec.LATEST) - 1)
        return offset + 1 - committed

    def close(self) -> None:
        """Let go of the broker."""
        with suppress(errors.KafkaError):
            self._admin.close()


@dataclass(frozen=True, slots=True)
class Change:
    """What one source is to be from now on. wanted None: it is to stop, and its view to be forgotten."""

    partition: int
    session: str
    view: str
    wanted: Wanted | None


class WantedSources:
    """A member of the group that shares the sources out. Raises BusFailed.

    on_lost: is told during a poll of the partitions that are not this member's any more, before anyone else gets them.
    """

    def __init__(self, cluster: Cluster, name: str, on_lost: Callable[[Collection[int]], None]) -> None:
        self.topic, self.on_lost = cluster.topic(INGEST), on_lost
        self._unread: dict[int, int | None] = {}  # partitions of which not all is read, and where that ends
        self._found: dict[int, dict[str, Change]] = {}  # in those, by key
        self._changes: list[Change] = []  # in the others, not told of yet
        self._consumer = cluster.consumer(
            group_id=cluster.topic(GROUP),
            client_id=name,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            auto_offset_reset="earliest",
            session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            heartbeat_interval_ms=int(SESSION_TIMEOUT_S * 1000 / 6),
        )
        try:
            with named_errors(f"ask for the partitions of topic {self.topic}"):
                if not self._consumer.partitions_for_topic(self.topic):  # a leader that knows none would give out none
                    raise errors.UnknownTopicOrPartitionError(self.topic)
                self._consumer.subscribe([self.topic], listener=_Listener(self))
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float) -> list[Change]:
        """What has changed, in order; of a partition that is new here only what is wanted now. After an error nothing is lost."""
        with named_errors(f"read topic {self.topic}"):
            if self._consumer.join(JOIN_S):
                for messages in self._consumer.poll(timeout_ms=int(timeout_s * 1000)).values():
                    self._sort(messages)
                self._changes += [change for partition in self._read_now() for change in self._found.pop(partition).values()]
        changes, self._changes = self._changes, []
        return changes

    def close(self) -> None:
        """Leave the group."""
        with suppress(errors.KafkaError):
            self._consumer.close(timeout_ms=int(CLOSE_S * 1000))

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The group gives partitions to this member: each is read from its beginning."""
        for at in partitions:
            self._unread[at.partition], self._found[at.partition] = None, {}
        self._consumer.seek_to_beginning(*partitions)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """The group takes partitions from this member."""
        lost = {at.partition for at in partitions}
        for partition in lost:
            self._unread.pop(partition, None)
            self._found.pop(partition, None)
        self._changes = [change for change in self._changes if change.partition not in lost]
        self.on_lost(lost)

    def expelled(self, partitions: Collection[TopicPartition]) -> None:
        """The group has given all that this member held to others."""
        self._consumer.forget()
        self.revoked(partitions)

    def _sort(self, messages: Sequence[object]) -> None:
        for change in filter(None, map(_change, messages)):
            if change.partition in self._unread:
                self._found[change.partition][f"{change.session}/{change.view}"] = change
            else:
                self._changes.append(change)

    def _read_now(self) -> list[int]:
        """Partitions that have been read up to where they ended when they were given."""
        if fresh := [TopicPartition(self.topic, p) for p, end in self._unread.items() if end is None]:
            self._unread |= {at.partition: end for at, end in self._consumer.end_offsets(fresh).items()}
        read = [p for p, end in self._unread.items() if (self._consumer.position(TopicPartition(self.topic, p)) or 0) >= end]
        for partition in read:
            del self._unread[partition]
        return read


class _Listener(ConsumerRebalanceListener):
    """Passes on what the group says."""

    def __init__(self, sources: WantedSources) -> None:
        self.sources = sources

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if assigned:
            self.sources.assigned(assigned)

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            self.sources.revoked(revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self.sources.expelled(lost)


def _change(message: object) -> Change | None:
    """What a record of `ingest` says; None, and a line in the log, for one that says nothing."""
    place = f"topic {message.topic} {message.partition}, offset {message.offset}"
    try:
        session, slash, view = (message.key or b"").decode().partition("/")
        if not (session and slash and view):
            raise BadRecord(f"key is {message.key!r}, expected session/view")
        if message.value is None:
            return Change(message.partition, session, view, None)
        wanted = unpack(next((value.decode() for name, value in message.headers if name == "kind"), ""), message.value)
        if not isinstance(wanted, Wanted) or wanted.name != f"{session}/{view}":
            raise BadRecord(f"under key {session}/{view} lies a {kind_of(wanted)} of another name or kind, expected its wanted state")
        return Change(message.partition, session, view, wanted)
    except (BadRecord, UnicodeDecodeError) as error:
        log.error("%s: %s; it is passed over", place, error)
        return None


def _offset(admin: object, at: TopicPartition, spec: OffsetSpec) -> int:
    """The first offset of a partition, or the one behind its last record, decided or not."""
    return admin.list_partition_offsets({at: spec})[at].offset

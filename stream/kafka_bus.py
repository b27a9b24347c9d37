"""KafkaBus: a member of the consumer group on topic `frames`, whose answers and offsets are one Kafka transaction.

Every commit carries the group's generation as it was right after the poll that brought the records: asked for later, kafka-python
answers generation -1 for a member that was expelled, which the broker takes for no member at all and lets through. After a failure
nothing is repeated in place; a new producer of the same transactional id settles what its predecessor left undecided, and every
partition is read again from what is committed. Connections and errors are kafka_client.py's.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.partitioner.default import murmur2

from .bus import FRAMES, MASKS, STATE, Claim, Polled, Record
from .errors import BadConfig, Fenced, LogLost
from .kafka_client import Cluster, Producer, headers, named_errors, record_of
from .kafka_endings import OFFSETS, SOURCE, end_for_others, open_producer
from .kafka_reads import end_of_all, end_offset, ends, first_offset, read
from .kafka_topics import POSITIONS

log = logging.getLogger(__name__)

JOIN_S = 10.0  # of waiting for a rebalance to end, beyond what a poll may wait for records
SLICE_S = 0.1  # of a poll, after which it looks whether the group has changed
ALL = 1 << 30  # records of one poll of the client: what it has taken apart of a partition does not come back after a pause (3.0.12)
UNDECIDED_S = 0.5  # for a committed offset that a transaction may still change; the next poll asks again
UNREAD_BYTES = 4 << 20  # of a partition, after which no more is fetched
FETCH_WAIT_S = 0.2  # of the broker for records; what else is asked on that connection waits as long
TOLD_EVERY_S = 60.0  # of a partition whose log is lost
CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Member:
    """Who reads. slot: the worker's place, the same after its restart; max_poll_interval_s: how long a turn may take."""

    group: str
    slot: str
    max_poll_interval_s: float
    session_timeout_s: float = 10.0
    transaction_timeout_s: float = 10.0

    @property
    def transactional_id(self) -> str:
        return f"{self.group}-{self.slot}"


class KafkaBus:
    """See Bus. Every method but `hold`, `publish` and `recover` raises BusFailed; `poll` also LogLost, and BadConfig when the number of
    partitions is not what it was at the start."""

    def __init__(self, cluster: Cluster, member: Member) -> None:
        self.cluster, self.member = cluster, member
        self._frames = cluster.topic(FRAMES)
        self._written = (cluster.topic(MASKS), cluster.topic(STATE), OFFSETS)  # by a transaction of this group
        self._sent = (self._frames, cluster.topic(POSITIONS))  # by one of a source
        self._gained: set[int] = set()  # assigned, and not told of yet
        self._lost: set[int] = set()
        self._news = False  # of the group, that `poll` has not looked at
        self._claims: dict[int, Claim] = {}  # as gained
        self._unread: dict[int, deque[Record]] = {}  # the partitions read least recently first
        self._held: frozenset[int] = frozenset()
        self._answers: list[tuple[str, Record, str, bytes | None]] = []
        self._membership: object = None  # of the poll that returned the records of this turn
        self._looked = time.monotonic()  # around
        self._taken_over: float | None = None  # when partitions were, whose last owner's transactions are not looked after yet
        self._ends: dict[TopicPartition, int] = {}  # of the committed records, when last asked for
        self._told = -TOLD_EVERY_S  # when a partition's lost log was
        self._undecided: dict[int, float] = {}  # partitions whose committed offset is awaited, and since when
        self._producer: Producer | None = None
        self._consumer = cluster.consumer(
            group_id=member.group,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            max_poll_interval_ms=int(member.max_poll_interval_s * 1000),
            session_timeout_ms=int(member.session_timeout_s * 1000),
            heartbeat_interval_ms=int(member.session_timeout_s * 1000 / 6),  # a member hears of a rebalance with a heartbeat
            fetch_max_wait_ms=int(FETCH_WAIT_S * 1000),
        )
        try:
            self._partitions = self._count_partitions()
            self._consumer.subscribe([self._frames], listener=_Listener(self))
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See Bus."""
        until = time.monotonic() + timeout_s
        while True:
            with named_errors(f"poll topic {self._frames} as {self.member.transactional_id}"):
                self._open_producer()
                self._look_around()
                if self._consumer.join(JOIN_S):
                    if changed := self._changes():
                        return changed
                    if records := self._records(limit, min(SLICE_S, max(0.0, until - time.monotonic()))):
                        return Polled(records=records)
                if time.monotonic() >= until:
                    return Polled()

    def hold(self, partitions: Collection[int]) -> None:
        """See Bus."""
        self._held = frozenset(partitions)

    def partition_of(self, key: str) -> int:
        """See Bus. Source: the default partitioner of Kafka's own clients and of kafka-python."""
        return (murmur2(key.encode()) & 0x7FFFFFFF) % self._partitions

    def publish(self, topic: str, answered: Record, kind: str, data: bytes | None) -> None:
        """See Bus."""
        self._answers.append((topic, answered, kind, data))

    def commit(self, claims: Sequence[Claim]) -> None:
        """See Bus. After any error the outcome is unknown until `recover`."""
        answers, self._answers = self._answers, []
        membership = self._membership
        self._refuse_stale(claims, membership)
        offsets = {self._at(c.partition): OffsetAndMetadata(c.offset, c.checkpoint or "", -1) for c in claims}
        who = f"{membership.member_id} of generation {membership.generation_id}, transactional id {self.member.transactional_id}"
        with named_errors(f"commit of {self._frames} {', '.join(str(c.partition) for c in claims)} as {who}"):
            self._producer.begin_transaction()
            self._producer.send_offsets_to_transaction(offsets, membership)  # first: a member that is fenced writes nothing at all
            sent = [self._send(*answer) for answer in answers]
            self._producer.flush(self.member.transaction_timeout_s)
            for future in sent:  # one that failed can reset the producer, which then takes the end of the transaction for done
                future.get(timeout=0)
            self._producer.commit_transaction()

    def recover(self) -> None:
        """See Bus. A transaction that is open or undecided is settled before the next poll reads what is committed."""
        self._answers, self._membership, self._held, self._undecided = [], None, frozenset(), {}
        if self._producer is not None:
            self._producer.abandon()
            self._producer = None
        self._gain_anew()

    def snapshots(self, partition: int) -> dict[str, Record]:
        """See Bus."""
        found: dict[str, Record] = {}
        for record in read(self.cluster, STATE, partition, 0, end_of_all(self.cluster, STATE, partition)):
            if record.data is None:
                found.pop(record.key, None)
            else:
                found[record.key] = record
        return found

    def earliest(self, partition: int) -> int:
        """See Bus."""
        with named_errors(f"ask for the first offset of {self._frames} {partition}"):
            return first_offset(self._consumer, self._at(partition))

    def history(self, claim: Claim, start: int) -> Iterator[Record]:
        """See Bus. Raises LogLost when records are deleted while they are read."""
        return read(self.cluster, FRAMES, claim.partition, start, claim.offset)

    def close(self) -> None:
        """See Bus."""
        if self._producer is not None:
            self._producer.abandon()
            self._producer = None
        with suppress(errors.KafkaError):
            self._consumer.close(timeout_ms=int(CLOSE_S * 1000))

    # -- the group -----------------------------------------------------------------------------------------------------

    def assigned(self, partitions: Collection[int]) -> None:
        """The group gives partitions to this member; nothing is read of them before `poll` has told of it."""
        self._gained |= set(partitions)
        self._news = True
        for partition in partitions:
            self._unread.pop(partition, None)
            self._consumer.pause(self._at(partition))
            self._consumer.seek(self._at(partition), 0)  # any place, or the client looks for one and raises when there is no commit

    def revoked(self, partitions: Collection[int]) -> None:
        """The group takes partitions from this member."""
        self._gained -= set(partitions)
        self._lost |= set(partitions)
        self._news = True
        for partition in partitions:
            self._unread.pop(partition, None)
            self._undecided.pop(partition, None)

    def expelled(self, partitions: Collection[int]) -> None:
        """The group has given all that this member held to others."""
        self._consumer.forget()
        self.revoked(partitions)

    def _gain_anew(self) -> None:
        """Read every partition again from what is committed, once the next poll has told of it."""
        self._gained |= {at.partition for at in self._consumer.assignment()}
        self._unread.clear()

    def _changes(self) -> Polled | None:
        """What the group has changed, once it can be told: an offset in an undecided transaction is waited for."""
        self._news = False
        if not self._gained and not self._lost:
            return None
        gained = self._claimable()
        lost, self._lost = self._lost & self._claims.keys(), set()
        for partition in lost:
            del self._claims[partition]
        self._taken_over = time.monotonic() if gained else self._taken_over
        for claim in gained:
            self._claims[claim.partition] = claim
            self._gained.discard(claim.partition)
            self._consumer.seek(self._at(claim.partition), claim.offset)
        return Polled(tuple(gained), tuple(sorted(lost))) if gained or lost else None

    def _claimable(self) -> list[Claim]:
        """The claims of the partitions gained, but for those that must wait. Raises LogLost when that leaves nothing to go on with."""
        found, gone = [], None
        for partition in sorted(self._gained):
            try:
                found += [claim] if (claim := self._claim(partition)) else []
            except LogLost as error:
                gone = error
        if gone is not None and not found and self._claims.keys() <= self._gained:
            raise gone
        if gone is not None and time.monotonic() > self._told + TOLD_EVERY_S:
            self._told = time.monotonic()
            log.error("%s; the other partitions go on", gone)
        return found

    def _claim(self, partition: int) -> Claim | None:
        """What is committed for a partition; None: not decided yet. Raises LogLost."""
        at, generation = self._at(partition), self._consumer.group_metadata().generation_id
        try:
            committed = self._consumer.committed(at, metadata=True, timeout_ms=int(UNDECIDED_S * 1000))
        except errors.KafkaTimeoutError:
            self._wait_for_decision(partition)
            return None
        self._undecided.pop(partition, None)
        first = first_offset(self._consumer, at)
        if generation < 0:  # expelled meanwhile
            return None
        if committed is None:
            return Claim(partition, first, None, generation)
        end = end_offset(self._consumer, at)
        if not first <= committed.offset <= end:
            raise _log_lost(self._frames, partition, committed.offset, first, end, self.member.group)
        return Claim(partition, committed.offset, committed.metadata, generation)

    def _wait_for_decision(self, partition: int) -> None:
        """Look after the transaction of another member that nothing ends, though it had twice its time."""
        since = self._undecided.setdefault(partition, time.monotonic())
        if time.monotonic() > since + 2 * self.member.transaction_timeout_s:
            del self._undecided[partition]
            end_for_others(self.cluster, f"{self.member.group}-", self.member.transaction_timeout_s, self._written)

    def _records(self, limit: int, timeout_s: float) -> tuple[Record, ...]:
        """The next records, of all partitions in turn; waits when none is there."""
        self._let_in(limit)
        try:
            found = self._consumer.poll(timeout_ms=0 if self._ready() else int(timeout_s * 1000), max_records=ALL)
        except (errors.OffsetOutOfRangeError, errors.LogTruncationError):
            self._gain_anew()  # what is lost shows against what is committed
            return ()
        for at, messages in found.items():
            self._unread.setdefault(at.partition, deque()).extend(record_of(FRAMES, message) for message in messages)
        if self._news or not self._consumer.at_rest or not (ready := self._ready()):
            return ()
        self._membership = self._consumer.group_metadata()
        if (count := self._count_partitions()) != self._partitions:
            raise BadConfig(
                f"topic {self._frames} has {count} partitions, {self._partitions} when this worker started, so sessions change their "
                "partition; stop the sources, let the workers answer what is left, and start all with new topics (topic prefix)"
            )
        taken = []
        while ready and len(taken) < limit:
            partition = ready.popleft()
            unread = self._unread[partition] = self._unread.pop(partition)  # from now on the last in turn
            taken.append(unread.popleft())
            ready += [partition] if unread else []
        return tuple(taken)

    def _ready(self) -> deque[int]:
        """The partitions of which records may be read and are there, those read least recently first."""
        return deque(partition for partition, unread in self._unread.items() if unread and partition not in self._held)

    def _let_in(self, limit: int) -> None:
        """Have the client fetch what is told of, is not on hold, and lacks records for the next turn."""
        for at in self._consumer.assignment():
            unread = self._unread.get(at.partition, ())
            enough = len(unread) >= limit or sum(len(record.data or b"") for record in unread) >= UNREAD_BYTES
            wait = enough or at.partition in self._held or at.partition in self._gained
            (self._consumer.pause if wait else self._consumer.resume)(at)

    def _look_around(self) -> None:
        """Ask a broker for the ends, now and then: one that is away looks to a poll like one without news, and so does a transaction that
        nothing ends, of a source or of the member that held these partitions before. Raises KafkaTimeoutError."""
        now, timeout_s = time.monotonic(), self.member.transaction_timeout_s
        if now < self._looked + self.member.session_timeout_s:
            return
        self._looked = now
        mine = self._consumer.assignment()
        before, self._ends = self._ends, ends(self._consumer, {self._at(0), *mine})
        if any(before.get(at) == self._ends[at] < (self._consumer.highwater(at) or 0) for at in mine):
            end_for_others(self.cluster, self.cluster.topic(SOURCE), timeout_s, self._sent)
        if self._taken_over is not None and now > self._taken_over + 2 * timeout_s:
            self._taken_over = None
            end_for_others(self.cluster, f"{self.member.group}-", timeout_s, self._written)

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._frames, partition)

    def _count_partitions(self) -> int:
        with named_errors(f"ask for the partitions of topic {self._frames}"):
            if not (found := self._consumer.partitions_for_topic(self._frames)):
                raise errors.UnknownTopicOrPartitionError(self._frames)
        return len(found)

    # -- the transaction -----------------------------------------------------------------------------------------------

    def _open_producer(self) -> None:
        if self._producer is None:
            self._producer = open_producer(
                self.cluster,
                self.member.transactional_id,
                self.member.transaction_timeout_s,
                self._written,
                retry_backoff_ms=20,  # a turn soon after the last finds its markers not written yet; with 100 ms that was the median commit
            )

    def _send(self, topic: str, answered: Record, kind: str, data: bytes | None) -> object:
        name, key = self.cluster.topic(topic), answered.key.encode() or None
        return self._producer.send(name, data, key, headers(kind), answered.partition)

    def _refuse_stale(self, claims: Sequence[Claim], membership: object) -> None:
        """Kafka asks whether a member is of the group's generation, not whether the partition is still the member's."""
        if membership is None or membership.generation_id < 0 or not membership.member_id:
            raise Fenced(
                f"commit of {self._frames} by {self.member.transactional_id}: it was expelled from group {self.member.group} and is of no "
                "generation; drop the turn and start from what is committed"
            )
        for claim in claims:
            held = self._claims.get(claim.partition)
            if held is None or held.generation != claim.generation:
                raise Fenced(
                    f"commit of {self._frames} {claim.partition} by {self.member.transactional_id}: the claim is of generation "
                    f"{claim.generation}, the partition is held since {held.generation if held else 'never'}; drop the turn"
                )


class _Listener(ConsumerRebalanceListener):
    """Passes on what the group says while the bus polls."""

    def __init__(self, bus: KafkaBus) -> None:
        self.bus = bus

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.bus.assigned([at.partition for at in assigned])

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.bus.revoked([at.partition for at in revoked])

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self.bus.expelled([at.partition for at in lost])


def _log_lost(topic: str, partition: int, wanted: int, first: int, end: int, group: str) -> LogLost:
    if wanted < first:
        said = f"offsets {wanted} to {first - 1} were deleted before they were answered (retention.ms, retention.bytes)"
    else:
        said = f"it ends at offset {end}, {wanted} is committed: the log was cut or made anew"
    return LogLost(
        f"topic {topic} {partition}: {said}; to go on without them, stop the workers and run kafka-consumer-groups --group {group} "
        f"--topic {topic}:{partition} --reset-offsets --to-earliest --execute"
    )

"""The log: records in, answers out, and the one commit that ties an answer to the record it answers.

`Bus` is the worker's side of it, one member of the group that reads `frames`. `MemoryLog` is the log itself inside one process, with the
side of a source (`append`) and of a subscriber (`take`); `MemoryBus` is a member on it. State lives in store.py, bytes in codec.py,
decisions in workers/segment.py. Offsets only grow: nothing may assume that they follow each other.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Protocol

from .errors import BadConfig, Fenced

FRAMES = "frames"
MASKS = "masks"
STATE = "state"
LARGEST_ANSWER, LARGEST_STATE = 4 << 20, 32 << 20  # bytes of a record
ENVELOPE = 16 << 10  # bytes, at most, of what stands around a record's data


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a topic.

    key: the session, whose records all lie in one partition, in order ("": none was given); kind: what `data` unpacks to; data None: the
    end of a key in a compacted topic; t_ms: when the log accepted it, milliseconds since 1970.
    """

    topic: str
    partition: int
    offset: int
    key: str
    kind: str
    data: bytes | None = field(repr=False)
    t_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """How far a partition of `frames` is answered, and by right of what it may be answered further.

    offset: the next record to answer; checkpoint: id of the commit that said so (None: there was none); generation: of the member that
    holds the partition, so that a predecessor can be told from its heir.
    """

    partition: int
    offset: int
    checkpoint: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll found: a change of what is held, or records, never both.

    gained: the partitions held since this poll, as committed; lost: those not held any more; records: per partition the next of its log.
    """

    gained: tuple[Claim, ...] = ()
    lost: tuple[int, ...] = ()
    records: tuple[Record, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether other partitions are held than before."""
        return bool(self.gained or self.lost)


class Bus(Protocol):
    """A member of the group that reads `frames` and answers to `masks`. Nothing it publishes is seen before `commit`."""

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """The next records, at most `limit`, of each held partition a prefix of what is unread; waits at most `timeout_s` for the first."""

    def hold(self, partitions: Collection[int]) -> None:
        """From now on polls bring no records of these partitions, and of all others again."""

    def partition_of(self, key: str) -> int:
        """Where the records of a session belong."""

    def publish(self, topic: str, answered: Record, kind: str, data: bytes | None) -> None:
        """Put an answer aside: it gets the key and the partition of the record it answers, and leaves with the next commit."""

    def commit(self, claims: Sequence[Claim]) -> None:
        """Send what was published and move the committed positions to `claims`, all or nothing. Raises Fenced."""

    def recover(self) -> None:
        """Forget what was published and polled since the last commit; the next poll gains every partition anew, as committed."""

    def snapshots(self, partition: int) -> dict[str, Record]:
        """The committed records of topic `state` in a partition, the latest by session; sessions that ended are left out."""

    def earliest(self, partition: int) -> int:
        """Offset from which on records of `frames` are kept."""

    def history(self, claim: Claim, start: int) -> Iterator[Record]:
        """The kept records of `frames` in the claim's partition, from offset `start` to before the claim's."""

    def close(self) -> None:
        """Leave the group. What was not committed is forgotten."""


class MemoryLog:
    """Topics of one process.

    A frame is kept until it is committed and `retention` later ones are, an answer until it is taken, a state until it is replaced.
    """

    def __init__(self, partitions: int = 1, retention: int = 0) -> None:
        if partitions < 1:
            raise BadConfig(f"a log has {partitions} partitions, expected at least 1")
        self.partitions = partitions
        self.retention = retention
        self.generation = 0
        self.claims = [Claim(p, offset=0, checkpoint=None, generation=0) for p in range(partitions)]
        self.states: list[dict[str, Record]] = [{} for _ in range(partitions)]
        self._topics: dict[str, list[deque[Record]]] = {}
        self._ends: dict[tuple[str, int], int] = {}

    def append(self, topic: str, key: str, kind: str, data: bytes) -> None:
        """Accept a record, as a source does: it lands in the partition of its key."""
        self._put(topic, self.partition_of(key), key, kind, data)

    def partition_of(self, key: str) -> int:
        """Where the records of a key belong."""
        return zlib.crc32(key.encode()) % self.partitions

    def take(self, topic: str) -> list[Record]:
        """Hand over what a subscriber has not seen yet, in log order per partition, and forget it."""
        taken = [record for records in self.topic(topic) for record in records]
        for records in self.topic(topic):
            records.clear()
        return taken

    def topic(self, name: str) -> list[deque[Record]]:
        """The kept records of a topic, one queue a partition."""
        return self._topics.setdefault(name, [deque() for _ in range(self.partitions)])

    def kept(self, partition: int, start: int) -> Iterator[Record]:
        """The records of `frames` from offset `start` on."""
        return (record for record in self.topic(FRAMES)[partition] if record.offset >= start)

    def join(self) -> tuple[Claim, ...]:
        """Give every partition to a new member: from here on the member before it is fenced."""
        self.generation += 1
        return tuple(Claim(c.partition, c.offset, c.checkpoint, self.generation) for c in self.claims)

    def commit(self, claims: Sequence[Claim], answers: Sequence[tuple[str, Record, str, bytes | None]]) -> None:
        """Append `answers` and adopt `claims`; frames before a committed offset are dropped. Raises Fenced, then nothing has changed."""
        for claim in claims:
            if claim.generation != self.generation:
                raise Fenced(
                    f"commit of partition {claim.partition}: this member is of generation {claim.generation}, the partition belongs to "
                    f"generation {self.generation}; drop the turn and start from what is committed"
                )
        for topic, answered, kind, data in answers:
            self._put(topic, answered.partition, answered.key, kind, data)
        for claim in claims:
            self.claims[claim.partition] = claim
            frames = self.topic(FRAMES)[claim.partition]
            while frames and frames[0].offset < claim.offset - self.retention:
                frames.popleft()

    def _put(self, topic: str, partition: int, key: str, kind: str, data: bytes | None) -> None:
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        record = Record(topic, partition, offset, key, kind, data, time.time_ns() // 1_000_000)
        if topic != STATE:
            self.topic(topic)[partition].append(record)
        elif data is None:
            self.states[partition].pop(key, None)
        else:
            self.states[partition][key] = record


class MemoryBus:
    """The only member of a group on a `MemoryLog`: whoever joins later takes every partition over."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.recover()

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See Bus. Never waits: who fills the log runs in this very thread."""
        if self._gained:
            gained, self._gained = self._gained, ()
            return Polled(gained)
        unread = [self.log.kept(partition, offset) for partition, offset in self._next.items() if partition not in self._held]
        turns = (record for row in zip_longest(*unread) for record in row if record is not None)
        records = tuple(islice(turns, limit))
        self._next |= {record.partition: record.offset + 1 for record in records}
        return Polled(records=records)

    def hold(self, partitions: Collection[int]) -> None:
        """See Bus."""
        self._held = frozenset(partitions)

    def partition_of(self, key: str) -> int:
        """See Bus."""
        return self.log.partition_of(key)

    def publish(self, topic: str, answered: Record, kind: str, data: bytes | None) -> None:
        """See Bus."""
        self._answers.append((topic, answered, kind, data))

    def commit(self, claims: Sequence[Claim]) -> None:
        """See Bus."""
        self.log.commit(claims, self._answers)
        self._answers = []

    def recover(self) -> None:
        """See Bus."""
        self._gained = self.log.join()
        self._next = {claim.partition: claim.offset for claim in self._gained}
        self._held: frozenset[int] = frozenset()
        self._answers: list[tuple[str, Record, str, bytes | None]] = []

    def snapshots(self, partition: int) -> dict[str, Record]:
        """See Bus."""
        return dict(self.log.states[partition])

    def earliest(self, partition: int) -> int:
        """See Bus."""
        frames = self.log.topic(FRAMES)[partition]
        return frames[0].offset if frames else self.log.claims[partition].offset

    def history(self, claim: Claim, start: int) -> Iterator[Record]:
        """See Bus."""
        return (record for record in self.log.kept(claim.partition, start) if record.offset < claim.offset)

    def close(self) -> None:
        """See Bus."""
        self._answers, self._next = [], {}

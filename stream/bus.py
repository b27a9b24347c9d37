"""The log: records in, answers out, and the one commit that ties an answer to the record it answers.

`Bus` is the worker's side of it, one member of the group that reads `frames`. `MemoryLog` is the log itself inside one process, with the
side of a source (`append`) and of a subscriber (`take`); `MemoryBus` is a member on it. State lives in store.py, bytes in codec.py,
decisions in workers/segment.py. Offsets only grow: nothing may assume that they follow each other.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Protocol

from .errors import BadConfig, Fenced

FRAMES = "frames"
MASKS = "masks"


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a topic. key: the session, whose records all lie in one partition, in order; kind: what `data` unpacks to."""

    topic: str
    partition: int
    offset: int
    key: str
    kind: str
    data: bytes = field(repr=False)


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
    """What a poll found. gained: the partitions held since the last poll, as committed; records: per partition the next of its log."""

    gained: tuple[Claim, ...] = ()
    records: tuple[Record, ...] = ()


class Bus(Protocol):
    """A member of the group that reads `frames` and answers to `masks`. Nothing it publishes is seen before `commit`."""

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """The next records, at most `limit`, of each held partition a prefix of what is unread; waits at most `timeout_s` for the first."""

    def publish(self, topic: str, answered: Record, kind: str, data: bytes) -> None:
        """Put an answer aside: it gets the key and the partition of the record it answers, and leaves with the next commit."""

    def commit(self, claims: Sequence[Claim]) -> None:
        """Send what was published and move the committed positions to `claims`, all or nothing. Raises Fenced."""

    def recover(self) -> None:
        """Forget what was published and polled since the last commit; the next poll gains every partition anew, as committed."""

    def close(self) -> None:
        """Leave the group. What was not committed is forgotten."""


class MemoryLog:
    """Topics of one process. A frame is kept until it is committed, an answer until it is taken."""

    def __init__(self, partitions: int = 1) -> None:
        if partitions < 1:
            raise BadConfig(f"a log has {partitions} partitions, expected at least 1")
        self.partitions = partitions
        self.generation = 0
        self.claims = [Claim(p, offset=0, checkpoint=None, generation=0) for p in range(partitions)]
        self._topics: dict[str, list[deque[Record]]] = {}
        self._ends: dict[tuple[str, int], int] = {}

    def append(self, topic: str, key: str, kind: str, data: bytes) -> None:
        """Accept a record, as a source does: it lands in the partition of its key."""
        self._put(topic, zlib.crc32(key.encode()) % self.partitions, key, kind, data)

    def take(self, topic: str) -> list[Record]:
        """Hand over what a subscriber has not seen yet, in log order per partition, and forget it."""
        taken = [record for records in self.topic(topic) for record in records]
        for records in self.topic(topic):
            records.clear()
        return taken

    def topic(self, name: str) -> list[deque[Record]]:
        """The kept records of a topic, one queue a partition."""
        return self._topics.setdefault(name, [deque() for _ in range(self.partitions)])

    def unread(self, partition: int, offset: int) -> Iterator[Record]:
        """The records of `frames` from `offset` on."""
        return (record for record in self.topic(FRAMES)[partition] if record.offset >= offset)

    def join(self) -> tuple[Claim, ...]:
        """Give every partition to a new member: from here on the member before it is fenced."""
        self.generation += 1
        return tuple(Claim(c.partition, c.offset, c.checkpoint, self.generation) for c in self.claims)

    def commit(self, claims: Sequence[Claim], answers: Sequence[tuple[str, Record, str, bytes]]) -> None:
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
            kept = self.topic(FRAMES)[claim.partition]
            while kept and kept[0].offset < claim.offset:
                kept.popleft()

    def _put(self, topic: str, partition: int, key: str, kind: str, data: bytes) -> None:
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        self.topic(topic)[partition].append(Record(topic, partition, offset, key, kind, data))


class MemoryBus:
    """The only member of a group on a `MemoryLog`: whoever joins later takes every partition over."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.recover()

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See Bus. Never waits: who fills the log runs in this very thread."""
        unread = [self.log.unread(partition, offset) for partition, offset in self._next.items()]
        turns = (record for row in zip_longest(*unread) for record in row if record is not None)
        records = tuple(islice(turns, limit))
        self._next |= {record.partition: record.offset + 1 for record in records}
        gained, self._gained = self._gained, ()
        return Polled(gained, records)

    def publish(self, topic: str, answered: Record, kind: str, data: bytes) -> None:
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
        self._answers: list[tuple[str, Record, str, bytes]] = []

    def close(self) -> None:
        """See Bus."""
        self._answers, self._next = [], {}

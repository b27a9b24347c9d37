"""Has every record exactly one answer? What topics `frames` and `masks` hold, read to their ends and compared.

Says how many are lost or doubled, not whether an answer is right: that is told by digests (cost.py, tests/faults).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ...stream.bus import FRAMES, MASKS, Record
from ...stream.codec import unpack
from ...stream.kafka_client import Cluster
from ...stream.kafka_tail import Tail
from ...stream.types import Frame, MaskFrame, Notice


@dataclass(frozen=True, slots=True)
class Verdict:
    """Records against answers. unasked: answers to nothing that is there; disordered: answers of a session before an earlier record's."""

    accepted: int
    lost: int
    doubled: int
    unasked: int
    disordered: int
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether every record has one answer, in order."""
        return self.accepted > 0 and not (self.lost or self.doubled or self.unasked or self.disordered)


Name = tuple[str, str, int] | tuple[int, int]
"""What ties a record to its answer: session, view and index of a frame; partition and offset of anything else."""


def judge(accepted: Sequence[tuple[str, Name]], answered: Sequence[tuple[str, Name]], statuses: Iterable[str] = ()) -> Verdict:
    """Compare (session, name) of the records, in log order per session, with those of the answers."""
    asked, told = Counter(name for _, name in accepted), Counter(name for _, name in answered)
    extra = told - asked
    place = {name: n for n, (_, name) in enumerate(accepted)}
    order: dict[str, list[int]] = {}
    for session, name in answered:
        if name in place:
            order.setdefault(session, []).append(place[name])
    return Verdict(
        accepted=len(accepted),
        lost=sum((asked - told).values()),
        doubled=sum(count for name, count in extra.items() if name in asked),
        unasked=sum(count for name, count in extra.items() if name not in asked),
        disordered=sum(other < one for places in order.values() for one, other in pairwise(places)),
        statuses=dict(Counter(statuses)),
    )


def name_of(record: Record) -> Name:
    """What names the record in its answer, or, of an answer, the record it is to."""
    message = unpack(record.kind, record.data)
    match message:
        case Frame() | MaskFrame():
            return message.key.session, message.key.view, message.key.index
        case Notice(record=(_, partition, offset)):
            return partition, offset
    return record.partition, record.offset


def read_all(cluster: Cluster, topic: str) -> Iterator[Record]:
    """Every committed record of a topic."""
    with Tail(cluster, topic) as tail:
        ends = tail.ends()
        while any(tail.positions[partition] < end for partition, end in ends.items()):
            yield from tail.poll(1.0)


def judge_log(cluster: Cluster) -> Verdict:
    """Judge what the two topics hold."""
    accepted = [(record.key, name_of(record)) for record in read_all(cluster, FRAMES)]
    answered, statuses = [], []
    for record in read_all(cluster, MASKS):
        answer = unpack(record.kind, record.data)
        answered.append((record.key, name_of(record)))
        statuses.append(str(answer.status if isinstance(answer, MaskFrame) else answer.kind))
    return judge(accepted, answered, statuses)

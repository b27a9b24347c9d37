"""What the log of a fault test holds, what an undisturbed worker makes of it, and how answers differ from that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

from kafka.partitioner.default import murmur2
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import FRAMES, MASKS, MemoryBus, MemoryLog, Record
from psalm_stream.stream.codec import End, Kind, digest, kind_of, pack, unpack
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Frame, MaskFrame, Prompt
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, frames, mask_prompt

Entry = tuple[str, str, bytes]  # session, kind, packed
NO_RECORD = b"\xc1 no record"
IDLE_FROM, LATER = 15, 48  # between them session `door` is idle


@cache
def story() -> tuple[Entry, ...]:
    """Five interleaved sessions, which share partitions whether there are two or three.

    hall: prompted twice, and the same prompt again; garage: a broken frame, an end, a new beginning; kitchen: prompted late; yard: bytes
    that are no record; door: idle most of the time.
    """
    hall, garage, kitchen, yard = (frames(12, session=s) for s in ("hall", "garage", "kitchen", "yard"))
    door = frames(5, session="door")
    garage[3] = replace(garage[3], data=b"no picture")
    second = mask_prompt(5, 2, session="hall")
    before = {
        0: [mask_prompt(0, *ids, session=s) for s, ids in (("hall", [1]), ("garage", [1, 2]), ("yard", [3]), ("door", [1]))],
        1: door[:3],
        3: [mask_prompt(3, 1, 2, session="kitchen")],
        5: [second],
        6: [End("garage")],
        7: [second],
        8: [mask_prompt(8, 1, session="garage")],
        11: door[3:],
    }
    told: list[Entry] = []
    for index, four in enumerate(zip(hall, garage, kitchen, yard, strict=True)):
        told += [entry(message) for message in (*before.get(index, ()), *four)]
        told += [("yard", Kind.FRAME, NO_RECORD)] if index == 9 else []
    return tuple(told)


def entry(message: Frame | Prompt | End) -> Entry:
    session = message.session if isinstance(message, End) else message.key.session
    return session, kind_of(message), pack(message)


class KnownLog(MemoryLog):
    """A log in memory with the records of another one, each where it was."""

    def __init__(self, records: Sequence[Record], partitions: int) -> None:
        super().__init__(partitions)
        for record in records:
            self.topic(FRAMES)[record.partition].append(record)

    def partition_of(self, key: str) -> int:
        return (murmur2(key.encode()) & 0x7FFFFFFF) % self.partitions


Answers = dict[str, list[tuple[str, str]]]  # per session, in log order: which record is answered, and the digest of the answer


@cache
def undisturbed(records: tuple[Record, ...], partitions: int) -> Answers:
    """What one worker answers that nothing happens to, one record a turn."""
    log = KnownLog(records, partitions)
    worker = SegmentWorker(MemoryBus(log), MemoryStore(), DriftSegmenter(), Rules(motion="off"), Settings(turn_records=1))
    while worker.turn():
        pass
    return answers(log.take(MASKS))


def answers(records: Iterable[Record]) -> Answers:
    found: Answers = {}
    for record in records:
        answer = unpack(record.kind, record.data)
        answered = str(answer.key) if isinstance(answer, MaskFrame) else "{}/{}/{}".format(*answer.record)
        found.setdefault(record.key, []).append((answered, digest(answer)))
    return found


@dataclass(frozen=True)
class Verdict:
    """In how many records a run differs from an undisturbed one. strange: answers to no record; disordered: sessions."""

    lost: int = 0
    doubled: int = 0
    differing: int = 0
    strange: int = 0
    disordered: int = 0

    @property
    def clean(self) -> bool:
        return not any(getattr(self, field.name) for field in fields(self))


def compare(expected: Answers, found: Answers) -> Verdict:
    """How `found` differs from `expected`."""
    lost = doubled = differing = strange = disordered = 0
    for session in expected.keys() | found.keys():
        wanted, got = dict(expected.get(session, [])), found.get(session, [])
        counts = Counter(answered for answered, _ in got)
        lost += len(wanted.keys() - counts.keys())
        strange += len(counts.keys() - wanted.keys())
        doubled += sum(count - 1 for count in counts.values())
        differing += len({answered for answered, seen in got if answered in wanted and wanted[answered] != seen})
        order = [answered for answered in wanted if answered in counts]
        disordered += order != [answered for answered in dict(got) if answered in wanted]
    return Verdict(lost, doubled, differing, strange, disordered)

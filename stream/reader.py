"""MaskReader: the answers of a session as an iterator, for whoever subscribes in Python.

    with MaskReader(open_cluster("127.0.0.1:9092"), "kitchen", follow=True) as answers:
        for answer in answers: ...

Committed answers alone, each once, in log order. Other languages: WIRE.md. The broker's side is kafka_tail.py's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from .bus import MASKS, Record
from .codec import unpack
from .errors import BadRecord
from .kafka_client import Cluster
from .kafka_tail import EARLIEST, Tail
from .types import MaskFrame, Notice

Answer = MaskFrame | Notice
WAIT_S = 1.0


class MaskReader:
    """Iterate for the MaskFrames and Notices of one session (None: of all), of one view or all; a context manager.

    start: earliest, latest, or the `offset` of an earlier reader of the session; follow: wait for more instead of ending at the stable end
    of the log, as it was when the reader was made. on_bad: is handed the BadRecord of an answer that cannot be read, which is passed over;
    without it that BadRecord is raised, and iterating again goes on behind it. A broker that restarts is waited for (Tail.patience_s).
    Raises BusFailed, LogLost for a start that is not kept, BadConfig, BadRecord.
    """

    def __init__(
        self,
        cluster: Cluster,
        session: str | None,
        view: str | None = None,
        start: str | int = EARLIEST,
        follow: bool = False,
        on_bad: Callable[[BadRecord], None] | None = None,
    ) -> None:
        self.session, self.view, self.follow, self.on_bad = session, view, follow, on_bad
        self._tail = Tail(cluster, MASKS, session, start)
        self._polled: deque[Record] = deque()
        self.offsets = self._tail.positions
        """Per partition where a reader goes on after what this one has read."""
        try:
            self._ends = {} if follow else self._tail.ends()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Answer]:
        """Every answer from here on."""
        while not self.ended:
            if (answer := self.read(WAIT_S)) is not None:
                yield answer

    def read(self, timeout_s: float) -> Answer | None:
        """The next answer; None when there is none in time, or at the end."""
        until = time.monotonic() + timeout_s
        while not self.ended:
            if self._polled:
                if (answer := self._answer(self._next())) is not None:
                    return answer
            elif (left_s := until - time.monotonic()) > 0:
                self._polled.extend(self._tail.poll(left_s))
                if not self._polled:
                    self.offsets = self._passed()
            else:
                return None
        return None

    @property
    def ended(self) -> bool:
        """Whether all there was has been read; never when following."""
        return not self.follow and self.offsets == self._ends

    @property
    def offset(self) -> int:
        """Where a reader of this one session goes on after what this one has read; the gaps between offsets are Kafka's own."""
        (offset,) = self.offsets.values()
        return offset

    def close(self) -> None:
        """Let go of the broker. May be called twice."""
        self._tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _next(self) -> Record:
        record = self._polled.popleft()
        self.offsets = self._capped(self.offsets | {record.partition: record.offset + 1}) if self._polled else self._passed()
        return record

    def _passed(self) -> dict[int, int]:
        """Behind all that was polled, and the marks of transactions after it."""
        return self._capped(self._tail.positions)

    def _capped(self, offsets: dict[int, int]) -> dict[int, int]:
        return {partition: min(offset, self._ends.get(partition, offset)) for partition, offset in offsets.items()}

    def _answer(self, record: Record) -> Answer | None:
        """What a record says, None when it is not asked for. Raises BadRecord, unless somebody takes it."""
        if self.session not in (None, record.key) or record.offset >= self._ends.get(record.partition, record.offset + 1):
            return None
        try:
            answer = unpack(record.kind, record.data or b"")
            if not isinstance(answer, MaskFrame | Notice):
                raise BadRecord(f"record is a {record.kind}, expected mask_frame or notice; something else writes into this topic")
        except BadRecord as error:
            bad = BadRecord(f"topic {self._tail.name}, partition {record.partition}, offset {record.offset}: {error}")
            if self.on_bad is None:
                raise bad from error
            self.on_bad(bad)
            return None
        return answer if concerns(answer, self.view) else None


def concerns(answer: Answer, view: str | None) -> bool:
    """Whether an answer is about a view, or about the whole session; None: whether it is about any."""
    about = answer.view if isinstance(answer, Notice) else answer.key.view
    return view is None or about in (None, view)

"""One source in a thread: from its input into the log, in short transactions that carry its position.

Whatever goes wrong on the way to the log, everything is let go, and the source starts again from the position that is committed. Playing
the input is stream/capture.py's, the transaction stream/kafka_sources.py's, who runs which source ingest.py's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

from ..stream.capture import Capture, Dropped, Gap, Item, Over, Shot, pauses
from ..stream.codec import End, pack
from ..stream.errors import PsalmStreamError, SourceFailed
from ..stream.kafka_client import Cluster
from ..stream.kafka_sources import Backlog, Change, SourceLog
from ..stream.types import Frame, FrameKey, Notice, NoticeKind, Prompt
from ..stream.wanted import Position, Wanted

log = logging.getLogger(__name__)

BATCH_ITEMS = 16  # of a transaction
BATCH_S = 0.1  # a transaction waits no longer for more
MAX_AHEAD = 64  # offsets that a file may be ahead of what is answered in its partition
LOOK_S = 0.2  # between two looks whether to stop
OPENING = threading.BoundedSemaphore(8)  # most sources of a partition are over: that is found out by a few at a time
PREDECESSOR_S = 5.0  # to let go, for the one that ran this source before in this process


@dataclass(slots=True)
class Batch:
    """What one transaction is to hold, and where it brings the source."""

    position: Position
    messages: list[Frame | Prompt | Notice | End] = field(default_factory=list)
    dropped: int = 0

    @property
    def frames(self) -> int:
        """How many of the messages are frames."""
        return sum(isinstance(message, Frame) for message in self.messages)


class SourceRun:
    """Runs one source until it is over or told to stop; one that is not wanted is ended. published: is told of every committed batch."""

    def __init__(self, cluster: Cluster, backlog: Backlog, source: Change, published: Callable[[Batch], None]) -> None:
        self.cluster, self.backlog, self.published = cluster, backlog, published
        self.partition, self.session, self.view, self.wanted = source.partition, source.session, source.view, source.wanted
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, before: SourceRun | None = None) -> None:
        """Run in a thread, once `before` has let go or PREDECESSOR_S are over."""
        self._thread = threading.Thread(target=self._run, args=(before,), name=f"source {self.session}/{self.view}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Publish nothing more. Returns at once."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait until it has let go of everything."""
        self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """Whether something may still come of it."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped.is_set()

    def _run(self, before: SourceRun | None) -> None:
        if before is not None:
            before.join(PREDECESSOR_S)
        waits = pauses()
        while not self._stopped.is_set():
            try:
                with ExitStack() as stack:
                    with OPENING:
                        out = stack.enter_context(closing(SourceLog(self.cluster, self.session, self.view)))
                        found = out.position()
                    self._publish(out, found)
                return
            except PsalmStreamError as error:
                again_s = next(waits)
                log.warning("source %s/%s starts again from what is committed in %.1f s: %s", self.session, self.view, again_s, error)
            except Exception:
                again_s = next(waits)
                log.exception("source %s/%s failed and starts again in %.1f s", self.session, self.view, again_s)
            self._stopped.wait(again_s)

    def _publish(self, out: SourceLog, found: Position) -> None:
        """From the committed position to the end of the run. Raises BusFailed, Fenced."""
        if self.wanted is None:
            if found.run:
                over = found.done and found.connection == 0  # a file: its end is said already
                ended = [] if over else [End(self.session, self.view)]
                self._commit(out, Batch(replace(found, run="", t_ns=None, pts_ns=None, done=True), ended))
            return
        position, messages = begin(self.wanted, found)
        if position.done:
            return
        log.info("source %s plays %s from frame %d on", self.wanted.name, self.wanted.shown, position.index + 1)
        with closing(Capture(self.wanted, position)) as capture:
            while not self._stopped.is_set() and not position.done:
                batch = self._gather(capture, out, Batch(position, messages))
                if batch.position != position and not self._stopped.is_set():
                    position, messages = self._commit(out, batch), []

    def _commit(self, out: SourceLog, batch: Batch) -> Position:
        position = out.publish(batch.messages, batch.position)
        self.published(batch)
        if position.done:
            said = [message.message for message in batch.messages if isinstance(message, Notice)][-1:]
            log.info("source %s/%s is over after frame %d%s", self.session, self.view, position.index, "".join(f": {s}" for s in said))
        return position

    def _gather(self, capture: Capture, out: SourceLog, batch: Batch) -> Batch:
        """What came within BATCH_S of the first item, as much as there is room for."""
        item, most, until = capture.take(LOOK_S), BATCH_ITEMS, time.monotonic() + BATCH_S
        if isinstance(item, Shot) and not item.live:
            most = self._room(out, batch.position.offset)
            until = time.monotonic() + BATCH_S
        while item is not None:
            add(batch, item, self.wanted, out.largest)
            most -= 1
            if batch.position.done or most <= 0:
                break
            item = capture.take(max(0.0, until - time.monotonic()))
        return batch

    def _room(self, out: SourceLog, offset: int) -> int:
        """How many frames of a file may go into the log; waits until that is at least one."""
        while (room := MAX_AHEAD - self.backlog.ahead(out.partition, offset)) <= 0 and not self._stopped.wait(LOOK_S):
            pass
        return min(room, BATCH_ITEMS)


def begin(wanted: Wanted, found: Position) -> tuple[Position, list[End | Notice]]:
    """Where a run starts, and what is to be said before its first frame, given where the source was found.

    A file that another run takes the place of is ended: what was tracked in it is nothing to the next. A live view goes on.
    """
    if found.run == wanted.run:
        return found, []
    was_file = found.connection == 0
    ended = [End(wanted.session, wanted.view)] if was_file and found.index >= 0 and not found.done else []
    t_ns = None if was_file else found.t_ns
    return replace(found, run=wanted.run, taken=0, t_ns=t_ns, pts_ns=None, connection=0, done=False), ended


def add(batch: Batch, item: Item, wanted: Wanted, largest: int) -> None:
    """Put an item of a run into a batch: what it says, and where it brings the source. largest: bytes that the log takes."""
    if batch.position.taken == 0 and wanted.prompts and not isinstance(item, Over | Gap):
        first = item.index if isinstance(item, Shot) else item.last + 1
        batch.messages.append(Prompt(FrameKey(wanted.session, wanted.view, first), wanted.run, wanted.prompts))
    match item:
        case Shot():
            _add_shot(batch, item, wanted, largest)
        case Gap(index, message):
            batch.messages.append(_notice(NoticeKind.GAP, wanted, index, message))
        case Dropped(first, last):
            batch.messages.append(_notice(NoticeKind.DROPPED, wanted, first, item.message))
            batch.dropped += last - first + 1
            batch.position = replace(batch.position, index=last, taken=batch.position.taken + last - first + 1)
        case Over():
            _add_end(batch, item, wanted)


def _add_shot(batch: Batch, shot: Shot, wanted: Wanted, largest: int) -> None:
    try:
        size_hw, data = shot.encode()
    except SourceFailed as failed:  # a picture file that is none; the folder ends here, as a damaged video does
        _add_end(batch, Over(str(failed), live=False), wanted)
        return
    frame = Frame(FrameKey(wanted.session, wanted.view, shot.index), shot.t_ns, shot.live, size_hw, data)
    if (size := len(pack(frame))) <= largest:
        batch.messages.append(frame)
    else:
        said = f"frame {shot.index} dropped: it has {size} bytes, the topic of the frames takes {largest}; raise its max.message.bytes"
        batch.messages.append(_notice(NoticeKind.DROPPED, wanted, shot.index, said))
        batch.dropped += 1
    batch.position = replace(
        batch.position, index=shot.index, taken=shot.taken, t_ns=shot.t_ns, pts_ns=shot.pts_ns, connection=shot.connection
    )


def _add_end(batch: Batch, over: Over, wanted: Wanted) -> None:
    """A file that is over, whole or damaged, ends its view; of a live one the objects are kept, for when it comes back."""
    if over.reason:
        batch.messages.append(_notice(NoticeKind.SOURCE_GONE, wanted, None, over.reason))
    if not over.live:
        batch.messages.append(End(wanted.session, wanted.view))
    batch.position = replace(batch.position, done=True)


def _notice(kind: NoticeKind, wanted: Wanted, index: int | None, message: str) -> Notice:
    return Notice(kind, wanted.session, wanted.view, index, message)

"""Capture: an input played in a thread of its own, reconnected as needed, its pictures and its news in one bounded queue.

A file waits for whoever takes: nothing is lost. A live input waits for nobody: the newest pictures are kept, the number of those left out
stands in their place. Nothing here is published or remembered over the end of the process: kafka_sources.py. Decoding is video.py's.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, takewhile

from .errors import SourceFailed
from .sources import open_input
from .url import waits
from .video import Access, Encoded, Opened, Picture
from .wanted import Position, Sampling, Wanted

log = logging.getLogger(__name__)

KEPT = 16  # pictures that wait to be taken: half a second, as decoded 1080p 50 MB
GAPS_KEPT = 8  # among dropped pictures, when a camera comes and goes while the log takes nothing
SILENCE_S = {"rtsp": 5.0, "rtsps": 5.0}  # of a stalled camera; FFmpeg notices after once or twice as long
PATIENCE_S = 30.0  # of any other input: an HLS playlist brings nothing between two segments
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # before a reconnection
REPLAY_NS = 30 * 10**9  # as much as a playlist plays again
STEP_NS = 1_000_000  # at least, between two pictures
CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture to publish, as the index-th frame of its view and the taken-th of its run."""

    index: int
    taken: int
    t_ns: int
    pts_ns: int | None
    live: bool
    connection: int
    encode: Callable[[], Encoded]


@dataclass(frozen=True, slots=True)
class Gap:
    """Pictures that nobody saw are missing before this frame, and why."""

    index: int
    message: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """These frames came faster than they were taken, and will never come."""

    first: int
    last: int

    @property
    def message(self) -> str:
        """In words, for a Notice."""
        return f"{self.last - self.first + 1} frames dropped, {self.first} to {self.last}: they came faster than they could be published"


@dataclass(frozen=True, slots=True)
class Over:
    """The last item: nothing more comes of this run. reason: what went wrong, "" for an ordinary end; live: whether it could come back."""

    reason: str
    live: bool


Item = Shot | Gap | Dropped | Over


class Capture:
    """The pictures of a wanted source from a position on: `take` them one by one, `close` it in the end.

    index: of a Shot, counted over the pictures its sampling takes: one that is missing was dropped, and a News says so.
    """

    def __init__(self, wanted: Wanted, position: Position) -> None:
        self.wanted = wanted
        self._index, self._connection = position.index + 1, position.connection
        self._taken = position.taken if position.run == wanted.run else 0
        self._last = position  # t_ns and pts_ns of the last picture
        self._items: list[Item] = []
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {wanted.name}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> Item | None:
        """The next item in order; None when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._items, timeout_s)
            item = self._items.pop(0) if self._items else None
            self._changed.notify_all()
        return item

    def close(self) -> None:
        """Stop. A thread that waits for the network ends with that wait, and gives nothing out any more."""
        self._closed.set()
        with self._changed:
            self._items.clear()
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        over = self._play()
        if over is not None:
            self._put(over)

    def _play(self) -> Over | None:
        """Open the input, again and again if need be, until it has ended or been given up; None: closed."""
        can_return = waits(self.wanted.url)
        waits_s, alive, broke, live = pauses(), time.monotonic(), "", can_return
        while not self._closed.is_set():
            before = self._index
            try:
                opened = open_input(self.wanted.url, Access(self.wanted.transport, self._silence_s()))
                live = opened.live
                self._play_once(opened, broke)
                if not live:
                    return Over("", live)
                why = "it ended"
            except SourceFailed as failed:
                why = str(failed)
            except Exception as error:  # of a library, whatever a camera sent it; its text may repeat the URL
                log.debug("source %s", self.wanted.name, exc_info=True)
                why = f"{self.wanted.shown} cannot be read ({type(error).__name__})"
            if not can_return:
                return Over(why, live)
            if self._index > before:
                waits_s, alive, broke = pauses(), time.monotonic(), why
            if (gone_s := time.monotonic() - alive) > self.wanted.give_up_s:
                return Over(f"given up after {gone_s:.0f} s without a picture: {why}", live)
            pause_s = next(waits_s)
            log.warning("source %s: %s; next try in %.1f s", self.wanted.name, why, pause_s)
            self._closed.wait(pause_s)
        return None

    def _silence_s(self) -> float:
        return SILENCE_S.get(self.wanted.url.split("://")[0].lower(), PATIENCE_S)

    def _play_once(self, opened: Opened, why: str) -> None:
        """Put every picture of one opening that is taken and was not before. Raises SourceFailed."""
        try:
            sampling = Sampling(self.wanted.every, self.wanted.max_fps)
            pictures = takewhile(lambda _: not self._closed.is_set(), opened.pictures)
            taken = (picture for picture in pictures if sampling.takes(picture.t_ns))
            if opened.live or self._connection:  # a playlist that was live may be a film when it is opened again
                self._put_live(taken, opened, why)
            else:
                self._put_file(taken)
        finally:
            opened.close()

    def _put_file(self, taken: Iterator[Picture]) -> None:
        """A file is played from its start: what was taken of it before is passed over, without being encoded."""
        for picture in islice(taken, self._taken, None):
            self._put_shot(picture, picture.t_ns + self.wanted.offset_ns, live=False)

    def _put_live(self, taken: Iterator[Picture], opened: Opened, why: str) -> None:
        first = next(taken, None)
        if first is None:
            return
        shift_ns, goes_on = shift_of(first, self._last, opened.bursts, self.wanted.offset_ns)
        announced, repeated = False, 0
        self._connection += 1
        for picture in chain([first], taken):
            if not opened.bursts:  # FFmpeg collects for 1 to 2 s before it gives out the first packet: no picture is later than it arrived
                shift_ns -= max(0, picture.t_ns + shift_ns - time.time_ns() - self.wanted.offset_ns)
            t_ns = picture.t_ns + shift_ns
            if not announced and goes_on and t_ns < self._last.t_ns + STEP_NS:
                repeated += 1
                continue
            if not announced:
                self._announce(t_ns, why, repeated)
                announced = True
            if opened.live and opened.bursts:
                self._pace(t_ns)
            self._put_shot(picture, t_ns if self._last.t_ns is None else max(t_ns, self._last.t_ns + STEP_NS), live=True)

    def _announce(self, t_ns: int, why: str, repeated: int) -> None:
        """Say what is missing before the first picture of another connection."""
        if self._last.t_ns is None:
            return
        gone_s = (t_ns - self._last.t_ns) / 1e9
        again = f", {repeated} pictures that came again are left out" if repeated else ""
        because = why or "another run or worker took over"
        self._put(
            Gap(self._index, f"{gone_s:.1f} s are missing before frame {self._index} (connection {self._connection}{again}): {because}")
        )

    def _pace(self, t_ns: int) -> None:
        """A segment comes at once: its pictures are given out at their time, else most of them would be dropped."""
        ahead_s = (t_ns - self.wanted.offset_ns - time.time_ns()) / 1e9
        if 0 < ahead_s < PATIENCE_S:
            self._closed.wait(ahead_s)

    # -- the queue -----------------------------------------------------------------------------------------------------

    def _put_shot(self, picture: Picture, t_ns: int, live: bool) -> None:
        self._taken += 1
        self._last = Position("", "", t_ns=t_ns, pts_ns=picture.pts_ns)
        shot = Shot(self._index, self._taken, t_ns, picture.pts_ns, live, self._connection, picture.encode)
        self._index += 1
        self._put(shot)

    def _put(self, item: Item) -> None:
        with self._changed:
            if isinstance(item, Shot) and sum(isinstance(i, Shot) for i in self._items) >= KEPT:
                if item.live:
                    self._items = without_oldest(self._items)
                else:
                    self._changed.wait_for(lambda: len(self._items) < KEPT or self._closed.is_set())
            if not self._closed.is_set():
                self._items.append(item)
            self._changed.notify_all()


def shift_of(first: Picture, last: Position, bursts: bool, offset_ns: int) -> tuple[int, bool]:
    """Nanoseconds to add to the clock of a live connection, by its first picture, and whether its stamps go on from the last ones.

    Stamps of a playlist go on when it is opened again, and its last pictures come once more. All other stamps start anew: the connection
    is placed by the host's clock, behind the last picture. Stamps that went back by more than a playlist holds, or forth by more than
    the host's clock did, are of another playlist; one that started anew within REPLAY_NS of its first start is not told from a repetition.
    """
    at_ns = first.t_ns + offset_ns
    if last.t_ns is None:
        return offset_ns, False
    if bursts and first.pts_ns is not None and last.pts_ns is not None:
        forth_ns = first.pts_ns - last.pts_ns
        if -REPLAY_NS <= forth_ns <= max(0, at_ns - last.t_ns) + REPLAY_NS:
            return last.t_ns + forth_ns - first.t_ns, True
    return max(at_ns, last.t_ns + STEP_NS) - first.t_ns, False


def without_oldest(items: list[Item]) -> list[Item]:
    """The queue without its oldest picture, which is counted in its place; of the gaps among those dropped the last ones stay."""
    at = next(i for i, item in enumerate(items) if isinstance(item, Shot))
    first = min([items[at].index, *(item.first for item in items[:at] if isinstance(item, Dropped))])
    gaps = [item for item in items[:at] if isinstance(item, Gap)]
    return [Dropped(first, items[at].index), *gaps[-GAPS_KEPT:], *items[at + 1 :]]


def pauses() -> Iterator[float]:
    """Seconds before each further try: twice as long each time up to a limit, and never in step with other sources."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.7, 1.3)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

"""The files of a subscriber: what `run` writes of a session's answers, and an overlay, its pictures read beside the answers.

Pictures come from topic `frames` for as long as they are kept there. Which answers are written is masks.py's business, how a frame is
painted stream/paint.py's.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

from ..stream.bus import FRAMES, Record
from ..stream.codec import Kind, unpack
from ..stream.errors import BadRecord
from ..stream.kafka_client import Cluster
from ..stream.kafka_tail import Tail
from ..stream.pictures import MAX_PIXELS
from ..stream.sinks import JsonLinesSink, OverlaySink, PaletteSink
from ..stream.types import Frame, MaskFrame
from .run_files import LINES, MASKS, folder_of

TIMED_FRAMES = 10  # that tell the rate of a video
FPS, FPS_RANGE = 25.0, (1.0, 240.0)  # of a video of a single frame; of any


class Files:
    """Everything that is written of a session.

    view: of this alone, whose pictures then lie directly in masks/; out, overlay: where to, None: not at all; note: takes what a user
    should know. Painted are the sizes a picture may have, not any that a header claims.
    """

    def __init__(
        self, pictures_of: Callable[[str], Pictures], view: str | None, out: Path | None, overlay: Path | None, note: Callable[[str], None]
    ) -> None:
        self.pictures_of, self.view, self.out, self.video, self.note = pictures_of, view, out, overlay, note
        self.gone = 0  # frames drawn on black, their pictures deleted
        self.lines = JsonLinesSink(out / LINES) if out else None
        self.palettes: dict[str, PaletteSink] = {}
        self.overlay: Overlay | None = None
        self._said: set[str] = set()

    def write(self, masks: MaskFrame) -> None:
        """Write one answer everywhere."""
        if self.lines:
            self.lines.write(None, masks)
        if not 0 < math.prod(masks.size_hw) <= MAX_PIXELS:
            self._say_once("size", f"frame {masks.key} says it is {masks.size_hw} (height, width): such frames are not painted")
            return
        if self.out:
            self._palette(masks.key.view).write(None, masks)
        if self.video:
            self._overlay(masks)

    def close(self) -> None:
        """Finish every file."""
        with ExitStack() as stack:
            for sink in (self.lines, self.overlay):
                if sink is not None:
                    stack.enter_context(closing(sink))

    def _palette(self, view: str) -> PaletteSink:
        if view not in self.palettes:
            folder = self.out / MASKS
            self.palettes[view] = PaletteSink(folder if self.view is not None else folder / folder_of(view))
        return self.palettes[view]

    def _overlay(self, masks: MaskFrame) -> None:
        if self.overlay is None:
            self.overlay = Overlay(self.video, self.pictures_of(masks.key.view))
        if masks.key.view != self.overlay.pictures.view:
            shown = self.overlay.pictures.view
            self._say_once("view", f"the overlay shows view {shown!r}, the first to be answered; choose another with --view")
        elif not self.overlay.write(masks):
            self.gone += 1
            self._say_once("gone", f"frame {masks.key} is not in the log any more: the masks of such frames are drawn on black")

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self.note(text)


class Overlay:
    """An overlay video whose rate is told by its first frames: these are held back until it is known."""

    def __init__(self, path: Path, pictures: Pictures) -> None:
        self.path, self.pictures = path, pictures
        self._waiting: list[tuple[Frame | None, MaskFrame]] = []
        self._sink: OverlaySink | None = None

    def write(self, masks: MaskFrame) -> bool:
        """Take the next answer; whether there was a picture for it."""
        frame = self.pictures.of(masks)
        if self._sink is not None:
            self._sink.write(frame, masks)
        else:
            self._waiting.append((frame, masks))
            if len(self._waiting) == TIMED_FRAMES:
                self._open()
        return frame is not None

    def close(self) -> None:
        """Finish the file. May be called twice."""
        self.pictures.close()
        if self._waiting:
            self._open()
        if self._sink is not None:
            self._sink.close()

    def _open(self) -> None:
        self._sink = OverlaySink(self.path, fps_of([masks.t_ns for _, masks in self._waiting]))
        waiting, self._waiting = self._waiting, []
        for frame, masks in waiting:
            self._sink.write(frame, masks)


class Pictures:
    """The frames of a view, walked along with their answers: both topics hold a session in one order.

    Frames without an answer are passed over, answers without a frame get none. A session whose name was used twice, read from an offset of
    its second life on, gets the pictures of its first where both have the same times. Raises what Tail raises.
    """

    def __init__(self, cluster: Cluster, session: str, view: str) -> None:
        self.session, self.view = session, view
        self._tail = Tail(cluster, FRAMES, session)
        self._polled: deque[Frame] = deque()

    def of(self, masks: MaskFrame) -> Frame | None:
        """The frame an answer is about; None: it is not kept any more."""
        wanted = (masks.t_ns, masks.key.index)
        while self._polled or self._poll():
            at = (self._polled[0].t_ns, self._polled[0].key.index)
            if at > wanted:
                return None
            frame = self._polled.popleft()
            if at == wanted:
                return frame
        return None

    def close(self) -> None:
        """Let go of the broker. May be called twice."""
        self._tail.close()

    def _poll(self) -> bool:
        """Read on until there is a frame, or no more: one that was answered is in the log already."""
        ends = self._tail.ends()
        while not self._polled and self._tail.positions != ends:
            self._polled.extend(frame for record in self._tail.poll(1.0) if (frame := self._frame(record)))
        return bool(self._polled)

    def _frame(self, record: Record) -> Frame | None:
        if record.key != self.session or record.kind != Kind.FRAME:
            return None
        try:
            frame = unpack(record.kind, record.data or b"")
        except BadRecord:
            return None  # answered as refused
        return frame if frame.key.view == self.view else None


def fps_of(times_ns: list[int]) -> float:
    """Frames per second of a video from its first capture times: by the middle one of their distances."""
    steps = [after - before for before, after in pairwise(times_ns) if after > before]
    low, high = FPS_RANGE
    return min(max(1e9 / statistics.median(steps), low), high) if steps else FPS

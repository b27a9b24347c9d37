"""The overlay of several views: one video, the views beside each other, joined by capture time.

A row of panels of one height; each shows the latest frame of its view under its masks and the view's name, or is dark where the view has
not begun, has ended or fell silent. How a frame is painted is paint.py's, the video itself sinks.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import Undecodable
from .paint import overlay, titled
from .sinks import VideoWriter
from .types import Frame, MaskFrame

HIGHEST, WIDEST = 720, 3840  # pixels of the row: what players and screens take
GAP_PX = 4  # between two panels
SILENT_S = 0.5  # a picture is shown no longer, or for two of its view's periods where those are longer
LONGEST_STILL_S = 1.0  # a time in which no view has a frame is cut to this


@dataclass(frozen=True, slots=True)
class Shape:
    """What the pictures of a view are like: (H, W) of the first, and how many come a second."""

    size_hw: tuple[int, int]
    fps: float


@dataclass(slots=True)
class _Panel:
    """Where a view is shown. dark: the panel without a picture; lasts_ns: how long a picture is shown; t_ns: of the latest one."""

    size_hw: tuple[int, int]
    dark: np.ndarray
    lasts_ns: float
    picture: np.ndarray | None = None
    t_ns: int = 0

    def at(self, t_ns: float) -> np.ndarray:
        """What is shown at a capture time."""
        return self.dark if self.picture is None or t_ns - self.t_ns > self.lasts_ns else self.picture


class SideBySideSink:
    """Takes the frames of all views with their answers, by capture time, and writes an H.264 mp4 at the rate of the fastest view.

    Each frame is shown at that time of the video which is nearest to its own. views: in the order of the panels.
    """

    def __init__(self, path: Path | str, views: Mapping[str, Shape]) -> None:
        self._fps = max(shape.fps for shape in views.values())
        self._period_ns = 1e9 / self._fps
        self._video = VideoWriter(path, self._fps)
        self._panels: dict[str, _Panel] = {}
        for view, size_hw in panels({view: shape.size_hw for view, shape in views.items()}).items():
            dark = titled(np.zeros((*size_hw, 3), np.uint8), f"{view}: no picture")
            self._panels[view] = _Panel(size_hw, dark, max(SILENT_S, 2 / views[view].fps) * 1e9)
        self._start_ns: int | None = None
        self._shown = 0  # pictures of the video so far

    def write(self, frame: Frame | None, mask_frame: MaskFrame) -> None:
        """Paint a frame into the panel of its view, after all that was to be shown before it. None: its picture is gone, and black."""
        self._show_until(mask_frame.t_ns)
        panel = self._panels[mask_frame.key.view]
        try:
            image = np.zeros((*mask_frame.size_hw, 3), np.uint8) if frame is None else frame.pixels()
        except Undecodable:
            image = None
        panel.picture = titled(overlay(image, mask_frame, panel.size_hw), mask_frame.key.view)
        panel.t_ns = mask_frame.t_ns

    def close(self) -> None:
        """Show what came last and finish the file; without a frame there is none. May be called twice."""
        if self._start_ns is not None:
            self._show()
            self._start_ns = None
        self._video.close()

    def _show_until(self, t_ns: int) -> None:
        """Write every picture whose time is over when a frame of t_ns comes."""
        if self._start_ns is None:
            self._start_ns = t_ns
        over = math.floor((t_ns - self._start_ns) / self._period_ns + 0.5)  # pictures before the one this frame belongs to
        still = max(1, math.ceil(LONGEST_STILL_S * self._fps))
        if over - self._shown > still:
            self._start_ns += round((over - self._shown - still) * self._period_ns)
            over = self._shown + still
        for _ in range(over - self._shown):
            self._show()

    def _show(self) -> None:
        t_ns = self._start_ns + self._shown * self._period_ns
        self._video.write(_row([panel.at(t_ns) for panel in self._panels.values()]))
        self._shown += 1


def panels(sizes_hw: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Height and width of each view's panel: one height, aspects kept, as high as the highest view if the row stays within bounds."""
    aspects = [width / height for height, width in sizes_hw.values()]
    room = WIDEST - GAP_PX * (len(aspects) - 1)
    height = max(1, min(HIGHEST, max(h for h, _ in sizes_hw.values()), math.floor(room / sum(aspects))))
    return {view: (height, max(1, round(aspect * height))) for view, aspect in zip(sizes_hw, aspects, strict=True)}


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    gap = np.full((len(pictures[0]), GAP_PX, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)

"""Drawings of a report as inline SVG: measures over the frames of a sequence, and where the time of a frame goes.

Numbers in, markup out; colours are classes of the page's style sheet (templates/base.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

WIDE, NARROW = 1040, 510  # of a chart that has its page's width, and of one of two side by side; a unit is about a pixel
LEFT, RIGHT, TOP = 30, 6, 10
PLOT, STRIP, AXIS = 130, 7, 20  # heights: of the lines, of the band of statuses, of the frame names
TICK = 80  # width a frame's name needs


@dataclass(frozen=True, slots=True)
class Line:
    """One measure over the scored frames, 0..1: its name in words, and its class."""

    name: str
    kind: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the frames of a sequence.

    frames: the names of all; lines: of the scored ones, which are all but the first and the last; marks: a letter at a frame's index;
    statuses: seen, carried or absent for every frame (or none), drawn as a band below.
    """

    frames: Sequence[str]
    lines: Sequence[Line]
    marks: Mapping[int, str]
    statuses: Sequence[str] = ()
    width: int = WIDE

    def svg(self) -> Markup:
        """The drawing."""
        height = TOP + PLOT + (STRIP + 4 if self.statuses else 0) + AXIS
        parts = [*self._grid(), *self._ticks(height)]
        parts += [f'<polyline class="line {line.kind}" points="{self._points(line.values)}"/>' for line in reversed(self.lines)]
        for index, letter in self.marks.items():
            x, y = self._x(index + 0.5), _y(self.lines[0].values[index - 1])
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
            parts.append(f'<text class="letter" x="{x:.1f}" y="{y + 3.5:.1f}">{letter}</text>')
        parts += [*self._band(), *self._tips(height)]
        return Markup(f'<svg class="chart" viewBox="0 0 {self.width} {height}" role="img">{"".join(parts)}</svg>')

    def _x(self, frame: float) -> float:
        return LEFT + (self.width - LEFT - RIGHT) * frame / len(self.frames)

    def _points(self, values: Sequence[float]) -> str:
        return " ".join(f"{self._x(index + 0.5):.1f},{_y(value):.1f}" for index, value in enumerate(values, start=1))

    def _grid(self) -> list[str]:
        return [
            f'<line class="grid" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{_y(share):.1f}" y2="{_y(share):.1f}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{_y(share) + 3.5:.1f}" text-anchor="end">{100 * share:.0f}</text>'
            for share in (0, 0.5, 1)
        ]

    def _ticks(self, height: int) -> list[str]:
        """Names of some frames, evenly spaced."""
        most = (self.width - LEFT) // TICK
        step = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, 250, 500, 1000, len(self.frames)) if len(self.frames) / step <= most)
        return [
            f'<text class="axis" x="{self._x(index + 0.5):.1f}" y="{height - 4}" text-anchor="middle">{escape(self.frames[index])}</text>'
            for index in range(0, len(self.frames), step)
        ]

    def _band(self) -> list[str]:
        """Neighbouring frames of one status as one piece."""
        drawn, start = [], 0
        for status, group in groupby(self.statuses):
            end = start + len(list(group))
            width = self._x(end) - self._x(start)
            drawn.append(
                f'<rect class="{escape(status)}" x="{self._x(start):.1f}" y="{TOP + PLOT + 6}" width="{width:.1f}" height="{STRIP}"/>'
            )
            start = end
        return drawn

    def _tips(self, height: int) -> list[str]:
        """What a frame says when pointed at."""
        width, drawn = self._x(1) - self._x(0), []
        for index in range(1, len(self.frames) - 1):
            said = ", ".join(f"{line.name} {100 * line.values[index - 1]:.1f}" for line in self.lines)
            status = f", {self.statuses[index]}" if self.statuses else ""
            drawn.append(
                f'<rect class="tip" x="{self._x(index):.1f}" y="0" width="{width:.1f}" height="{height}">'
                f"<title>{escape(self.frames[index])}: {said}{escape(status)}</title></rect>"
            )
        return drawn


def _y(value: float) -> float:
    return TOP + PLOT * (1 - value)


def spark(values: Sequence[float], width: int = 90, height: int = 22) -> Markup:
    """A line without axes, for a table: values 0..1 from left to right."""
    step = width / max(1, len(values) - 1)
    points = " ".join(f"{step * n:.1f},{1 + (height - 2) * (1 - value):.1f}" for n, value in enumerate(values))
    return Markup(
        f'<svg class="spark" width="{width}" height="{height}" viewBox="0 0 {width} {height}"><polyline points="{points}"/></svg>'
    )


def stacked(parts: Mapping[str, float], unit: str) -> Markup:
    """One bar, cut into named parts in proportion; each says its value when pointed at."""
    total, x, drawn = sum(parts.values()) or 1.0, 0.0, []
    for number, (name, value) in enumerate(parts.items()):
        width = WIDE * value / total
        tip = f"<title>{escape(name)}: {value:.1f} {unit}</title>"
        drawn.append(f'<rect class="part p{number}" x="{x:.1f}" width="{width:.1f}" height="26">{tip}</rect>')
        if width > 8 * len(name):
            drawn.append(f'<text class="inside" x="{x + width / 2:.1f}" y="17.5">{escape(name)}</text>')
        x += width
    return Markup(f'<svg class="bar" viewBox="0 0 {WIDE} 26" role="img">{"".join(drawn)}</svg>')

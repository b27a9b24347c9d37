"""Scoring Ego-Exo4D predictions by the official rules, with the corrected measure beside each trap.

Which frames count, what is compared on them, and how the values are averaged. Measures are metrics.py's, the prediction file is
predictions.py's, showing results report.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from ...stream.rle import decode
from .ask import resized
from .data import Pair, Take, pairs, scoring_size
from .metrics import (
    EXISTS,
    balanced_accuracy,
    centroid_error,
    contour_accuracy,
    intersection_over_union,
    location_error,
    registered_contour_accuracy,
)
from .predictions import predicted_rle

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Scored:
    """One object on one frame of one pair of cameras.

    exists: whether the truth has a mask there; the measures are NaN where it has none. ca_registered and le_centroid are the documented
    measures, the others the official code's.
    """

    take: str
    name: str
    query: str
    target: str
    frame: int
    exists: bool
    confidence: float
    iou: float = NAN
    ca: float = NAN
    le: float = NAN
    ca_registered: float = NAN
    le_centroid: float = NAN


@dataclass(frozen=True, slots=True)
class Figures:
    """The scores of one direction, or of one take of it. NaN where nothing could be measured.

    frames: object frames scored; visible: those of them with the object in view, over which iou, ca and le are averaged.
    """

    frames: int
    visible: int
    iou: float
    ca: float
    le: float
    ba: float
    existence: float
    ca_registered: float
    le_centroid: float


MEASURES = {
    "iou": "IoU",
    "ca": "CA",
    "le": "LE",
    "ba": "BA of existence",
    "existence": "existence right",
    "ca_registered": "CA as documented",
    "le_centroid": "LE as documented",
}
EXPLAINED = (
    "The official code takes CA of the masks where they are and LE of the middles of their boxes over 678.8 px. As documented: CA of masks "
    "that were registered by their centroids, LE of centroids over the frame's own diagonal."
)


def score_take(take: Take, predicted: Mapping[str, object], direction: str) -> Iterator[Scored]:
    """Every object frame of a take that counts: query mask in one camera, and somebody looked for the object in the other.

    predicted: the take's part of a prediction file that was found complete. A true mask that cannot be decoded (null) is not counted: there
    is nothing to compare with, and the official code has no rule for it. Raises BadInput for a truth without annotated_frames.
    """
    for pair in pairs(take, direction):
        looked_at = take.looked_at(pair.name, pair.target)
        for frame in (f for f in take.masks[pair.name][pair.query] if f in looked_at):
            exists = frame in take.masks[pair.name][pair.target]
            truth = take.mask(pair.name, pair.target, frame)
            if exists and truth is None:
                continue
            answer = predicted["masks"][pair.name][pair.key][str(frame)]
            where = (take.uid, pair.name, pair.query, pair.target, frame, exists, float(answer["confidence"]))
            if not exists:
                yield Scored(*where)
                continue
            true_mask = resized(decode(truth), scoring_size(truth.size_hw))
            yield Scored(*where, *measures(true_mask, decode(predicted_rle(answer))))


def measures(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float, float, float, float]:
    """IoU, CA and LE of the official code, then CA and LE as documented, of two masks of scoring size, bool [H, W]."""
    rules = (intersection_over_union, contour_accuracy, location_error, registered_contour_accuracy, centroid_error)
    return tuple(rule(truth, answer) for rule in rules)


def score(takes: Sequence[Take], results: Mapping[str, Mapping], direction: str, advance: Callable[[], None]) -> list[Scored]:
    """Score all takes of one direction; `advance` is called after each."""
    scored: list[Scored] = []
    for take in takes:
        scored += score_take(take, results[take.uid], direction)
        advance()
    return scored


def figures(scored: Sequence[Scored]) -> Figures:
    """The official averages: over every object frame alike, so that long takes and rigs of many cameras weigh most."""
    exists = np.array([s.exists for s in scored], bool)
    confidence = np.array([s.confidence for s in scored], float)
    visible = [s for s in scored if s.exists]
    existence = float(np.mean((confidence > EXISTS) == exists)) if len(scored) else NAN
    mean = {name: _mean([getattr(s, name) for s in visible]) for name in ("iou", "ca", "le", "ca_registered", "le_centroid")}
    return Figures(len(scored), len(visible), **mean, ba=balanced_accuracy(exists, confidence), existence=existence)


def by_take(scored: Sequence[Scored]) -> dict[str, Figures]:
    """The figures of each take alone."""
    groups: dict[str, list[Scored]] = {}
    for s in scored:
        groups.setdefault(s.take, []).append(s)
    return {uid: figures(group) for uid, group in groups.items()}


def mean_of_takes(takes: Sequence[Figures]) -> Figures:
    """Every figure averaged over takes, each weighing the same; a take where it could not be measured is left out of its mean."""
    values = {f.name: [getattr(take, f.name) for take in takes] for f in fields(Figures) if f.name in MEASURES}
    means = {name: _mean([v for v in found if not math.isnan(v)]) for name, found in values.items()}
    return Figures(sum(take.frames for take in takes), sum(take.visible for take in takes), **means)


def undecodable(take: Take, direction: str) -> int:
    """How many true masks of a take cannot be decoded and are therefore not counted."""
    return sum(_is_null(take, pair, frame) for pair in pairs(take, direction) for frame in take.masks[pair.name][pair.query])


def rows(scored: Sequence[Scored]) -> Iterator[tuple]:
    """The object frames as lines of a table, the names of its columns first."""
    yield tuple(f.name for f in fields(Scored))
    yield from map(astuple, scored)


def _is_null(take: Take, pair: Pair, frame: int) -> bool:
    truths = take.masks[pair.name][pair.target]
    return frame in truths and take.mask(pair.name, pair.target, frame) is None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else NAN

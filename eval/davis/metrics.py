"""DAVIS-2017 semi-supervised scores: region similarity J, boundary measure F, their mean, recall and decay, and J&F.

Per frame, per object, per sequence and over a data set, by the rules of the official scorer, so that its figures come out again.
Label maps go in (0 background, 1..n objects), numbers come out; files are layout.py's and results.py's, Ego-Exo4D is egoexo/metrics.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

import cv2
import numpy as np

from ...stream.errors import BadInput

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal
RECALL_THRESHOLD = 0.5  # strict
VOID = 255  # in a ground truth map; scored as background


@dataclass(frozen=True, slots=True)
class Statistic:
    """One measure over the scored frames: mean, recall (share of frames above 0.5) and decay (mean of first quarter - mean of last).

    decay is the official one, whose quarter edges are kept in 8 bits; decay_corrected has the true edges (see `decay`).
    """

    mean: float
    recall: float
    decay: float
    decay_corrected: float


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """J and F of one object on every scored frame, float64 [N], and their statistics."""

    object_id: int
    j_frames: np.ndarray = field(repr=False)
    f_frames: np.ndarray = field(repr=False)
    j: Statistic
    f: Statistic


@dataclass(frozen=True, slots=True)
class Score:
    """J and F averaged over objects: of one sequence, or of a data set."""

    objects: tuple[ObjectScore, ...]
    j: Statistic
    f: Statistic

    @property
    def jf(self) -> float:
        """J&F: the mean of mean J and mean F."""
        return (self.j.mean + self.f.mean) / 2


def jaccard(truth: np.ndarray, answer: np.ndarray) -> float:
    """Region similarity J of two masks, bool [H, W]: intersection over union, 1 when both are empty."""
    union = np.count_nonzero(truth | answer)
    return np.count_nonzero(truth & answer) / union if union else 1.0


def boundary_f(truth: np.ndarray, answer: np.ndarray) -> float:
    """Boundary measure F of two masks, bool [H, W]: 2PR / (P + R) of their boundaries.

    P is the share of the answer's boundary within `boundary_radius` pixels of the true one, R the converse. Both boundaries
    empty: 1; one of them empty, or P + R = 0: 0. A mask that fills the whole frame has an empty boundary.
    Source: davis2017-evaluation, semi-supervised; Perazzi et al., CVPR 2016, section 4.
    """
    radius = boundary_radius(truth.shape)
    window = _window(truth | answer, radius + 1)
    true_edge, answer_edge = boundary_map(truth[window]), boundary_map(answer[window])
    n_true, n_answer = np.count_nonzero(true_edge), np.count_nonzero(answer_edge)
    if n_true == 0 or n_answer == 0:
        return float(n_true == n_answer)
    disk = _disk(radius)
    precision = np.count_nonzero(answer_edge & cv2.dilate(true_edge, disk)) / n_answer
    recall = np.count_nonzero(true_edge & cv2.dilate(answer_edge, disk)) / n_true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_radius(size_hw: tuple[int, int]) -> int:
    """Tolerance of F in pixels: 0.008 of the image diagonal, rounded up (8 at 480 x 854)."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(*size_hw))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """The one pixel wide boundary of a mask, bool [H, W] -> uint8 [H, W] of 0 and 1.

    A pixel is on it when it differs from its right, its lower or its lower right neighbour; pixels of the last row have only the
    right one, of the last column only the lower one, and the corner has none.
    Source: davis2017-evaluation (the seg2bmap of the Berkeley segmentation benchmark at equal size).
    """
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] != mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge.view(np.uint8)


@lru_cache(maxsize=8)
def _disk(radius: int) -> np.ndarray:
    """Structuring element: every offset at Euclidean distance <= radius."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The mask's bounding box grown by a margin and clipped to the image; nothing outside it can change F."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)


def statistic(frames: np.ndarray) -> Statistic:
    """Mean, recall and decay of one measure over the scored frames, float [N]; all NaN when N = 0."""
    return Statistic(
        mean=_mean(frames),
        recall=_mean(frames > RECALL_THRESHOLD),
        decay=decay(frames, edge_bits=8),
        decay_corrected=decay(frames),
    )


def decay(frames: np.ndarray, edge_bits: int = 32) -> float:
    """Mean over the first quarter of the frames, float [N], minus mean over the last; NaN when a quarter is empty.

    Neighbouring quarters share their edge frame. The official scorer keeps the edges as uint8, so beyond 256 scored frames they wrap
    (N = 300: the last edge is 43 and not 299) and its decay is wrong or NaN; `edge_bits=8` reproduces it.
    Source: davis2017-evaluation, db_statistics.
    """
    edges = np.round(np.linspace(1, len(frames), 5) + 1e-10).astype(int) - 1
    first, first_end, _, last, last_end = (int(edge) % 2**edge_bits for edge in edges)
    return _mean(frames[first : first_end + 1]) - _mean(frames[last : last_end + 1])


def _mean(values: Sequence[float]) -> float:
    """The mean, NaN (without numpy's warning) of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def score_sequence(truth: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> Score:
    """Score one sequence: label maps uint8 [H, W] of every frame, first and last included; those two are not scored.

    Objects are 1..n with n the highest id of the first true map, where 255 (void) counts as background in every true map. An object
    that is never answered scores as empty masks. Raises BadInput when the numbers of frames or the sizes differ, or an answered id
    on a scored frame is beyond n. Source: davis2017-evaluation, semi-supervised.
    """
    if len(truth) != len(answers):
        raise BadInput(f"{len(answers)} answered label maps for {len(truth)} true ones; answer every frame of the sequence")
    for index, (true_map, answer) in enumerate(zip(truth, answers, strict=True)):
        if true_map.shape != answer.shape:
            raise BadInput(f"frame {index}: answered label map is {answer.shape}, the true one {true_map.shape}; answer at source size")
    count = highest_id(truth[0]) if len(truth) else 0
    scored = list(zip(truth, answers, strict=True))[1:-1]
    answered = max((int(answer.max()) for _, answer in scored), default=0)
    if answered > count:
        raise BadInput(f"an answered label map has object id {answered}, the first true map has ids up to {count}; answer with those ids")
    return score_frames(count, scored)


def score_frames(count: int, scored: Iterable[tuple[np.ndarray, np.ndarray]]) -> Score:
    """Score objects 1..count on frames that come one by one, each as its true and its answered label map, uint8 [H, W] of one size."""
    j_frames: list[list[float]] = [[] for _ in range(count)]
    f_frames: list[list[float]] = [[] for _ in range(count)]
    for true_map, answer in scored:
        for object_id in range(1, count + 1):
            pair = true_map == object_id, answer == object_id
            j_frames[object_id - 1].append(jaccard(*pair))
            f_frames[object_id - 1].append(boundary_f(*pair))
    return average([score_object(i, j, f) for i, (j, f) in enumerate(zip(j_frames, f_frames, strict=True), start=1)])


def score_object(object_id: int, j_frames: Sequence[float], f_frames: Sequence[float]) -> ObjectScore:
    """An object's score from its J and F on every scored frame."""
    j, f = np.array(j_frames, float), np.array(f_frames, float)
    return ObjectScore(object_id, j, f, statistic(j), statistic(f))


def highest_id(true_map: np.ndarray) -> int:
    """How many objects a sequence has, by its first true label map, uint8 [H, W]: the highest id that is not void."""
    return int(np.where(true_map == VOID, 0, true_map).max())


def average(objects: Sequence[ObjectScore]) -> Score:
    """The score of a sequence or a data set: every statistic averaged over its *objects* (long sequences weigh no more)."""
    return Score(tuple(objects), _average([o.j for o in objects]), _average([o.f for o in objects]))


def _average(statistics: Sequence[Statistic]) -> Statistic:
    """Each field's mean; an object without frames, or with a NaN decay, makes that field NaN rather than go unnoticed."""
    return Statistic(*(_mean([getattr(s, f.name) for s in statistics]) for f in fields(Statistic)))

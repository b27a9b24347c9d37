"""Ego-Exo4D correspondence scores of one pair of masks, and of a set of existence answers, by the rules of the official scorer.

Masks are at scoring size (long side 480). Which frames are scored, and reading them, is not here.
"""

from __future__ import annotations

import math

import numpy as np

from .metrics import boundary_f

LOCATION_SCALE = math.hypot(480, 480)  # for every frame shape
EXISTS = 0.5  # confidence, strict


def intersection_over_union(truth: np.ndarray, answer: np.ndarray) -> float:
    """IoU of two masks, bool [H, W]; 1 when both are empty. The union is never taken as 0: 1e-7 is added to it."""
    union = np.count_nonzero(truth | answer)
    return np.count_nonzero(truth & answer) / (union + 1e-7) if union else 1.0


def contour_accuracy(truth: np.ndarray, answer: np.ndarray) -> float:
    """CA of two masks, bool [H, W]: the DAVIS boundary measure of the masks where they are.

    Source: the official code. Its documentation says that the masks are first registered by their centroids; the code computes the
    registered crops and does not use them.
    """
    return boundary_f(truth, answer)


def location_error(truth: np.ndarray, answer: np.ndarray) -> float:
    """LE of two masks, bool [H, W]: the distance of their boxes' midpoints over the diagonal of a 480 x 480 frame.

    Midpoints are whole pixels, rounded down. Lower is better. Source: the official code.
    """
    return math.dist(_midpoint(truth), _midpoint(answer)) / LOCATION_SCALE


def _midpoint(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the box's middle. An empty mask is put at (H // 2, W // 2): the official code swaps the axes of the frame's centre."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask.shape[0] // 2, mask.shape[1] // 2
    return int(columns[0] + columns[-1]) // 2, int(rows[0] + rows[-1]) // 2


def balanced_accuracy(exists: np.ndarray, confidence: np.ndarray) -> float:
    """BA of existence answers: bool [N] whether the object is there, float [N] how sure the answer is; NaN when N = 0.

    The mean, over those of the two cases that occur, of the share answered right; an answer says `there` above 0.5.
    """
    right = (confidence > EXISTS) == exists
    shares = [float(np.mean(right[exists == case])) for case in (False, True) if np.any(exists == case)]
    return sum(shares) / len(shares) if shares else math.nan

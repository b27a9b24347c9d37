"""Ego-Exo4D correspondence scores of one pair of masks, and of a set of existence answers, by the rules of the official scorer.

Where its code is not what its documentation says, the documented measure stands beside it: `registered_contour_accuracy`,
`centroid_error`. Masks are at scoring size (long side 480). Which frames are scored is score.py's.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..davis.metrics import boundary_f

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


def registered_contour_accuracy(truth: np.ndarray, answer: np.ndarray) -> float:
    """CA as documented, of two masks, bool [H, W]: their boundary measure once both lie with their centroids in the middle of the frame.

    Moved by whole pixels; what leaves the frame is cut off. An answer's place does not count, only its shape.
    """
    return boundary_f(_centred(truth), _centred(answer))


def location_error(truth: np.ndarray, answer: np.ndarray) -> float:
    """LE of two masks, bool [H, W]: the distance of their boxes' midpoints over the diagonal of a 480 x 480 frame.

    Midpoints are whole pixels, rounded down. Lower is better. Source: the official code.
    """
    return midpoint_distance(truth, answer) / LOCATION_SCALE


def midpoint_distance(truth: np.ndarray, answer: np.ndarray) -> float:
    """Pixels between the middles of two masks' boxes, bool [H, W] each."""
    return math.dist(_midpoint(truth), _midpoint(answer))


def centroid_error(truth: np.ndarray, answer: np.ndarray) -> float:
    """LE as documented, of two masks, bool [H, W]: the distance of their centroids over the frame's own diagonal, 0..1.

    An empty mask is put in the middle of the frame.
    """
    return math.dist(_centroid(truth), _centroid(answer)) / math.hypot(*truth.shape)


def _midpoint(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the box's middle. An empty mask is put at (H // 2, W // 2): the official code swaps the axes of the frame's centre."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask.shape[0] // 2, mask.shape[1] // 2
    return int(columns[0] + columns[-1]) // 2, int(rows[0] + rows[-1]) // 2


def _centroid(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of a mask's pixels, of the frame for an empty one."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return (mask.shape[1] - 1) / 2, (mask.shape[0] - 1) / 2
    return float(columns.mean()), float(rows.mean())


def _centred(mask: np.ndarray) -> np.ndarray:
    """A mask moved so that its centroid is in the middle of the frame."""
    x, y = _centroid(mask)
    height, width = mask.shape
    shift = np.float32([[1, 0, round((width - 1) / 2 - x)], [0, 1, round((height - 1) / 2 - y)]])
    return cv2.warpAffine(mask.view(np.uint8), shift, (width, height), flags=cv2.INTER_NEAREST).view(bool)


def balanced_accuracy(exists: np.ndarray, confidence: np.ndarray) -> float:
    """BA of existence answers: bool [N] whether the object is there, float [N] how sure the answer is; NaN when N = 0.

    The mean, over those of the two cases that occur, of the share answered right; an answer says `there` above 0.5.
    """
    right = (confidence > EXISTS) == exists
    shares = [float(np.mean(right[exists == case])) for case in (False, True) if np.any(exists == case)]
    return sum(shares) / len(shares) if shares else math.nan

"""Arithmetic between binary masks and proposals: how much masks overlap, who owns a pixel, which proposal goes to which object.

Numbers only; what counts as too much overlap is decided by the policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment


def pair_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask of one set with every mask of another: bool [N, H, W], [M, H, W] -> float64 [N, M].

    Two empty masks have 0.
    """
    one, other = _packed(first), _packed(second)
    intersection = np.array([np.bitwise_count(other & bits).sum(axis=1, dtype=np.int64) for bits in one]).reshape(len(one), len(other))
    areas = [np.bitwise_count(bits).sum(axis=1, dtype=np.int64) for bits in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return intersection / np.maximum(union, 1)


def stack(masks: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """Masks of one size as one array, bool [N, H, W]; unlike np.stack it takes none."""
    return np.concatenate([np.zeros((0, *size_hw), bool), *(mask[None] for mask in masks)])


def disjoint(masks: Sequence[np.ndarray], priorities: Sequence[float]) -> list[np.ndarray]:
    """The masks without overlap, bool [H, W] each: a pixel goes to the highest priority that claims it, at a tie to the earlier."""
    order = sorted(range(len(masks)), key=lambda k: (-priorities[k], k))
    answer = list(masks)
    taken = np.zeros_like(masks[0]) if masks else None
    for k in order:
        answer[k] = masks[k] & ~taken
        taken = taken | masks[k]
    return answer


def outlined_by(carried: np.ndarray, proposal: np.ndarray, reach_px: float) -> np.ndarray:
    """The proposal, except within `reach_px` of its outline, where the carried mask says what is inside. All bool [H, W]."""
    inner, outer = _eroded(proposal, reach_px), _dilated(proposal, reach_px)
    return inner | (carried & outer)


def corrected(carried: np.ndarray, proposal: np.ndarray, leap_px: float) -> np.ndarray:
    """The carried mask, its outline moved towards the proposal by at most `leap_px`: nothing appears far outside, no core is lost."""
    return (proposal & _dilated(carried, leap_px)) | _eroded(carried, leap_px)


def best_distinct(worth: np.ndarray) -> list[int | None]:
    """One column a row, no column twice, the sum of their worth the greatest: float [K, N] >= 0 -> K columns.

    None for a row that gets nothing; an entry of 0 is never chosen.
    """
    picks: list[int | None] = [None] * len(worth)
    for row, column in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
        if worth[row, column] > 0:
            picks[row] = int(column)
    return picks


def _packed(masks: np.ndarray) -> np.ndarray:
    return np.packbits(masks.reshape(len(masks), int(np.prod(masks.shape[1:]))), axis=1)


def _eroded(mask: np.ndarray, reach_px: float) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), _disc(reach_px)).astype(bool)


def _dilated(mask: np.ndarray, reach_px: float) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), _disc(reach_px)).astype(bool)


def _disc(reach_px: float) -> np.ndarray:
    radius = round(reach_px)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))

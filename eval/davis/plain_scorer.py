"""The rules of the DAVIS-2017 evaluation by the letter: whole pictures, frame by frame, with numpy and scikit-image.

What metrics.py is checked against and measured against; it shares no code with it. Dilation is scikit-image's fastest exact one by a disk
(its `dilation` with a disk as footprint takes seven times as long).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.morphology import isotropic_dilation


def plain_scores(truth: Sequence[Path], answers: Sequence[Path]) -> dict[int, tuple[list[float], list[float]]]:
    """J and F of every scored frame by object id, from the label PNGs of all frames of a sequence, first and last included."""
    first = np.array(Image.open(truth[0]))
    scores: dict[int, tuple[list[float], list[float]]] = {i: ([], []) for i in range(1, int(first[first != 255].max(initial=0)) + 1)}
    for true_file, answer_file in list(zip(truth, answers, strict=True))[1:-1]:
        true_map, answer_map = np.array(Image.open(true_file)), np.array(Image.open(answer_file))
        for object_id, (j_frames, f_frames) in scores.items():
            true_mask, answer_mask = true_map == object_id, answer_map == object_id
            j_frames.append(region_similarity(true_mask, answer_mask))
            f_frames.append(boundary_accuracy(true_mask, answer_mask))
    return scores


def region_similarity(truth: np.ndarray, answer: np.ndarray) -> float:
    """Intersection over union of two masks, bool [H, W]."""
    union = np.logical_or(truth, answer).sum()
    return 1.0 if union == 0 else float(np.logical_and(truth, answer).sum() / union)


def boundary_accuracy(truth: np.ndarray, answer: np.ndarray) -> float:
    """Harmonic mean of how much of each boundary lies near the other, of two masks, bool [H, W]."""
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    true_edge, answer_edge = one_pixel_boundary(truth), one_pixel_boundary(answer)
    if true_edge.sum() == 0 and answer_edge.sum() == 0:
        return 1.0
    if true_edge.sum() == 0 or answer_edge.sum() == 0:
        return 0.0
    precision = np.logical_and(answer_edge, isotropic_dilation(true_edge, radius)).sum() / answer_edge.sum()
    recall = np.logical_and(true_edge, isotropic_dilation(answer_edge, radius)).sum() / true_edge.sum()
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def one_pixel_boundary(mask: np.ndarray) -> np.ndarray:
    """XOR of a mask, bool [H, W], with its right, lower and lower right neighbour; none of the corner's."""
    right, below, both = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], below[:-1, :], both[:-1, :-1] = mask[:, 1:], mask[1:, :], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ both)
    edge[-1, :], edge[:, -1] = mask[-1, :] ^ right[-1, :], mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge

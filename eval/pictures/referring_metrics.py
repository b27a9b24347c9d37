"""Scores of expressions and of drawn shapes: cIoU and gIoU (RefCOCO, gRefCOCO, interactive), N-acc. and T-acc. (gRefCOCO).

Masks go in, numbers come out, fractions of 1. What is one sample is the caller's choice: PSALM's evaluation asks all sentences of an object
at once and counts them as one, most others count every sentence. Reading files is referring_files.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-5  # PSALM's evaluation adds it to every union


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels that a true mask and an answered one share, that either has, and that each has."""

    shared: int
    either: int
    truth: int
    answer: int


@dataclass(frozen=True, slots=True)
class ReferringScore:
    """Over all samples.

    ciou: sum of shared pixels / sum of pixels in either. giou: mean of each sample's shared / (either + 1e-5), 1 where neither has a pixel,
    which is PSALM's official figure; giou_exact: without the 1e-5. n_acc: share of the samples without a target that are answered by no
    pixel; t_acc: share of those with a target that are answered by any. NaN where there is no such sample.
    """

    samples: int
    without_target: int
    ciou: float
    giou: float
    giou_exact: float
    n_acc: float
    t_acc: float


def overlap(truth: np.ndarray, answer: np.ndarray) -> Overlap:
    """Compare two masks, bool [H, W]."""
    shared, true_area, answered = (int(np.count_nonzero(mask)) for mask in (truth & answer, truth, answer))
    return Overlap(shared, true_area + answered - shared, true_area, answered)


def score(samples: Iterable[Overlap]) -> ReferringScore:
    """The score of all samples, as gRefCOCO defines it; RefCOCO and interactive segmentation are the same without N-acc. and T-acc.

    An expression that nothing answers to is right, with an IoU of 1, exactly when no pixel is answered; its pixels count for cIoU
    otherwise. Source: Liu et al., GRES, CVPR 2023, section 3.2; the 1e-5 of `giou`: PSALM's evaluation.
    """
    samples = list(samples)
    shared, either = (sum(getattr(s, name) for s in samples) for name in ("shared", "either"))
    return ReferringScore(
        samples=len(samples),
        without_target=sum(s.truth == 0 for s in samples),
        ciou=shared / either if either else math.nan,
        giou=_mean([_iou(s, EPSILON) for s in samples]),
        giou_exact=_mean([_iou(s, 0.0) for s in samples]),
        n_acc=_mean([s.answer == 0 for s in samples if s.truth == 0]),
        t_acc=_mean([s.answer > 0 for s in samples if s.truth > 0]),
    )


def _iou(sample: Overlap, epsilon: float) -> float:
    return sample.shared / (sample.either + epsilon) if sample.either else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

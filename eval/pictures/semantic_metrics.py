"""Semantic segmentation scores: mean IoU and accuracies from one confusion matrix over all pixels of all pictures.

Maps of category numbers go in, numbers come out, fractions of 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ...stream.errors import BadInput

IGNORED = 255  # in a true map: a pixel that is not scored


@dataclass(frozen=True, slots=True)
class SemanticScore:
    """Over all scored pixels.

    iou: float64 [C] by category, NaN where the truth has none of it. miou: their mean, the official figure (detectron2's SemSegEvaluator);
    miou_answered: the mean over categories that the truth or an answer has, so that an answer of a category that is nowhere counts as 0.
    accuracy: share of pixels answered right; mean_accuracy: that share by category, averaged; fwiou: IoU weighted by true pixels.
    """

    pixels: int
    iou: np.ndarray = field(repr=False)
    miou: float
    miou_answered: float
    fwiou: float
    accuracy: float
    mean_accuracy: float


def confusion(truth: np.ndarray, answer: np.ndarray, categories: int, ignored: int = IGNORED) -> np.ndarray:
    """How many pixels of each true category got each answer, int64 [C, C], truth first; pixels that the truth ignores are left out.

    truth, answer: int [H, W], numbers from 0. Raises BadInput for maps of different sizes, or a number beyond the categories (also an
    answered `ignored` where the truth has a category: every pixel must be answered).
    """
    if truth.shape != answer.shape:
        raise BadInput(f"the answered map is {answer.shape}, the true one {truth.shape} (height, width); answer at source size")
    scored = truth != ignored
    true_numbers, answered = truth[scored].astype(np.int64), answer[scored].astype(np.int64)
    for what, numbers in (("true", true_numbers), ("answered", answered)):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < categories:
            raise BadInput(
                f"the {what} map has category {numbers.max()}, expected numbers from 0 to {categories - 1}, or {ignored} in the truth"
            )
    return np.bincount(true_numbers * categories + answered, minlength=categories**2).reshape(categories, categories)


def score(matrix: np.ndarray) -> SemanticScore:
    """The score of a confusion matrix, int [C, C], truth first; NaN when it holds no pixel."""
    right, true_pixels, answered = np.diag(matrix).astype(float), matrix.sum(1).astype(float), matrix.sum(0).astype(float)
    union = true_pixels + answered - right
    present, either = true_pixels > 0, union > 0
    iou = np.divide(right, union, out=np.full(len(matrix), np.nan), where=present)
    weights = true_pixels[present] / max(true_pixels.sum(), 1)
    return SemanticScore(
        pixels=int(matrix.sum()),
        iou=iou,
        miou=_mean(iou[present]),
        miou_answered=_mean(np.where(present, iou, 0.0)[either]),
        fwiou=float((iou[present] * weights).sum()) if present.any() else math.nan,
        accuracy=float(right.sum() / true_pixels.sum()) if present.any() else math.nan,
        mean_accuracy=_mean(right[present] / true_pixels[present]),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan

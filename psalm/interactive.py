"""Which proposal answers a shape that was drawn on the very picture it is asked of: PSALM's interactive task.

What a shape covers is visual_prompts.py's; objects that are followed through frames are the policies'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..stream.types import Proposals, Shape
from .honest_policy import TOP_QUERIES
from .visual_prompts import meets


@dataclass(frozen=True, slots=True)
class Pick:
    """The answer to one shape. score: of its condition, 0..1; mask: bool [H, W]."""

    score: float
    mask: np.ndarray


def pick_shapes(drawn: Sequence[tuple[Shape, np.ndarray]], proposals: Proposals, official: bool = False) -> list[Pick | None]:
    """One proposal for every drawn shape, each on its own: objects may overlap, or be the same.

    drawn: shapes and what `rasterize` made of them, bool [H, W], in the order of the condition's rows. official: the best condition score,
    as PSALM's evaluation takes it. Otherwise, as the honest policy judges what was just drawn: of the ten best, condition score times
    (1 + how well the shape is met) / 2, and None where none of them meets the shape at all.
    """
    choose = _best if official else _fitting
    return [choose(shape, region, scores, proposals) for (shape, region), scores in zip(drawn, proposals.scores, strict=True)]


def _best(_shape: Shape, _region: np.ndarray, scores: np.ndarray, proposals: Proposals) -> Pick:
    query = int(scores.argmax())
    return Pick(float(scores[query]), proposals.masks([query])[0])


def _fitting(shape: Shape, region: np.ndarray, scores: np.ndarray, proposals: Proposals) -> Pick | None:
    queries = np.argsort(-scores, kind="stable")[:TOP_QUERIES]
    masks = proposals.masks(queries.tolist())
    met = meets(shape, region, masks)
    worth = np.where(met > 0, scores[queries] * (1 + met) / 2, 0.0)
    best = int(worth.argmax())
    return Pick(float(scores[queries[best]]), masks[best]) if worth[best] > 0 else None

"""Which query answers for which target mask: the Hungarian matching of PSALM's training, on randomly sampled points.

Also here: bilinear point sampling and the source of random points, which the criterion shares. Losses are in criterion.py.
Notation: Q queries, M target masks, P points; a point is (x, y) in fractions of the map, 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

Draw = Callable[[tuple[int, ...]], Tensor]


def uniform(generator: torch.Generator) -> Draw:
    """The usual source of points: float32 draws in [0, 1) from `generator`, on its device."""
    return lambda shape: torch.rand(shape, generator=generator, device=generator.device)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps [N, h, w] at points bilinearly (half-pixel centres, zero outside): float32 [N, P].

    points: [N, P, 2], or [1, P, 2] to read every map at the same ones.
    """
    maps, grid = maps.float(), 2 * points[:, None].to(maps.device) - 1
    if len(points) == len(maps):
        return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, 0]
    return F.grid_sample(maps[None], grid, align_corners=False)[0, :, 0]


@torch.no_grad()
def match(cost: Tensor) -> Tensor:
    """The cheapest one-to-one assignment of a cost matrix [Q, M]: int64 [2, min(Q, M)] of (query, mask) pairs, queries ascending.

    Raises ValueError when a cost is not finite.
    """
    queries, masks = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor([queries.tolist(), masks.tolist()], dtype=torch.int64, device=cost.device)


@torch.no_grad()
def mask_cost(mask_logits: Tensor, masks: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and Dice of every query with every mask, read at shared points: two float32 [Q, M].

    mask_logits: [Q, h, w]; masks: [M, S, S]; points: [1, P, 2]. The cross entropy of logit x and target g is softplus(x) - x g,
    hence one matrix product for all pairs.
    Source: PSALM's matcher (that of Mask2Former, https://arxiv.org/abs/2112.01527, section 3.3).
    """
    logits, targets = sample_points(mask_logits, points), sample_points(masks, points)
    entropy = (F.softplus(logits).sum(1, keepdim=True) - logits @ targets.T) / logits.shape[1]
    probability = logits.sigmoid()
    dice = 1 - (2 * probability @ targets.T + 1) / (probability.sum(1, keepdim=True) + targets.sum(1) + 1)
    return entropy, dice

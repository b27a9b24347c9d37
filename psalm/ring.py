"""Ring detail, an extra PSALM lacks: what stride-8 features say inside a mask and right around it, added to its region token.

On only when `Extras.detail_pooling` is; the projector's stride-64 map alone hardly tells small objects apart at small input sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RING_CELLS = 4


class RingDetail(nn.Module):
    """Mean features inside and around each mask, projected to the token width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * channels, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, res3: Tensor, masks: Tensor) -> Tensor:
        """res3: [C, S/8, S/8]; masks: bool [K, S, S]; returns [K, width]."""
        inside = F.avg_pool2d(masks.to(res3.dtype)[None], 8)[0]
        grown = F.max_pool2d((inside > 0).to(res3.dtype)[None], 2 * RING_CELLS + 1, stride=1, padding=RING_CELLS)[0]
        around = (grown - inside).clamp(min=0)
        return self.project(torch.cat([_weighted_mean(res3, inside), _weighted_mean(res3, around)], dim=1))


def _weighted_mean(feature_map: Tensor, weights: Tensor) -> Tensor:
    return weights.flatten(1) @ feature_map.flatten(1).T / weights.flatten(1).sum(1, keepdim=True).clamp(min=1e-6)

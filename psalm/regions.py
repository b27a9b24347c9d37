"""Region pooling: masks over an image's tokens become one condition token each.

Three ways to the same vector: the mean over every mask pixel (default, deterministic), PSALM's 256 samples from a seed, and recorded
sample indices for parity. Coordinates are PSALM's: pixel index divided by S, read with align_corners (spec section 9, steps 3 and 4).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..stream.errors import BadPrompt

SAMPLE_POINTS = 256


def pool_mean(feature_map: Tensor, masks: Tensor) -> Tensor:
    """Mean over all mask pixels of the bilinearly read map.

    feature_map: float [C, h, w]; masks: bool [K, S, S], none empty; returns [K, C]. The mean of bilinear weights is separable, so no
    pixel is sampled. Raises BadPrompt naming an empty region.
    """
    masks = masks.to(feature_map.dtype)
    area = masks.sum((1, 2))
    _refuse_empty(area)
    rows = _corner_weights(masks.shape[1], feature_map.shape[1], feature_map)  # [S, h]
    columns = _corner_weights(masks.shape[2], feature_map.shape[2], feature_map)  # [S, w]
    weights = rows.T @ masks @ columns / area[:, None, None]  # [K, h, w]
    return weights.flatten(1) @ feature_map.flatten(1).T


def pool_points(feature_map: Tensor, points_yx: Tensor) -> Tensor:
    """Mean of the map at points. feature_map: [C, h, w]; points_yx: [K, P, 2] as fractions (y/S, x/S); returns [K, C]."""
    grid = 2 * points_yx.flip(-1) - 1
    sampled = F.grid_sample(feature_map[None], grid[None].to(feature_map.dtype), mode="bilinear", align_corners=True)  # [1, C, K, P]
    return sampled[0].mean(-1).T


def points_from_indices(masks: Tensor, indices: Tensor) -> Tensor:
    """The points that rows `indices` [K, P] of each mask's row-major list of non-zero pixels name. masks: bool [K, S, S]."""
    size = torch.tensor(masks.shape[1:], dtype=torch.float32, device=masks.device)
    return torch.stack([mask.nonzero()[rows.long()] / size for mask, rows in zip(masks, indices, strict=True)])


def sample_indices(masks: Tensor, seed: int) -> Tensor:
    """PSALM's draw of 256 pixels a mask: all of a small mask plus repeats, a random subset of a large one. Returns [K, 256]."""
    generator = torch.Generator().manual_seed(seed)
    areas = masks.flatten(1).sum(1)
    _refuse_empty(areas)
    rows = []
    for area in areas.tolist():
        if area >= SAMPLE_POINTS:
            rows.append(torch.randperm(area, generator=generator)[:SAMPLE_POINTS])
        else:
            repeats = torch.randint(area, (SAMPLE_POINTS - area,), generator=generator)
            rows.append(torch.cat([torch.arange(area), repeats]))
    return torch.stack(rows)


def sampled_points(masks: Tensor, seed: int) -> Tensor:
    """PSALM's 256 seeded points a mask. masks: bool [K, S, S]; returns [K, 256, 2]."""
    return points_from_indices(masks, sample_indices(masks.cpu(), seed).to(masks.device))


def _corner_weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Bilinear weights [pixels, cells] of reading position i / pixels with align_corners."""
    position = torch.arange(pixels, dtype=like.dtype, device=like.device) / pixels * (cells - 1)
    return (1 - (position[:, None] - torch.arange(cells, dtype=like.dtype, device=like.device)).abs()).clamp(min=0)


def _refuse_empty(areas: Tensor) -> None:
    for row, area in enumerate(areas.tolist()):
        if area == 0:
            raise BadPrompt(f"region {row} is empty after padding to the network's input; give a mask of at least one network pixel")

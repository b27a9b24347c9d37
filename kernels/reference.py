"""Multi-scale deformable attention: the definition every faster backend is compared with.

Plain torch, differentiable, any float dtype and device. Faster implementations live beside this file under their own names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn(value: Tensor, shapes_hw: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples of several feature maps, per query and head.

    value: [B, sum(H*W), heads, c], the maps of `shapes_hw` flattened row by row and concatenated; locations: [B, N, heads, L, P, 2] as
    (x, y), 0..1 over each whole map (half-pixel centres, zeros outside); weights: [B, N, heads, L, P]. Returns [B, N, heads * c] in the
    type of value. Sampling is done in at least float32: half precision cannot name a position, and torch's grid_sample fails in it.
    Source: Deformable DETR (arXiv 2010.04159), equation 3.
    """
    batch, _, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    precise = torch.promote_types(value.dtype, torch.float32)
    grid = 2 * locations.to(precise) - 1
    maps = value.to(precise).split([h * w for h, w in shapes_hw], dim=1)
    samples = []
    for level, ((height, width), flat) in enumerate(zip(shapes_hw, maps, strict=True)):
        image = flat.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        at = grid[:, :, :, level].transpose(1, 2).flatten(0, 1)  # [B*heads, N, P, 2]
        samples.append(F.grid_sample(image, at, mode="bilinear", padding_mode="zeros", align_corners=False))
    sampled = torch.stack(samples, dim=-2)  # [B*heads, c, N, L, P]
    weighted = sampled * weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels, points)
    return weighted.flatten(3).sum(-1).view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype)

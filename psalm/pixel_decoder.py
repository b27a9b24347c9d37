"""The pixel decoder: deformable attention over res3..res5, then stride-4 mask features. Source: spec section 12."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.reference import ms_deform_attn
from .config import MaskConfig

LEVELS = 3


def sine_position(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sine position embedding [channels, height, width]: first half y, second half x (spec section 12.1)."""
    half = channels // 2
    index = torch.arange(half, device=like.device, dtype=torch.float32)
    divisor = 10000 ** (2 * (index // 2) / half)

    def encode(size: int) -> Tensor:
        angle = torch.arange(1, size + 1, device=like.device, dtype=torch.float32) / (size + 1e-6) * 2 * math.pi
        angle = angle[:, None] / divisor
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)  # [size, half]

    y = encode(height).T[:, :, None].expand(half, height, width)
    x = encode(width).T[:, None, :].expand(half, height, width)
    return torch.cat([y, x]).to(like.dtype)


class DeformableAttention(nn.Module):
    """Multi-scale deformable self-attention of `heads` heads and `points` points a level."""

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(width, heads * LEVELS * points * 2)
        self.attention_weights = nn.Linear(width, heads * LEVELS * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._start_on_rays()

    @torch.no_grad()
    def _start_on_rays(self) -> None:
        """Offsets start on one ray a head, one cell further a point (Deformable DETR, appendix A.4)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], -1)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        self.sampling_offsets.weight.zero_()
        self.sampling_offsets.bias.copy_((ray[:, None, None] * steps[:, None]).expand(-1, LEVELS, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes_hw: list[tuple[int, int]]) -> Tensor:
        """x, position: [B, N, width]; reference: [N, 2] cell centres as (x, y) fractions, float32 or finer. Returns [B, N, width]."""
        batch, count, width = x.shape
        query = x + position
        value = self.value_proj(x).view(batch, count, self.heads, width // self.heads)
        offsets = self.sampling_offsets(query).view(batch, count, self.heads, LEVELS, self.points, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, LEVELS * self.points).softmax(-1)
        weights = weights.view(batch, count, self.heads, LEVELS, self.points)
        sizes_wh = reference.new_tensor([(w, h) for h, w in shapes_hw])
        locations = reference[:, None, None, None] + offsets.to(reference.dtype) / sizes_wh[:, None]
        return self.output_proj(ms_deform_attn(value, shapes_hw, locations, weights))


class EncoderLayer(nn.Module):
    """Deformable attention and feed-forward, each followed by its norm."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.self_attn = DeformableAttention(width, config.num_heads, config.encoder_points)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, config.encoder_ffn)
        self.linear2 = nn.Linear(config.encoder_ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes_hw: list[tuple[int, int]]) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position, reference, shapes_hw))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Module):
    """The stack of encoder layers; a module of its own so that names match the checkpoint."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))


class Transformer(nn.Module):
    """Attends over the three flattened maps and gives them back as maps."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(LEVELS, config.hidden_dim))
        self.encoder = Encoder(config)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        shapes_hw = [tuple(m.shape[-2:]) for m in maps]
        x = torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2)
        position = torch.cat(
            [
                (sine_position(h, w, x.shape[-1], x) + embed[:, None, None]).flatten(1)
                for (h, w), embed in zip(shapes_hw, self.level_embed, strict=True)
            ],
            dim=1,
        ).T
        reference = torch.cat([_cell_centres(h, w, x) for h, w in shapes_hw])
        for layer in self.encoder.layers:
            x = layer(x, position, reference, shapes_hw)
        parts = x.split([h * w for h, w in shapes_hw], dim=1)
        return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes_hw, strict=True)]


class PixelDecoder(nn.Module):
    """Swin maps -> three feature maps, coarse to fine, and mask features at stride 4."""

    def __init__(self, config: MaskConfig, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        width = config.hidden_dim
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(32, width)) for c in (channels[3], channels[2], channels[1])
        )
        self.transformer = Transformer(config)
        self.adapter_1 = nn.Sequential(nn.Conv2d(channels[0], width, 1), nn.GroupNorm(32, width))
        self.layer_1 = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(32, width))
        self.mask_features = nn.Conv2d(width, width, 1)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """features: [res2, res3, res4, res5]. Returns (multi-scale maps [B, d, s, s] x 3, mask features [B, d, S/4, S/4])."""
        res2, res3, res4, res5 = features
        maps = self.transformer([proj(m) for proj, m in zip(self.input_proj, (res5, res4, res3), strict=True)])
        lateral = F.relu(self.adapter_1(res2))
        fine = lateral + F.interpolate(maps[2], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
        return maps, self.mask_features(F.relu(self.layer_1(fine)))


def _cell_centres(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of all cells, row by row, as (x, y) fractions [height * width, 2]."""
    precise = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
    y = (torch.arange(height, **precise) + 0.5) / height
    x = (torch.arange(width, **precise) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)

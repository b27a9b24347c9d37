"""The mask decoder: queries from the language model look at the image under their own masks and become proposals.

Source: spec section 13. Queries beyond the first Q are prior queries (`prior.py`): they see everybody, nobody of the first Q sees them,
so a model with a mask prior answers its Q proposals exactly as one without.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MaskConfig
from .pixel_decoder import LEVELS, sine_position


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction level. query: [B, N, d] before the decoder norm; normed: after it; mask_logits: [B, N, S/4, S/4]."""

    query: Tensor
    normed: Tensor
    mask_logits: Tensor


@dataclass(frozen=True, slots=True)
class PriorQueries:
    """Extra queries of a batch, padded to the most of any sample. content: [B, T, d]; look: bool [B, T, S/4, S/4], where each looks
    first; valid: bool [B, T]."""

    content: Tensor
    look: Tensor
    valid: Tensor


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Multi-head attention with the packed weights of `attention`.

    allowed: bool, broadcast to [B, heads, N, M], True where a key is seen; None: everywhere.
    """
    weight, bias = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    projected = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weight, bias, strict=True))
    q, k, v = (x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for x in projected)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


class CrossAttentionLayer(nn.Module):
    """Queries read one feature level where their last mask allows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, x_position: Tensor, memory: Tensor, memory_position: Tensor, allowed: Tensor) -> Tensor:
        return self.norm(x + attend(self.multihead_attn, x + x_position, memory + memory_position, memory, allowed))


class SelfAttentionLayer(nn.Module):
    """Queries read each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, x_position: Tensor, allowed: Tensor | None) -> Tensor:
        return self.norm(x + attend(self.self_attn, x + x_position, x + x_position, x, allowed))


class FeedForwardLayer(nn.Module):
    """Two linear layers with ReLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MaskDecoder(nn.Module):
    """Masked-attention decoder with three condition heads."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        width, heads, layers = config.hidden_dim, config.num_heads, config.decoder_layers
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(width, heads) for _ in range(layers))
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(width, heads) for _ in range(layers))
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, config.decoder_ffn) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.level_embed = nn.Embedding(LEVELS, width)
        self.mask_embed = MLP(width, width, width, width)
        self.CLASS_proj = MLP(width, width, width)
        self.SEG_proj = MLP(width, width, width)
        self.REGION_proj = MLP(width, width, width)

    def forward(
        self,
        maps: list[Tensor],
        mask_features: Tensor,
        queries: Tensor,
        prior: PriorQueries | None = None,
        prior_position: Tensor | None = None,
    ) -> list[Prediction]:
        """maps: three [B, d, s, s], coarse to fine; mask_features: [B, d, S/4, S/4]; queries: [B, Q, d] from the language model.

        Returns decoder_layers + 1 predictions, the last one final. prior_position: [d], shared by all prior queries.
        """
        x, position = queries, self.query_embed.weight.expand_as(queries)
        seen = None
        if prior is not None:
            x = torch.cat([queries, prior.content], dim=1)
            position = torch.cat([position, prior_position.expand_as(prior.content)], dim=1)
            seen = _who_sees_whom(queries.shape[1], prior.valid)
        memory = [(m.flatten(2) + e[:, None]).transpose(1, 2) for m, e in zip(maps, self.level_embed.weight, strict=True)]
        memory_position = [sine_position(*m.shape[-2:], m.shape[1], m).flatten(1).T for m in maps]
        predictions = [self.predict(x, mask_features)]
        layers = zip(
            self.transformer_cross_attention_layers, self.transformer_self_attention_layers, self.transformer_ffn_layers, strict=True
        )
        for i, (cross, among, feed) in enumerate(layers):
            level = i % LEVELS
            allowed = _looked_at(predictions[-1].mask_logits, maps[level].shape[-2:])
            if i == 0 and prior is not None:
                allowed = torch.cat([allowed[:, :, : queries.shape[1]], _prior_look(prior.look, maps[level].shape[-2:])], dim=2)
            x = cross(x, position, memory[level], memory_position[level], allowed)
            x = feed(among(x, position, seen))
            predictions.append(self.predict(x, mask_features))
        return predictions

    def predict(self, query: Tensor, mask_features: Tensor) -> Prediction:
        """Mask logits of queries [B, N, d]."""
        normed = self.decoder_norm(query)
        return Prediction(query, normed, torch.einsum("bnd,bdhw->bnhw", self.mask_embed(normed), mask_features))

    def condition_logits(self, kind: str, normed: Tensor, conditions: Tensor) -> Tensor:
        """Plain dot products [T, N] of conditions [T, d] with one sample's projected queries [N, d]; kind names the head:
        'categories', 'sentence' or 'regions'."""
        head = {"categories": self.CLASS_proj, "sentence": self.SEG_proj, "regions": self.REGION_proj}[kind]
        return conditions @ head(normed).T


def _looked_at(mask_logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Keys each query may see, bool [B, 1, N, h*w]: inside its mask, or everywhere when that is empty."""
    small = F.interpolate(mask_logits.detach(), size=size_hw, mode="bilinear", align_corners=False)
    return _everywhere_if_empty(small.sigmoid().flatten(2) >= 0.5)


def _prior_look(look: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return _everywhere_if_empty(F.adaptive_max_pool2d(look.float(), size_hw).flatten(2) > 0)


def _everywhere_if_empty(inside: Tensor) -> Tensor:
    return (inside | ~inside.any(-1, keepdim=True))[:, None]


def _who_sees_whom(queries: int, valid: Tensor) -> Tensor:
    """bool [B, 1, N, N]: the first Q see the first Q, prior queries see those and the valid prior queries."""
    batch, priors = valid.shape
    allowed = torch.zeros(batch, queries + priors, queries + priors, dtype=torch.bool, device=valid.device)
    allowed[:, :, :queries] = True
    allowed[:, queries:, queries:] = valid[:, None]
    return allowed[:, None]

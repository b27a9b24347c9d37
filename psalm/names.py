"""Official tensor names and layouts against ours. Source: spec section 2 and psalm-state-dict.json.

Only Swin and Phi differ, because they come from a library; everything else carries its official name. Fused attention weights are one
official tensor and three of ours: contiguous thirds in Swin, interleaved per head in Phi (per head: q, then k, then v).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import PsalmConfig

QKV = ("q_proj", "k_proj", "v_proj")
FUSION = "predictor.fuse_model."
"""What ObjectRelator's checkpoints hold beside PSALM's tensors (spec section 16.1): the fusion of a sentence with the regions."""

_RENAMES = (
    (r"^swin\.backbone\.swin\.embeddings\.patch_embeddings\.projection\.", "model.vision_tower.patch_embed.proj."),
    (r"^swin\.backbone\.swin\.embeddings\.norm\.", "model.vision_tower.patch_embed.norm."),
    (r"^swin\.backbone\.swin\.encoder\.", "model.vision_tower."),
    (r"^swin\.backbone\.hidden_states_norms\.stage(\d)\.", lambda m: f"model.vision_tower.norm{int(m[1]) - 1}."),
    (r"(vision_tower.*)\.attention\.o_proj\.", r"\1.attn.proj."),
    (r"(vision_tower.*)\.attention\.relative_position_bias\.", r"\1.attn."),
    (r"(vision_tower.*)\.attention\.", r"\1.attn."),
    (r"(vision_tower.*)\.layernorm_before\.", r"\1.norm1."),
    (r"(vision_tower.*)\.layernorm_after\.", r"\1.norm2."),
    (r"^projector\.", "model.mm_projector."),
    (r"^phi\.", "model."),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of our tensors lies in an official checkpoint. part: 0, 1, 2 of a fused tensor, None when it is the whole tensor; heads:
    heads of a per-head interleaved tensor, 0 for contiguous thirds; split_name: the name it has when stored unfused."""

    name: str
    part: int | None = None
    heads: int = 0
    split_name: str = ""


def place(key: str, config: PsalmConfig) -> Place:
    """The official place of our state-dict key."""
    name = key
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    for part, projection in enumerate(QKV):
        if f".{projection}." in name:
            if key.startswith("phi."):
                fused = name.replace(f".{projection}.", ".query_key_value.")
                return Place(fused, part, config.phi.num_attention_heads, name)
            return Place(name.replace(f".{projection}.", ".qkv."), part)
    return Place(name)


def cut(fused: Tensor, where: Place) -> Tensor:
    """Our third of a fused tensor [3 * n, ...], as a view: [n, ...], or [heads, n / heads, ...] when heads are interleaved."""
    if where.heads:
        return fused.unflatten(0, (where.heads, 3, -1))[:, where.part]
    return fused.chunk(3)[where.part]


def fuse(parts: list[Tensor], where: Place) -> Tensor:
    """The official fused tensor of our q, k and v; inverse of `cut`."""
    if where.heads:
        return torch.stack([p.unflatten(0, (where.heads, -1)) for p in parts], dim=1).flatten(0, 2)
    return torch.cat(parts)


def unused_shapes(config: PsalmConfig) -> dict[str, tuple[int, ...]]:
    """Official tensors that no answer depends on, and their shapes: known, checked when present, never loaded."""
    d, queries = config.mask.hidden_dim, config.mask.num_queries
    window = config.swin.window_size**2
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (config.phi.vocab_size, config.phi.hidden_size),
        "predictor.query_feat.weight": (queries, d),
        "predictor.SEG_query_embed.weight": (queries + 1, d),
    }
    for stage, depth in enumerate(config.swin.depths):
        for block in range(depth):
            shapes[f"model.vision_tower.layers.{stage}.blocks.{block}.attn.relative_position_index"] = (window, window)
    for norm in ("bn1", "bn2", "downsample.1"):
        shapes[f"model.mm_projector.layer1.0.{norm}.num_batches_tracked"] = ()
    return shapes


def is_loaded(key: str) -> bool:
    """Whether our state-dict key comes from a checkpoint (batch counters do not)."""
    return not key.endswith("num_batches_tracked")


def to_official(state: dict[str, Tensor], config: PsalmConfig) -> dict[str, Tensor]:
    """Our state dict under official names and fused layout, as a checkpoint stores it."""
    official: dict[str, Tensor] = {}
    fused: dict[str, list[Tensor]] = {}
    for key, tensor in state.items():
        if not is_loaded(key):
            continue
        where = place(key, config)
        if where.part is None:
            official[where.name] = tensor
            continue
        parts = fused.setdefault(where.name, [])
        parts.append(tensor)
        if len(parts) == len(QKV):
            official[where.name] = fuse(parts, where)
    return official

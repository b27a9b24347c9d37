"""The language model: transformers' PhiModel, run once over a sequence of embeddings, without generation."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

from .config import PhiConfig


def build_phi(config: PhiConfig) -> transformers.PhiModel:
    """A PhiModel of these sizes, randomly initialised; pad_token_id stays None, as the released vocabulary has no padding row."""
    return transformers.PhiModel(
        transformers.PhiConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            layer_norm_eps=config.layer_norm_eps,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": config.rope_theta,
                "partial_rotary_factor": config.partial_rotary_factor,
            },
            hidden_act="gelu_new",
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
    )


class HalfRoundedRotary(nn.Module):
    """Rotary tables rounded to float16, as the official evaluation leaves them up to `max_positions` (spec section 2.1)."""

    def __init__(self, rotary: nn.Module, max_positions: int) -> None:
        super().__init__()
        self.rotary, self.max_positions = rotary, max_positions

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.rotary(x, position_ids)
        if position_ids.shape[-1] > self.max_positions:
            return cos, sin
        return cos.to(torch.float16).to(cos.dtype), sin.to(torch.float16).to(sin.dtype)

"""The Swin encoder: four feature maps of an image, from transformers' SwinBackbone.

That class reproduces the released encoder unmodified (padding before the roll, windows always shifted, one norm a stage); timm's does
not, it rolls before it pads.
"""

from __future__ import annotations

import transformers
from torch import Tensor, nn

from .config import SwinConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]


class Swin(nn.Module):
    """Maps at strides 4, 8, 16, 32 with `config.channels` channels."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.backbone = transformers.SwinBackbone(
            transformers.SwinConfig(
                embed_dim=config.embed_dim,
                depths=list(config.depths),
                num_heads=list(config.num_heads),
                window_size=config.window_size,
                mlp_ratio=config.mlp_ratio,
                drop_path_rate=0.0,
                out_features=STAGES,
            )
        )
        self.backbone.swin.layernorm = nn.Identity()  # a backbone never calls it, and no checkpoint has it

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: float [B, 3, S, S], normalised. Returns [res2, res3, res4, res5]."""
        return list(self.backbone(images).feature_maps)

"""The sizes of a PSALM: frozen dataclasses, and the table of named configurations.

One dataclass describes everything from the golden toy to the released 1.6 billion parameters. What PSALM itself lacks is a field that is
off by default (`Extras`); a configuration with all of them off is a plain PSALM.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..stream.errors import BadConfig


@dataclass(frozen=True, slots=True)
class SwinConfig:
    """The Swin encoder. Channels double from stage to stage, starting at `embed_dim`; strides are 4, 8, 16, 32."""

    embed_dim: int = 128
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    num_heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    window_size: int = 12
    mlp_ratio: float = 4.0

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of res2, res3, res4, res5."""
        return tuple(self.embed_dim * 2**i for i in range(4))


@dataclass(frozen=True, slots=True)
class PhiConfig:
    """The language model."""

    vocab_size: int = 50297
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    partial_rotary_factor: float = 0.5
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """Pixel decoder and mask decoder. decoder_layers counts the layers, so there are decoder_layers + 1 predictions."""

    hidden_dim: int = 256
    num_queries: int = 100
    num_heads: int = 8
    encoder_layers: int = 6
    encoder_ffn: int = 1024
    encoder_points: int = 4
    decoder_layers: int = 9
    decoder_ffn: int = 2048


@dataclass(frozen=True, slots=True)
class Extras:
    """Inputs PSALM lacks, all off at the released size.

    They are three. mask_prior brings two: the carried mask of an object, from which one more query per region token starts, and the
    likeness of each pixel's colour to the remembered object's; a small convolution refines the mask with both. detail_pooling brings the
    third: region tokens also see stride-8 features pooled inside the mask and in a ring around it.
    """

    mask_prior: bool = False
    detail_pooling: bool = False


@dataclass(frozen=True, slots=True)
class PsalmConfig:
    """All sizes of one model. image_size: side S of the padded square in pixels, a multiple of 32."""

    image_size: int = 1024
    projector_planes: int = 2048
    swin: SwinConfig = field(default_factory=SwinConfig)
    phi: PhiConfig = field(default_factory=PhiConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    extras: Extras = field(default_factory=Extras)

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % 32:
            raise BadConfig(f"image_size is {self.image_size}, expected a positive multiple of 32, the encoder's last stride")
        if self.mask.hidden_dim % 32 or self.mask.hidden_dim % self.mask.num_heads:
            raise BadConfig(
                f"mask.hidden_dim is {self.mask.hidden_dim}, expected a multiple of 32 and of mask.num_heads ({self.mask.num_heads})"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a config.json, read back by `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PsalmConfig:
        """Build from plain values. Raises BadConfig for an unknown field."""
        parts = {"swin": SwinConfig, "phi": PhiConfig, "mask": MaskConfig, "extras": Extras}
        values = {name: _fill(parts[name], value, name) if name in parts else value for name, value in values.items()}
        return _fill(cls, values, "psalm_stream")


def _fill(kind: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise BadConfig(
            f"config field {where}.{unknown[0]} is unknown, expected one of {sorted(known)}; was it written by a newer version?"
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


NAMED_CONFIGS: dict[str, PsalmConfig] = {
    "psalm-swinb-phi1.5": PsalmConfig(),
    "nano": PsalmConfig(
        image_size=256,
        projector_planes=128,
        swin=SwinConfig(embed_dim=32, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16), window_size=8),
        phi=PhiConfig(
            vocab_size=512, hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=1024
        ),
        mask=MaskConfig(hidden_dim=64, num_queries=16, encoder_layers=1, encoder_ffn=256, decoder_layers=3, decoder_ffn=256),
        extras=Extras(mask_prior=True, detail_pooling=True),
    ),
}

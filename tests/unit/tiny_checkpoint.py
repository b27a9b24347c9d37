"""Tiny checkpoints for the tests of loading: a PSALM of a few thousand numbers, all of them random, in every file layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from psalm_stream.eval.official_checkpoint import write_tokenizer
from psalm_stream.psalm.config import MaskConfig, PhiConfig, PsalmConfig, SwinConfig
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import is_loaded, unused_shapes
from safetensors.torch import save_file
from torch import Tensor

CONFIG = PsalmConfig(
    image_size=64,
    projector_planes=8,
    swin=SwinConfig(embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4), window_size=4),
    phi=PhiConfig(
        vocab_size=300, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=256
    ),
    mask=MaskConfig(hidden_dim=32, num_queries=4, num_heads=4, encoder_layers=1, encoder_ffn=16, decoder_layers=2, decoder_ffn=16),
)
OWN = {"psalm_stream": CONFIG.to_json()}
FUSED = "model.layers.1.self_attn.query_key_value.weight"
SWIN_FUSED = "model.vision_tower.layers.0.blocks.1.attn.qkv.bias"
EMBED = "model.embed_tokens.weight"
Tensors = dict[str, Tensor]


def random_state(config: PsalmConfig) -> Tensors:
    """Our state dict without the counters, every number of it random."""
    generator = torch.Generator().manual_seed(1)
    with torch.device("meta"):
        state = Psalm(config).state_dict()
    return {key: torch.randn(t.shape, generator=generator) for key, t in state.items() if is_loaded(key)}


def write_single(folder: Path, tensors: Tensors) -> None:
    """One safetensors file."""
    save_file(tensors, folder / "model.safetensors")


def write_other_name(folder: Path, tensors: Tensors) -> None:
    """One safetensors file under a name of its own."""
    save_file(tensors, folder / "psalm.safetensors")


def write_bin(folder: Path, tensors: Tensors) -> None:
    """One file of torch.save."""
    torch.save(tensors, folder / "pytorch_model.bin")


def write_shards(folder: Path, tensors: Tensors) -> None:
    """Two safetensors shards with their index."""
    _write_halves(folder, tensors, "model-0000{}-of-00002.safetensors", "model.safetensors.index.json", save_file)


def write_bin_shards(folder: Path, tensors: Tensors) -> None:
    """Two shards of torch.save with their index."""
    _write_halves(folder, tensors, "pytorch_model-0000{}-of-00002.bin", "pytorch_model.bin.index.json", torch.save)


def _write_halves(folder: Path, tensors: Tensors, name: str, index: str, save: Callable) -> None:
    halves = [{n: tensors[n] for n in list(tensors)[i::2]} for i in range(2)]
    files = [folder / name.format(i + 1) for i in range(2)]
    for half, file in zip(halves, files, strict=True):
        save(half, file)
    weight_map = {n: file.name for half, file in zip(halves, files, strict=True) for n in half}
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


LAYOUTS = [write_single, write_other_name, write_shards, write_bin, write_bin_shards]


def write(
    folder: Path,
    tensors: Tensors,
    layout: Callable[[Path, Tensors], None] = write_single,
    config: Mapping[str, object] = OWN,
    tokenizer_size: int = CONFIG.phi.vocab_size,
) -> Path:
    """A checkpoint folder of these official tensors; returns it."""
    layout(folder, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, tokenizer_size)
    return folder


def unused_tensors() -> Tensors:
    """The official tensors that no answer depends on."""
    return {name: torch.zeros(shape) for name, shape in unused_shapes(CONFIG).items()}

"""Checkpoints in the official layout with random weights, of any size: names, types, shards, config.json and tokenizer as released.

Written tensor by tensor, so that the released size needs little memory. What they cost to load and run is full_size.py's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from ..psalm.config import PsalmConfig
from ..psalm.model import Psalm
from ..psalm.names import to_official, unused_shapes

SHARDS = 2
CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
SPECIAL_TOKENS = ("<|endoftext|>", "[PAD]", "[SEG]")


def official_shapes(config: PsalmConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official checkpoint of these sizes, by name; nothing is allocated."""
    with torch.device("meta"):
        network = Psalm(config)
    used = {name: tuple(tensor.shape) for name, tensor in to_official(network.state_dict(), config).items()}
    return used | unused_shapes(config)


def random_weight(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A value for one official tensor that keeps activations finite: scales and variances near 1, all else near 0."""
    if official_dtype(name, dtype) is torch.int64:
        return torch.zeros(shape, dtype=torch.int64)
    tensor = torch.randn(shape).mul_(0.02)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        tensor += 1
    return tensor.to(dtype)


def official_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a checkpoint stored in `dtype` holds under this name: position indices and batch counters are integers."""
    return torch.int64 if name.endswith(("relative_position_index", "num_batches_tracked")) else dtype


def write_checkpoint(folder: Path, config: PsalmConfig, dtype: torch.dtype, advance: Callable[[int], None]) -> None:
    """Write two safetensors shards with their index, the released form of config.json and a tokenizer.json.

    Holds one tensor at a time. `advance` is told the bytes of each.
    """
    shapes = official_shapes(config)
    half = sum(prod(shape) for shape in shapes.values()) / SHARDS
    shards: list[dict[str, tuple[int, ...]]] = [{} for _ in range(SHARDS)]
    seen = 0
    for name, shape in shapes.items():
        shards[min(int(seen / half), SHARDS - 1)][name] = shape
        seen += prod(shape)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = folder / f"model-{number:05}-of-{SHARDS:05}.safetensors"
        write_shard(file, shard, dtype, advance)
        weight_map |= dict.fromkeys(shard, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(released_config(config)))
    write_tokenizer(folder, config.phi.vocab_size)


def write_shard(file: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, advance: Callable[[int], None]) -> None:
    """Write one safetensors file tensor by tensor: the library's writer wants all of them in memory."""
    header, end = {}, 0
    ordered = sorted(shapes, key=lambda name: -official_dtype(name, dtype).itemsize)  # wide types first, so that each is aligned
    for name in ordered:
        kind = official_dtype(name, dtype)
        start, end = end, end + prod(shapes[name]) * kind.itemsize
        header[name] = {"dtype": CODES[kind], "shape": shapes[name], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in ordered:
            data = random_weight(name, shapes[name], dtype).reshape(-1).view(torch.uint8).numpy()
            stream.write(data)
            advance(data.nbytes)


def released_config(config: PsalmConfig) -> dict[str, object]:
    """config.json as the release has it: the usual Phi fields and PSALM's flags, none of the mask decoder's sizes (spec section 2)."""
    phi = config.phi
    return {
        "architectures": ["PSALM"],
        "mm_vision_tower": "swin",
        "swin_type": "base",
        "mm_projector_type": "swin_conv",
        "projector_outdim": phi.hidden_size,
        "mask_decode_train": True,
        "vocab_size": phi.vocab_size,
        "hidden_size": phi.hidden_size,
        "intermediate_size": phi.intermediate_size,
        "num_hidden_layers": phi.num_hidden_layers,
        "num_attention_heads": phi.num_attention_heads,
        "max_position_embeddings": phi.max_position_embeddings,
        "partial_rotary_factor": phi.partial_rotary_factor,
        "rope_theta": phi.rope_theta,
        "layer_norm_eps": phi.layer_norm_eps,
        "hidden_act": "gelu_new",
    }


def write_tokenizer(folder: Path, size: int) -> None:
    """Write a byte-level tokenizer.json of `size` entries: the bytes, filler no text ever gives, and the special tokens, [SEG] last."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    filler = [f"<filler {i}>" for i in range(size - len(alphabet) - len(SPECIAL_TOKENS))]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *filler])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))

"""Writing a checkpoint folder: the tokenizer of nano, and weights in the official layout with our config.json."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..model import Psalm
from ..names import to_official
from ..prompt import PLACEHOLDERS, category_prompt, referring_prompt, region_prompt
from ..tokenizer import SEG_TOKEN
from .clip import VOCABULARY

END_TOKEN, PAD_TOKEN = "<|endoftext|>", "[PAD]"


def train_tokenizer(folder: Path, size: int) -> Path:
    """Byte-level BPE of at most `size` entries over the prompts and nano's vocabulary, written to folder/tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [END_TOKEN, PAD_TOKEN, SEG_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=1
    )
    texts = [category_prompt(2), referring_prompt(), region_prompt(2)]
    for placeholder in (*PLACEHOLDERS, END_TOKEN, SEG_TOKEN):
        texts = [piece for text in texts for piece in text.split(placeholder)]
    tokenizer.train_from_iterator([*texts, *(" " + word for word in VOCABULARY), *VOCABULARY], trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in special])
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def save_checkpoint(network: Psalm, folder: Path) -> None:
    """Weights in float16 under official names, and config.json; replaces what is there in one step."""
    official = {
        name: tensor.detach().to(torch.float16).contiguous() for name, tensor in to_official(network.state_dict(), network.config).items()
    }
    save_file(official, folder / "model.safetensors.new", metadata={"format": "pt"})
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"psalm_stream": network.config.to_json()}, indent=1) + "\n")

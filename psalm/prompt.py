"""Prompts: the text PSALM reads for each kind of condition, and its token ids with placeholders.

Wording, spacing and the double space before the first region are the released model's (spec sections 3 and 4); do not tidy them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from ..stream.types import Categories, Condition, Regions, Sentence

IGNORE, IMAGE, SEG, CLS, REGION, REFER = -100, -200, -201, -202, -203, -204
PLACEHOLDERS = {"<image>": IMAGE, "<seg>": SEG, "<cls>": CLS, "<region>": REGION, "<refer>": REFER}
BACKGROUND = "background"

_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


class Tokenizer(Protocol):
    """What is needed of a tokenizer: ids of plain text without special tokens, and the id of `[SEG]`."""

    seg_token_id: int

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """ids: the prompt with negative placeholder ids; classes: ids of each class name, `[SEG]` last; refer: of the sentences, likewise."""

    ids: list[int]
    classes: list[list[int]]
    refer: list[int]


def tokenize(condition: Condition, tokenizer: Tokenizer) -> TokenizedPrompt:
    """Everything the language model reads of one condition."""
    classes: list[list[int]] = []
    refer: list[int] = []
    match condition:
        case Categories(names):
            classes = [[*tokenizer.encode(name), tokenizer.seg_token_id] for name in (*names, BACKGROUND)]
            text = category_prompt(len(classes))
        case Sentence(sentences):
            refer = _sentence_ids(sentences, tokenizer)
            text = referring_prompt()
        case Regions(regions, sentences):
            refer = _sentence_ids(sentences, tokenizer) if sentences else []
            text = region_prompt(len(regions), instructed=bool(sentences))
    return TokenizedPrompt(prompt_ids(text, tokenizer), classes, refer)


def category_prompt(classes: int) -> str:
    """Prompt for `classes` candidate categories, background included; semantic and instance answers use the same wording."""
    candidates = ", ".join(["<cls>"] * classes)
    return _chat(
        f"This is an image <image>, Please do Panoptic Segmentation.\nThis is all the candidate categories: {candidates}.\n",
        "\nSure, the segmentation result is <seg>",
    )


def referring_prompt() -> str:
    """Prompt for referring sentences."""
    return _chat(
        "This is an image <image>, Please doing Referring Segmentation according to the following instruction:\n<refer>",
        "\nSure, the segmentation result is <seg>",
    )


def region_prompt(regions: int, instructed: bool = False) -> str:
    """Prompt for `regions` visual priors; instructed adds the sentence slot of ObjectRelator's evaluation."""
    tokens = ",".join([" <region>"] * regions)
    if instructed:
        asked, told = "regions and instruction", "and this is the instruction: <refer>\n"
    else:
        asked, told = "regions", ""
    return _chat(f"This is an image <image>, Please segment by given {asked}\nThis is all regions: {tokens}.\n{told}", "\n[SEG]<seg>")


def prompt_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a prompt; each piece between placeholders is encoded on its own, so that no merge crosses one."""
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(PLACEHOLDERS)})", text):
        if piece in PLACEHOLDERS:
            ids.append(PLACEHOLDERS[piece])
        elif piece:
            ids.extend(tokenizer.encode(piece))
    return ids


def _sentence_ids(sentences: tuple[str, ...], tokenizer: Tokenizer) -> list[int]:
    return [*tokenizer.encode("".join(f" {sentence}." for sentence in sentences)), tokenizer.seg_token_id]


def _chat(human: str, answer: str) -> str:
    return f"[INST] <<SYS>>\n{_SYSTEM}\n<</SYS>>\n\n{human} [/INST] {answer} <|endoftext|>"

"""Folders of semantic maps, truth and answers, picture by picture into one confusion matrix.

A map is a PNG whose pixel values are category numbers from 0: indexed, 8-bit or 16-bit grey; truth and answer have the same file name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...stream.errors import BadInput
from .semantic_metrics import IGNORED, SemanticScore, confusion, score

GREY_MODES = ("P", "L", "I", "I;16")


def score_semantic(
    truth: Path, answers: Path, categories: int, ignored: int = IGNORED, advance: Callable[[int], None] = lambda total: None
) -> SemanticScore:
    """Score every map of the truth's folder; answers for others are passed over. advance(total) is called after each. Raises BadInput."""
    files = sorted(truth.glob("*.png"))
    if not files:
        raise BadInput(f"{truth} holds no *.png, expected a semantic map a picture; name the folder that holds them")
    if missing := [file.name for file in files if not (answers / file.name).exists()]:
        raise BadInput(f"{answers} lacks {len(missing)} of {len(files)} maps, the first is {missing[0]}; answer them all")
    total = np.zeros((categories, categories), np.int64)
    for file in files:
        try:
            total += confusion(read_numbers(file), read_numbers(answers / file.name), categories, ignored)
        except BadInput as error:
            raise BadInput(f"{file.name}: {error}") from error
        advance(len(files))
    return score(total)


def read_numbers(path: Path) -> np.ndarray:
    """The category numbers of a map, int64 [H, W]. Raises BadInput."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in GREY_MODES:
                raise BadInput(f"{path} is a {image.mode} picture, expected an indexed or grey PNG; its values are the category numbers")
            return np.array(image).astype(np.int64)
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{path} cannot be read ({error}), expected a PNG; write it again") from error

"""From a picture or mask of any size to the padded square PSALM looks at, and the geometry that leads back.

numpy and PIL only: nothing here knows tensors. The way back for predicted masks is in postprocess.py; prompts become masks in
visual_prompts.py. Notation: S, the side of the square; H x W, source pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

PAD_VALUE = 128
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a picture lies in its padded square: size_hw = (H, W) of the source, valid_hw its size inside (top left), padded = S."""

    size_hw: tuple[int, int]
    valid_hw: tuple[int, int]
    padded: int


def geometry(size_hw: tuple[int, int], side: int) -> Geometry:
    """Fit a picture of size (H, W) into a square: its long side becomes `side`, small pictures are enlarged.

    The short side is scaled to `side` first and the result back, in floating point: that decides how halves round.
    Source: PSALM's data mapper.
    """
    scale = side / min(size_hw)
    height, width = (side if length == min(size_hw) else scale * length for length in size_hw)
    longest = max(height, width)
    if longest > side:
        height, width = height * (side / longest), width * (side / longest)
    return Geometry((size_hw[0], size_hw[1]), (max(int(height + 0.5), 1), max(int(width + 0.5), 1)), side)


def pad_image(rgb: np.ndarray, side: int) -> np.ndarray:
    """Resize (PIL bilinear, antialiased when shrinking) and pad right and bottom with 128: uint8 [H, W, 3] to uint8 [S, S, 3]."""
    return _pad(rgb, side, Image.Resampling.BILINEAR, PAD_VALUE)


def pad_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resize (PIL nearest) and pad right and bottom with 0: bool or uint8 [H, W] to the same type, [S, S]."""
    return _pad(mask.astype(np.uint8), side, Image.Resampling.NEAREST, 0).astype(mask.dtype)


def _pad(pixels: np.ndarray, side: int, resampling: Image.Resampling, value: int) -> np.ndarray:
    height, width = geometry(pixels.shape[:2], side).valid_hw
    square = np.full((side, side, *pixels.shape[2:]), value, np.uint8)
    square[:height, :width] = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), resampling)
    return square

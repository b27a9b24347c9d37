"""Binary masks <-> COCO compressed run-lengths.

Encoding is pycocotools'. Decoding is ours: pycocotools 2.0.11 leaves the rest of a mask uninitialised when the counts end early, and masks
arrive from outside. Nothing here knows of objects or frames.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

from .errors import BadInput
from .pictures import MAX_PIXELS
from .types import Rle

_MAX_DIGITS = 8  # 5 bits each: runs up to 2**39 pixels, and no overflow of int64


def encode(mask: np.ndarray) -> Rle:
    """The run-lengths of a mask, bool [H, W]. Raises BadInput when it is not bool, not two-dimensional, or has no pixel."""
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
        raise BadInput(
            f"mask is {mask.dtype} {list(mask.shape)}, expected bool [H, W] with at least one pixel; compare or threshold it first"
        )
    height, width = mask.shape
    return Rle((height, width), coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"])


def decode(rle: Rle) -> np.ndarray:
    """The mask of a run-length: bool [H, W], C-contiguous. Raises BadInput when the counts are malformed or do not fill the size."""
    height, width = rle.size_hw
    runs = _runs(rle)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def area(rle: Rle) -> int:
    """Number of pixels that are set. Raises BadInput like decode."""
    return int(_runs(rle)[1::2].sum())


def _runs(rle: Rle) -> np.ndarray:
    """Lengths of alternating runs of 0 and 1 in column-major order, int64, adding up to H x W.

    Source: COCO's compressed counts: 5-bit digits, lowest first, each a byte from 48 on with bit 5 set while more follow, bit 4 of the last
    one the sign; from the fourth run on, the difference to the run before the previous one.
    """
    height, width = rle.size_hw
    if height * width > MAX_PIXELS:  # a run-length of a few bytes may not make a worker ask for gigabytes
        raise BadInput(f"run-length is of {height} x {width} pixels, expected at most {MAX_PIXELS:,} in all; send the mask smaller")
    digits = np.frombuffer(rle.counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((digits & 32) == 0)
    if height < 1 or width < 1 or not len(digits) or digits.min() < 0 or digits.max() > 63 or last[-1:].tolist() != [len(digits) - 1]:
        raise _malformed(rle, "is no COCO run-length")
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > _MAX_DIGITS:
        raise _malformed(rle, "holds an impossible run")
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), first)
    runs -= np.where(digits[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0 or runs.sum() != height * width:
        raise _malformed(rle, f"describes {runs.sum()} pixels")
    return runs


def _malformed(rle: Rle, found: str) -> BadInput:
    height, width = rle.size_hw
    return BadInput(
        f"run-length of {len(rle.counts)} bytes {found}, expected compressed counts of {height} x {width} (height x width) pixels; "
        "encode the mask again with pycocotools"
    )

"""Run-lengths: exact both ways, the same bytes and pixels as pycocotools, and never a pixel that was not sent."""

import numpy as np
import pytest
from psalm_stream.stream import rle
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.types import Rle
from pycocotools import mask as coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 on numpy 2

SIZES = [(1, 1), (1, 7), (7, 1), (5, 9), (33, 64), (480, 854)]


def noise(size_hw, share=0.5):
    return np.random.default_rng(sum(size_hw)).random(size_hw) < share


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_mask_survives_the_round_trip(size_hw, share):
    mask = noise(size_hw, share)
    decoded = rle.decode(rle.encode(mask))
    assert np.array_equal(decoded, mask)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("size_hw", SIZES)
def test_counts_are_those_of_pycocotools(size_hw):
    mask = noise(size_hw, 0.3)
    encoded = rle.encode(mask)
    theirs = {"size": list(size_hw), "counts": encoded.counts}
    assert encoded.counts == coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    assert np.array_equal(coco.decode(theirs).astype(bool), rle.decode(encoded))


@pytest.mark.parametrize("size_hw", SIZES)
def test_area_counts_the_pixels_that_are_set(size_hw):
    mask = noise(size_hw, 0.2)
    assert rle.area(rle.encode(mask)) == mask.sum()


def test_a_mask_that_is_a_view_is_encoded_as_it_looks():
    mask = noise((20, 30))
    assert np.array_equal(rle.decode(rle.encode(mask[::2, ::-3])), mask[::2, ::-3])


@pytest.mark.parametrize(
    "mask",
    [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 1), bool), np.zeros(9, bool), np.zeros((0, 4), bool), np.zeros((3, 3), np.float32)],
    ids=["uint8", "3d", "1d", "no pixel", "float"],
)
def test_what_is_no_mask_is_refused_by_dtype_and_shape(mask):
    with pytest.raises(BadInput, match=str(mask.dtype)):
        rle.encode(mask)


def numbers(*values):
    """COCO's digits of raw numbers: the first three runs as they are, then differences."""
    text = b""
    for value in values:
        while not -16 <= value <= 15:
            text += bytes([48 + (value & 31 | 32)])
            value >>= 5
        text += bytes([48 + (value & 31)])
    return text


GOOD = rle.encode(noise((7, 5))).counts


@pytest.mark.parametrize(
    "counts",
    [b"", GOOD[:-1], GOOD + b"5", b"zzzz", b"\xff\xfe", b"\x00", b"T2T2", b"bad", numbers(40, -5), numbers(2**62, 2**62, 2**62, 35)],
    ids=[
        "empty",
        "cut",
        "longer",
        "wrong sum",
        "not ascii",
        "below the alphabet",
        "open number",
        "no number ends",
        "negative run",
        "sum of 2**64 + 35",
    ],
)
@pytest.mark.parametrize("read", [rle.decode, rle.area])
def test_malformed_counts_are_refused(counts, read):
    with pytest.raises(BadInput, match="7 x 5"):
        read(Rle((7, 5), counts))


def test_any_bytes_are_either_refused_or_a_mask_pycocotools_reads_alike():
    draw = np.random.default_rng(0)
    accepted = 0
    for _ in range(3000):
        counts = bytes(draw.integers(48, 64, draw.integers(1, 6), dtype=np.uint8))
        try:
            mask = rle.decode(Rle((4, 3), counts))
        except BadInput:
            continue
        accepted += 1
        assert np.array_equal(mask, coco.decode({"size": [4, 3], "counts": counts}).astype(bool))
    assert accepted > 50

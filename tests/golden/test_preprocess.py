"""Resizing and padding against recorded official pictures and masks."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psalm_stream.psalm import preprocess
from safetensors.numpy import load_file

GOLDEN = Path(os.environ.get("PSALM_GOLDEN") or Path(__file__).parents[3] / "shared/golden/psalm-tiny")
if not (GOLDEN / "config.json").exists():
    pytest.skip(f"no golden data at {GOLDEN}; set PSALM_GOLDEN", allow_module_level=True)

CONFIG = json.loads((GOLDEN / "config.json").read_text())
SIDE = CONFIG["image_size"]
CASE = json.loads((GOLDEN / "cases/preprocess.json").read_text())
TENSORS = load_file(GOLDEN / "cases/preprocess.safetensors")
ITEMS = range(len(CASE["items"]))


def pixels(name):
    return np.asarray(Image.open(GOLDEN / name).convert("RGB"))


def bits(name, shape):
    return np.unpackbits(TENSORS[name], count=int(np.prod(shape))).reshape(shape).astype(bool)


@pytest.mark.parametrize("item", ITEMS)
def test_a_padded_picture_is_bit_exact(item):
    recorded = pixels(CASE["padded_images"][f"{item}.image_padded_u8"][0])
    assert np.array_equal(preprocess.pad_image(pixels(CASE["items"][item]["image"]), SIDE), recorded)


@pytest.mark.parametrize("item", ITEMS)
def test_the_valid_part_is_the_recorded_one(item):
    case = CASE["items"][item]
    height, width = preprocess.geometry((case["height"], case["width"]), SIDE).valid_hw
    padding = np.ones((SIDE, SIDE), bool)
    padding[:height, :width] = False
    assert [height, width] == case["valid_hw"]
    assert np.array_equal(padding, bits(f"{item}.padding_mask_packed", (SIDE, SIDE)))


@pytest.mark.parametrize("item", ITEMS)
def test_a_padded_mask_is_bit_exact(item):
    case = CASE["items"][item]
    mask = bits(f"{item}.mask_packed", (case["height"], case["width"]))
    assert np.array_equal(preprocess.pad_mask(mask, SIDE), bits(f"{item}.mask_padded_packed", (SIDE, SIDE)))


@pytest.mark.parametrize("item", [item for item in ITEMS if f"{item}.image" in TENSORS])
def test_a_normalised_picture_agrees_to_a_millionth(item):
    padded = preprocess.pad_image(pixels(CASE["items"][item]["image"]), SIDE)
    np.testing.assert_allclose(preprocess.normalize(padded), TENSORS[f"{item}.image"], rtol=0, atol=1e-6)


def test_the_constants_are_the_recorded_ones():
    constants = [preprocess.PIXEL_MEAN, preprocess.PIXEL_STD, preprocess.PAD_VALUE]
    assert constants == [tuple(CONFIG["pixel_mean"]), tuple(CONFIG["pixel_std"]), CONFIG["pad_value"]]

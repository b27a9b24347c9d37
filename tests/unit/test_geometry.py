"""How pictures and masks of odd sizes are laid into the padded square."""

import numpy as np
import pytest
import torch
from psalm_stream.psalm.model import normalize
from psalm_stream.psalm.preprocess import PAD_VALUE, geometry, pad_image, pad_mask


@pytest.mark.parametrize(
    ("size_hw", "valid_hw"),
    [((1, 1), (64, 64)), ((64, 64), (64, 64)), ((48, 64), (48, 64)), ((480, 854), (36, 64)), ((854, 480), (64, 36)), ((1, 3000), (1, 64))],
)
def test_the_long_side_fills_the_square_and_no_side_vanishes(size_hw, valid_hw):
    assert geometry(size_hw, 64).valid_hw == valid_hw


def test_a_half_rounds_as_scaling_in_two_steps_leaves_it():
    assert 93 * 256 / 512 == 46.5
    assert geometry((93, 512), 256).valid_hw == (46, 256)


def test_a_mask_shrinks_by_picking_pixels_not_by_averaging():
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    assert pad_mask(mask, 2).tolist() == [[True, False], [False, False]]


def test_a_padded_picture_keeps_its_pixels_top_left_and_is_gray_elsewhere():
    rgb = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)
    padded = pad_image(rgb, 32)
    assert np.array_equal(padded[:, :16], rgb)
    assert (padded[:, 16:] == PAD_VALUE).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_a_padded_mask_keeps_its_type_and_grows_by_whole_pixels(dtype):
    padded = pad_mask(np.array([[0, 1], [1, 0]], dtype)[:, :, None].repeat(2, 2).reshape(2, 4), 8)
    assert padded.dtype == dtype
    assert padded.astype(int).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2 + [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[0] * 8] * 4


def test_read_only_pixels_are_accepted():
    rgb = np.zeros((5, 7, 3), np.uint8)
    rgb.flags.writeable = False
    assert pad_image(rgb[:, ::-1], 16).shape == (16, 16, 3)


def test_every_channel_of_a_batch_is_normalised_by_its_own_mean_and_deviation():
    batch = torch.full((2, 3, 4, 4), 200, dtype=torch.uint8)
    result = normalize(batch)
    assert result.shape == (2, 3, 4, 4)
    assert result[1, :, 0, 0].tolist() == pytest.approx([(200 - 123.675) / 58.395, (200 - 116.28) / 57.12, (200 - 103.53) / 57.375])

"""Masks carried by dense flow."""

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.motion import carry
from tracker_scenes import iou, square, texture


def moved(image, dx, dy):
    return cv2.warpAffine(image, np.float32([[1, 0, dx], [0, 1, dy]]), image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(("size_hw", "dx", "dy"), [((96, 128), 5, 0), ((96, 128), -4, 6), ((130, 70), 0, -5), ((40, 200), 3, 1)])
def test_a_mask_follows_the_picture(size_hw, dx, dy):
    previous = texture(3, size_hw)
    mask = square(25, 12, side=18, size_hw=size_hw)
    carried = carry({4: mask}, previous, moved(previous, dx, dy))
    assert iou(carried[4], square(25 + dx, 12 + dy, side=18, size_hw=size_hw)) > 0.95


def test_a_still_picture_leaves_masks_as_they_are():
    image = texture(1)
    masks = {1: square(10, 10), 2: square(-5, 80)}
    carried = carry(masks, image, image)
    assert all(np.array_equal(carried[i], mask) for i, mask in masks.items())


def test_touching_masks_stay_disjoint():
    previous = texture(2)
    masks = {1: square(20, 20), 2: square(44, 20)}
    carried = carry(masks, previous, moved(previous, 0.5, 0.5))
    assert not (carried[1] & carried[2]).any()


def test_a_mask_that_leaves_the_frame_is_left_out():
    wide = texture(5, (96, 160))
    carried = carry({1: square(0, 40, side=6), 2: square(60, 40)}, wide[:, :128], np.ascontiguousarray(wide[:, 8:136]))
    assert set(carried) == {2}


def test_nothing_to_carry_needs_no_flow():
    assert carry({}, np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0, 3), np.uint8)) == {}


def test_a_frame_of_another_size_gets_a_mask_of_its_size():
    previous = texture(6)
    current = cv2.resize(previous, (192, 144), interpolation=cv2.INTER_LINEAR)
    carried = carry({1: square(20, 20, side=30)}, previous, current)
    assert iou(carried[1], square(30, 30, side=45, size_hw=(144, 192))) > 0.9


@pytest.mark.parametrize("size_hw", [(1, 1), (15, 40), (3, 300), (63, 12)])
def test_frames_too_small_for_flow_are_carried_all_the_same(size_hw):
    image, mask = texture(7, size_hw), np.ones(size_hw, bool)
    assert np.array_equal(carry({1: mask}, image, image)[1], mask)

"""Shapes become regions, or are refused by name."""

import numpy as np
import pytest
from psalm_stream.psalm.visual_prompts import grow, rasterize
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.rle import encode
from psalm_stream.stream.types import Box, Mask, Points, Scribble

NAN = float("nan")


def near(pixels, radius, size_hw):
    """Every pixel within `radius` of one of `pixels` (x, y), by the definition."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.any([(columns - x) ** 2 + (rows - y) ** 2 <= radius**2 for x, y in pixels], axis=0)


@pytest.mark.parametrize(
    ("xy", "size_hw"),
    [(((30.0, 20.0),), (50, 60)), (((0.0, 0.0), (59.9, 49.9)), (50, 60)), (((30.7, 20.2),), (50, 60)), (((0.5, 0.5),), (1, 1))],
)
def test_a_click_is_a_disc_of_radius_ten_around_its_pixel(xy, size_hw):
    assert np.array_equal(rasterize(Points(xy), size_hw), near([(int(x), int(y)) for x, y in xy], 10, size_hw))


def test_a_straight_scribble_is_a_band_of_radius_five():
    stroke = [(x, 20) for x in range(10, 41)]
    assert np.array_equal(rasterize(Scribble(((10.0, 20.0), (40.0, 20.0))), (50, 60)), near(stroke, 5, (50, 60)))


def test_a_scribble_of_one_vertex_is_a_disc():
    assert np.array_equal(rasterize(Scribble(((9.0, 7.0),)), (20, 20)), near([(9, 7)], 5, (20, 20)))


def test_a_scribble_follows_its_corners():
    region = rasterize(Scribble(((5.0, 5.0), (40.0, 5.0), (40.0, 30.0))), (50, 60))
    assert region[5, 20]
    assert region[20, 40]
    assert not region[20, 20]


@pytest.mark.parametrize(
    ("xyxy", "rows", "columns"),
    [((2, 1, 5, 4), slice(1, 4), slice(2, 5)), ((0, 0, 8, 6), slice(0, 6), slice(0, 8)), ((2.4, 1.6, 2.6, 1.7), slice(1, 2), slice(2, 3))],
)
def test_a_box_fills_every_pixel_it_touches_and_ends_before_its_far_corner(xyxy, rows, columns):
    expected = np.zeros((6, 8), bool)
    expected[rows, columns] = True
    assert np.array_equal(rasterize(Box(xyxy), (6, 8)), expected)


def test_a_mask_is_itself():
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    assert np.array_equal(rasterize(Mask(encode(mask)), (7, 9)), mask)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Points(()), "without a single point"),
        (Points(((8.0, 3.0),)), r"\(8.0, 3.0\).*x < 8"),
        (Points(((1.0, 1.0), (-0.1, 3.0))), "-0.1"),
        (Points(((NAN, 3.0),)), "nan"),
        (Scribble(()), "without a single"),
        (Scribble(((1.0, 1.0), (1.0, 6.0))), "y < 6"),
        (Box((2, 2, 2, 4)), "x0 < x1"),
        (Box((5, 1, 2, 4)), "x0 < x1"),
        (Box((0, 0, 8.5, 4)), "x1 <= 8"),
        (Box((0, -1, 4, 4)), "0 <= y0"),
        (Box((0, 0, NAN, 4)), "nan"),
        (Mask(encode(np.ones((6, 7), bool))), r"\(6, 7\).*\(6, 8\)"),
        (Mask(encode(np.zeros((6, 8), bool))), "no pixel"),
    ],
)
def test_a_shape_that_does_not_fit_its_frame_is_refused_with_the_numbers(shape, expected):
    with pytest.raises(BadPrompt, match=expected):
        rasterize(shape, (6, 8))


def test_growing_nothing_gives_nothing():
    assert not grow(np.zeros((30, 30), bool), 10).any()

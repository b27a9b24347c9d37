"""Which proposal answers a drawn shape: by score alone, or by what also fits."""

import numpy as np
import pytest
from psalm_stream.psalm.interactive import pick_shapes
from psalm_stream.psalm.visual_prompts import rasterize
from psalm_stream.stream import rle
from psalm_stream.stream.types import Box, Mask, Points, Proposals, Scribble

SIZE_HW = (40, 60)


def block(top, left, bottom, right):
    mask = np.zeros(SIZE_HW, bool)
    mask[top:bottom, left:right] = True
    return mask


LEFT, RIGHT, NOTHING = block(5, 5, 35, 25), block(5, 35, 35, 55), np.zeros(SIZE_HW, bool)
MASKS = np.array([LEFT, RIGHT, NOTHING])


def picks(scores, *shapes, official=False):
    proposals = Proposals(np.array(scores, np.float32), lambda queries: MASKS[list(queries)])
    return pick_shapes([(shape, rasterize(shape, SIZE_HW)) for shape in shapes], proposals, official)


@pytest.mark.parametrize(
    "shape", [Points(((45.0, 20.0),)), Box((35, 5, 55, 35)), Scribble(((40.0, 10.0), (50.0, 30.0))), Mask(rle.encode(block(6, 36, 34, 54)))]
)
def test_of_equal_scores_the_proposal_that_fits_the_shape_wins(shape):
    (pick,) = picks([[0.6, 0.6, 0.6]], shape)
    assert np.array_equal(pick.mask, RIGHT)
    assert pick.score == pytest.approx(0.6)


def test_of_equal_scores_the_better_fit_wins():
    (pick,) = picks([[0.6, 0.6, 0.0]], Box((20, 5, 55, 35)))
    assert np.array_equal(pick.mask, RIGHT)


def test_a_much_better_score_wins_over_a_fit_that_both_have():
    (pick,) = picks([[0.9, 0.3, 0.0]], Box((5, 5, 55, 35)))
    assert np.array_equal(pick.mask, LEFT)


def test_officially_the_score_alone_decides():
    (pick,) = picks([[0.6, 0.5, 0.7]], Points(((45.0, 20.0),)), official=True)
    assert np.array_equal(pick.mask, NOTHING)


def test_a_shape_that_no_proposal_meets_is_not_found():
    assert picks([[0.9, 0.0, 0.9]], Box((35, 5, 55, 35))) == [None]


def test_every_shape_is_answered_for_itself_and_may_get_the_same_proposal():
    first, second = picks([[0.9, 0.1, 0.1]] * 2, Box((5, 5, 25, 35)), Points(((10.0, 10.0),)))
    assert np.array_equal(first.mask, second.mask)


def test_no_shape_has_no_answer():
    assert picks(np.zeros((0, 3))) == []

"""Overlap of masks, ownership of pixels, and the distribution of proposals."""

import numpy as np
import pytest
from psalm_stream.psalm.overlap import best_distinct, corrected, disjoint, outlined_by, pair_iou, stack
from scipy.optimize import linear_sum_assignment


@pytest.mark.parametrize(("n", "m", "size_hw"), [(1, 1, (1, 1)), (3, 2, (5, 7)), (2, 4, (9, 3)), (0, 3, (4, 4)), (3, 0, (4, 4))])
def test_iou_is_intersection_over_union_of_every_pair(n, m, size_hw):
    random = np.random.default_rng(n + 10 * m)
    first, second = random.random((n, *size_hw)) < 0.6, random.random((m, *size_hw)) < 0.6
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in second] for a in first]
    np.testing.assert_allclose(pair_iou(first, second), np.reshape(expected, (n, m)), atol=1e-15)


def test_two_empty_masks_have_no_overlap():
    assert pair_iou(stack([np.zeros((3, 3), bool)], (3, 3)), np.zeros((1, 3, 3), bool)) == 0


def test_pixels_go_to_the_highest_priority_and_at_a_tie_to_the_earlier_mask():
    masks = [np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool), np.array([[0, 1, 1, 1]], bool)]
    owned = disjoint(masks, [0.5, 0.9, 0.9])
    assert np.array_equal(np.array(owned)[:, 0], [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("seed", range(20))
def test_the_distribution_has_the_greatest_total(seed):
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 7), random.integers(1, 12)
    worth = random.random((rows, columns)) * (random.random((rows, columns)) < 0.7)
    chosen = best_distinct(worth)
    taken = [c for c in chosen if c is not None]
    assert len(taken) == len(set(taken))
    assert sum(worth[k, c] for k, c in enumerate(chosen) if c is not None) == pytest.approx(
        worth[linear_sum_assignment(worth, maximize=True)].sum()
    )


@pytest.mark.parametrize(
    ("worth", "chosen"),
    [
        (np.zeros((0, 3)), []),
        (np.zeros((2, 0)), [None, None]),
        (np.zeros((2, 3)), [None, None]),
        (np.array([[0.9, 0.8], [0.85, 0.0]]), [1, 0]),
        (np.array([[0.3], [0.4], [0.2]]), [None, 0, None]),
    ],
)
def test_a_row_without_worth_gets_nothing(worth, chosen):
    assert best_distinct(worth) == chosen


@pytest.mark.parametrize(("reach", "changed"), [(0.4, 0), (1.0, 1), (2.0, 1)])
def test_near_its_outline_a_proposal_yields_to_the_carried_mask(reach, changed):
    proposal = np.zeros((12, 16), bool)
    proposal[3:9, 3:9] = True
    carried = proposal.copy()
    carried[3, 5] = False  # a notch in the outline
    carried[4:8, 14:] = True  # far away: drift
    found = outlined_by(carried, proposal, reach)
    assert (found != proposal).sum() == changed


def test_inside_the_proposal_a_hole_of_the_carried_mask_is_filled():
    proposal = np.ones((15, 15), bool)
    proposal[:, 12:] = False
    carried = proposal.copy()
    carried[5:8, 2:5] = False
    assert np.array_equal(outlined_by(carried, proposal, 2), proposal)


def test_a_correction_neither_appears_far_outside_nor_loses_the_core():
    carried = np.zeros((40, 40), bool)
    carried[10:30, 10:30] = True
    proposal = np.zeros((40, 40), bool)
    proposal[9:30, 10:30] = True  # one row more
    proposal[2:5, 2:5] = True  # far outside
    proposal[18:22, 18:22] = False  # deep inside
    expected = carried.copy()
    expected[9, 10:30] = True
    assert np.array_equal(corrected(carried, proposal, 3), expected)

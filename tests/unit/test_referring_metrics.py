"""cIoU, gIoU, N-acc. and T-acc. on masks small enough to count by hand."""

import math

import numpy as np
import pytest
from psalm_stream.eval.pictures.referring_metrics import Overlap, overlap, score


def row(*bits):
    return np.array([bits], bool)


NOTHING = row(0, 0, 0, 0)


def figures(*pairs):
    return score(overlap(truth, answer) for truth, answer in pairs)


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (row(1, 1, 0, 0), row(0, 1, 1, 1), Overlap(1, 4, 2, 3)),
        (row(1, 1, 0, 0), NOTHING, Overlap(0, 2, 2, 0)),
        (NOTHING, row(1, 0, 0, 0), Overlap(0, 1, 0, 1)),
        (NOTHING, NOTHING, Overlap(0, 0, 0, 0)),
        (row(1), row(1), Overlap(1, 1, 1, 1)),
    ],
)
def test_an_overlap_counts_pixels(truth, answer, expected):
    assert overlap(truth, answer) == expected


def test_ciou_weighs_pixels_and_giou_samples():
    found = figures((row(1, 1, 1, 1), row(1, 1, 1, 1)), (row(1, 0, 0, 0), row(1, 1, 0, 0)))
    assert found.ciou == (4 + 1) / (4 + 2)
    assert found.giou_exact == (1 + 1 / 2) / 2
    assert found.giou == pytest.approx((4 / (4 + 1e-5) + 1 / (2 + 1e-5)) / 2, abs=1e-15)
    assert found.giou < found.giou_exact


def test_nothing_rightly_answered_has_an_iou_of_one_and_no_pixels():
    found = figures((NOTHING, NOTHING), (row(1, 1, 0, 0), row(1, 0, 0, 0)))
    assert (found.giou_exact, found.ciou, found.n_acc, found.t_acc) == (0.75, 0.5, 1.0, 1.0)


def test_something_answered_where_nothing_is_has_an_iou_of_zero_and_its_pixels_count():
    found = figures((NOTHING, row(1, 1, 1, 0)), (row(1, 0, 0, 0), row(1, 0, 0, 0)))
    assert (found.giou_exact, found.ciou, found.n_acc) == (0.5, 1 / 4, 0.0)


def test_nothing_answered_where_something_is_lowers_t_acc_and_not_n_acc():
    found = figures((row(1, 1, 0, 0), NOTHING), (row(1, 0, 0, 0), row(0, 1, 0, 0)), (NOTHING, NOTHING), (NOTHING, row(1, 0, 0, 0)))
    assert (found.t_acc, found.n_acc, found.samples, found.without_target) == (0.5, 0.5, 4, 2)
    assert found.giou_exact == 1 / 4


@pytest.mark.parametrize(
    ("pairs", "undefined"), [([], "ciou giou n_acc t_acc"), ([(NOTHING, NOTHING)], "ciou t_acc"), ([(row(1), row(1))], "n_acc")]
)
def test_what_no_sample_tells_is_not_a_number(pairs, undefined):
    found = figures(*pairs)
    assert all(math.isnan(getattr(found, name)) for name in undefined.split())
    assert not any(math.isnan(getattr(found, name)) for name in {"ciou", "giou", "n_acc", "t_acc"} - set(undefined.split()))

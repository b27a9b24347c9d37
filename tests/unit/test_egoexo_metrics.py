"""The Ego-Exo4D scores against the eight golden vectors of the official code, and existence by hand."""

import math

import numpy as np
import pytest
from psalm_stream.eval.egoexo_metrics import balanced_accuracy, contour_accuracy, intersection_over_union, location_error

EGO, EXO = (480, 480), (270, 480)
SQUARE, TALL = ((100, 200), (100, 200)), ((100, 150), (200, 280))


def mask(size_hw, *boxes):
    out = np.zeros(size_hw, bool)
    for rows, columns in boxes:
        out[slice(*rows), slice(*columns)] = True
    return out


@pytest.mark.parametrize(
    ("truth", "answer", "iou", "contour", "location"),
    [
        (mask(EGO, SQUARE), mask(EGO, SQUARE), 1, 1, 0),
        (mask(EGO, SQUARE), mask(EGO, ((100, 200), (103, 203))), 0.941748, 1, 0.004419),
        (mask(EGO, SQUARE), mask(EGO, ((100, 200), (110, 210))), 0.818182, 0.515000, 0.014731),
        (mask(EGO, SQUARE), mask(EGO), 0, 0, 0.189583),
        (mask(EGO, SQUARE), mask(EGO, SQUARE, ((100, 110), (200, 300))), 0.909091, 0.803589, 0.073657),
        (mask(EXO, TALL), mask(EXO, ((100, 150), (210, 290))), 0.777778, 0.623077, 0.014731),
        (mask(EXO, TALL), mask(EXO), 0, 0, 0.229507),
        (mask(EXO), mask(EXO), 1, 1, 0),
    ],
)
def test_a_pair_of_masks_scores_as_the_official_code_scores_it(truth, answer, iou, contour, location):
    found = (intersection_over_union(truth, answer), contour_accuracy(truth, answer), location_error(truth, answer))
    assert found == pytest.approx((iou, contour, location), abs=1e-6)


@pytest.mark.parametrize(
    ("exists", "confidence", "expected"),
    [
        ([True, True, True, False], [0.9, 0.6, 0.1, 0.2], (2 / 3 + 1) / 2),
        ([True, False], [0.5, 0.5], 0.5),  # 0.5 is not above 0.5
        ([True, True], [0.9, 0.1], 0.5),  # only one case occurs
        ([False, False, False], [0.1, 0.2, 0.9], 2 / 3),
    ],
)
def test_balanced_accuracy_is_the_mean_share_of_right_answers_over_the_cases_that_occur(exists, confidence, expected):
    assert balanced_accuracy(np.array(exists), np.array(confidence)) == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_of_nothing_is_not_a_number():
    assert math.isnan(balanced_accuracy(np.zeros(0, bool), np.zeros(0)))

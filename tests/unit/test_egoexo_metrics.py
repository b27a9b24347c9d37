"""The Ego-Exo4D scores against the eight golden vectors of the official code, and existence by hand."""

import math

import numpy as np
import pytest
from psalm_stream.eval.egoexo.metrics import (
    balanced_accuracy,
    centroid_error,
    contour_accuracy,
    intersection_over_union,
    location_error,
    registered_contour_accuracy,
)

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


# -- the measures as documented ---------------------------------------------------------------------------------------

TAIL = mask(EGO, SQUARE, ((100, 110), (200, 300)))
CORNER = mask(EXO, ((0, 40), (0, 60)))


@pytest.mark.parametrize("shift", [(0, 0), (0, 10), (-37, 120), (80, 180)])
def test_a_registered_contour_does_not_depend_on_where_the_answer_lies(shift):
    truth, answer = mask(EGO, SQUARE), np.roll(mask(EGO, SQUARE), shift, axis=(0, 1))
    assert registered_contour_accuracy(truth, answer) == 1
    assert (contour_accuracy(truth, answer) == 1) == (shift == (0, 0))


def test_a_registered_contour_is_worse_for_another_shape():
    assert 0.3 < registered_contour_accuracy(mask(EGO, SQUARE), TAIL) < 0.9


@pytest.mark.parametrize(("truth", "answer", "expected"), [(mask(EXO), mask(EXO), 1), (mask(EXO), CORNER, 0), (CORNER, mask(EXO), 0)])
def test_a_registered_contour_of_an_empty_mask_is_right_only_for_an_empty_one(truth, answer, expected):
    assert registered_contour_accuracy(truth, answer) == expected


@pytest.mark.parametrize(
    ("truth", "answer", "pixels"),
    [
        (mask(EGO, SQUARE), mask(EGO, ((100, 200), (110, 210))), 10),
        (mask(EXO, TALL), mask(EXO, ((110, 160), (200, 280))), 10),
        (mask(EXO), mask(EXO), 0),
        (CORNER, mask(EXO), math.hypot(239.5 - 29.5, 134.5 - 19.5)),  # the middle of the frame, its axes not swapped
        (mask(EGO, SQUARE), TAIL, math.hypot(1000 * 100 / 11000, 1000 * 45 / 11000)),  # a tenth of the mass, 100 right and 45 up
    ],
)
def test_the_documented_location_error_is_between_centroids_over_the_true_diagonal(truth, answer, pixels):
    assert centroid_error(truth, answer) == pytest.approx(pixels / math.hypot(*truth.shape), abs=1e-12)


def test_the_official_location_error_of_an_empty_exo_answer_depends_on_swapped_axes():
    right = mask(EXO, ((105, 165), (200, 280)))  # in the middle of the frame: an empty answer is put there, if its axes are right
    assert centroid_error(right, mask(EXO)) == pytest.approx(0, abs=2e-3)
    assert location_error(right, mask(EXO)) > 0.2

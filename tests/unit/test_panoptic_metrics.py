"""Panoptic quality: every rule of panopticapi on maps small enough to count by hand, its quirks, and a second implementation beside it."""

import math

import numpy as np
import pytest
from psalm_stream.eval.pictures.panoptic_metrics import Tally, TruthSegment, add_picture, pixel_counts, quality

CAT, DOG, SKY = 1, 2, 3


def row(*ids):
    return np.array([ids], np.int32)


def tallied(truth, answer, true_segments, answered, corrected=False):
    """Tallies of one picture. true_segments: id -> category, or (category, options); areas as painted unless told."""
    segments = []
    for segment_id, category in true_segments.items():
        category, told = category if isinstance(category, tuple) else (category, {})
        segments.append(TruthSegment(segment_id, category, told.get("area", int((truth == segment_id).sum())), told.get("crowd", False)))
    tallies = {category: Tally() for category in (CAT, DOG, SKY)}
    add_picture(tallies, pixel_counts(truth, answer), segments, answered, corrected)
    return tallies


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (row(1, 1, 0), row(5, 0, 0), {(1, 5): 1, (1, 0): 1, (0, 0): 1}),
        (row(7), row(7), {(7, 7): 1}),
        (np.array([[1, 2], [1, 1]]), np.array([[3, 3], [3, 9]]), {(1, 3): 2, (2, 3): 1, (1, 9): 1}),
        (row(256**3 - 1), row(0), {(256**3 - 1, 0): 1}),
    ],
)
def test_pixels_are_counted_by_pair_of_ids(truth, answer, expected):
    assert pixel_counts(truth, answer) == expected


def test_pixel_counts_equal_a_plain_count_on_random_maps():
    random = np.random.default_rng(0)
    truth, answer = random.integers(0, 5, (2, 37, 23))
    plain = {(t, a): int(((truth == t) & (answer == a)).sum()) for t in range(5) for a in range(5)}
    assert pixel_counts(truth, answer) == plain


@pytest.mark.parametrize(
    ("truth", "answer", "answered", "expected"),
    [
        (row(1, 1, 1, 0), row(9, 9, 0, 0), {9: CAT}, Tally(iou=2 / 3, matched=1)),
        (row(1, 1, 1, 1), row(9, 9, 0, 0), {9: CAT}, Tally(wrong=1, missed=1)),  # IoU of 0.5 is no match
        (row(1, 1, 1, 2), row(9, 9, 9, 9), {9: CAT}, Tally(iou=3 / 4, matched=1)),
        (row(1, 1, 1, 0), row(0, 0, 0, 0), {}, Tally(missed=1)),
        (row(1, 1, 0, 0), row(9, 9, 9, 9), {9: CAT}, Tally(iou=1.0, matched=1)),  # void is left out of the union
    ],
)
def test_a_match_has_the_same_category_and_an_iou_above_one_half(truth, answer, answered, expected):
    assert tallied(truth, answer, {1: CAT, 2: DOG}, answered)[CAT] == expected


def test_another_category_on_the_same_pixels_is_a_miss_and_a_wrong_answer():
    found = tallied(row(1, 1), row(9, 9), {1: CAT}, {9: DOG})
    assert (found[CAT], found[DOG]) == (Tally(missed=1), Tally(wrong=1))


@pytest.mark.parametrize(("truth", "wrong"), [(row(0, 0, 0, 1), 0), (row(0, 0, 1, 1), 1), (row(0, 1, 1, 1), 1)])
def test_an_unmatched_answer_that_lies_mostly_on_void_is_not_counted(truth, wrong):
    assert tallied(truth, row(9, 9, 9, 9), {1: DOG}, {9: CAT})[CAT] == Tally(wrong=wrong)


@pytest.mark.parametrize(("category", "wrong"), [(CAT, 0), (DOG, 1)])
def test_a_crowd_is_neither_matched_nor_missed_and_excuses_answers_of_its_category(category, wrong):
    found = tallied(row(1, 1, 1, 1), row(9, 9, 9, 0), {1: (CAT, {"crowd": True})}, {9: category})
    assert found[category] == Tally(wrong=wrong)
    assert found[CAT].missed == 0


@pytest.mark.parametrize(("corrected", "wrong"), [(False, 1), (True, 0)])
def test_of_two_crowds_of_a_category_the_last_alone_excuses_unless_corrected(corrected, wrong):
    crowds = {1: (CAT, {"crowd": True}), 2: (CAT, {"crowd": True})}
    assert tallied(row(1, 1, 1, 2), row(9, 9, 9, 0), crowds, {9: CAT}, corrected)[CAT] == Tally(wrong=wrong)


@pytest.mark.parametrize(("corrected", "iou"), [(False, 2 / 6), (True, 2 / 2)])
def test_the_area_of_a_true_segment_is_what_its_json_says_unless_corrected(corrected, iou):
    found = tallied(row(1, 1, 0, 0), row(9, 9, 0, 0), {1: (CAT, {"area": 6})}, {9: CAT}, corrected)[CAT]
    assert found == (Tally(iou=1.0, matched=1) if iou > 0.5 else Tally(wrong=1, missed=1))


def test_a_true_id_that_the_json_does_not_list_is_not_void():
    assert tallied(row(1, 1, 8, 8), row(9, 9, 9, 9), {1: CAT}, {9: CAT})[CAT] == Tally(wrong=1, missed=1)


def test_a_figure_is_the_mean_over_categories_that_have_a_segment():
    tallies = [Tally(iou=1.6, matched=2, wrong=1, missed=1), Tally(missed=3), Tally()]
    found = quality(tallies)
    assert (found.pq, found.sq, found.rq) == pytest.approx(((1.6 / 3 + 0) / 2, (0.8 + 0) / 2, (2 / 3 + 0) / 2))
    assert found.categories == 2


def test_without_a_category_there_is_no_figure():
    assert math.isnan(quality([Tally()]).pq)


@pytest.mark.parametrize("seed", range(5))
def test_quality_equals_torchmetrics_where_there_is_no_void_and_no_crowd(seed):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.detection")
    random = np.random.default_rng(seed)
    blocks = random.integers(1, 7, (6, 8))
    truth = np.kron(blocks, np.ones((5, 5), np.int64))
    answer = np.where(random.random((30, 40)) < 0.2 * random.random(), np.roll(truth, 1, 1), np.roll(truth, random.integers(0, 2), 0))
    category_of = {i: 1 + (i + seed) % 3 for i in range(1, 7)}
    answered_as = {i: category_of[i] if random.random() < 0.8 else 1 + i % 3 for i in range(1, 7) if (answer == i).any()}

    def pairs(ids, categories):
        return torch.tensor(np.stack([np.vectorize(categories.get)(ids), ids], -1))[None]

    theirs = functional.panoptic_quality(
        pairs(answer, answered_as), pairs(truth, category_of), things={1, 2, 3}, stuffs={9}, return_sq_and_rq=True
    )
    ours = quality(tallied(truth, answer, {i: category_of[i] for i in np.unique(truth).tolist()}, answered_as).values())
    assert (ours.pq, ours.sq, ours.rq) == pytest.approx(tuple(theirs.flatten().tolist()), abs=1e-6)  # theirs is float32
    assert 0 < ours.pq < 1

"""The DAVIS scores: hand-computed frames, the golden toy run, an independent computation, and the published copy-first-mask table."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psalm_stream.eval.davis.metrics import average, boundary_f, boundary_map, boundary_radius, decay, jaccard, score_sequence, statistic
from psalm_stream.stream.errors import BadInput
from scipy.ndimage import distance_transform_edt

DAVIS = Path(os.environ.get("PSALM_DAVIS", Path(__file__).parents[3] / "shared" / "davis"))
EMPTY = np.zeros((6, 8), bool)


def box(size_hw, rows, columns):
    """A mask that is True on half-open row and column ranges."""
    mask = np.zeros(size_hw, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def bits(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


# -- per frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (box((6, 8), (1, 3), (1, 3)), EMPTY, 0.0),
        (EMPTY, box((6, 8), (1, 3), (1, 3)), 0.0),
        (box((6, 8), (1, 3), (1, 5)), box((6, 8), (1, 3), (3, 7)), 4 / 12),
        (np.ones((1, 1), bool), np.ones((1, 1), bool), 1.0),
    ],
)
def test_jaccard_is_intersection_over_union_and_one_when_both_are_empty(truth, answer, expected):
    assert jaccard(truth, answer) == expected


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (box((6, 8), (2, 4), (2, 4)), EMPTY, 0.0),
        (EMPTY, box((6, 8), (2, 4), (2, 4)), 0.0),
        (box((40, 40), (2, 4), (2, 4)), box((40, 40), (30, 32), (30, 32)), 0.0),  # P + R = 0
        (np.ones((6, 8), bool), EMPTY, 1.0),  # a full frame has no boundary
        (np.ones((6, 8), bool), box((6, 8), (2, 4), (2, 4)), 0.0),
        (box((6, 8), (2, 4), (2, 4)), box((6, 8), (2, 4), (2, 4)), 1.0),
    ],
)
def test_boundary_f_follows_the_rules_for_empty_and_disjoint_boundaries(truth, answer, expected):
    assert boundary_f(truth, answer) == expected


def test_boundary_f_counts_both_boundaries_within_one_pixel_on_a_small_frame():
    # 1 px of tolerance; boundaries: truth 4 px of column 2 (last row: right neighbour only), answer a 3 x 3 ring of 8 px around (1, 5)
    truth, answer = box((4, 9), (0, 4), (0, 3)), box((4, 9), (1, 3), (4, 6))
    assert boundary_radius((4, 9)) == 1
    assert boundary_map(truth).sum() == 4
    assert boundary_map(answer).sum() == 8
    # the ring's column 3 (rows 0-2) lies next to column 2; rows 0-2 of column 2 lie next to it
    precision, recall = 3 / 8, 3 / 4
    assert boundary_f(truth, answer) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-15)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (bits("....", ".##.", ".##.", "...."), bits("###.", "#.#.", "###.", "....")),
        (bits("#.", "..", ".."), bits("#.", "..", "..")),
        (bits("..", "..", ".#"), bits("..", "##", "#.")),  # the corner itself has no neighbour
        (bits("...", "...", "##."), bits("...", "##.", ".#.")),  # last row: the right neighbour only
        (bits("..#", "..#", "..."), bits(".#.", ".##", "...")),  # last column: the lower neighbour only
        (bits("#"), bits(".")),
        (bits("#.#"), bits("##.")),
        (bits("#", ".", "#"), bits("#", "#", ".")),
    ],
)
def test_boundary_map_marks_pixels_that_differ_from_a_neighbour_right_below_or_diagonal(mask, expected):
    np.testing.assert_array_equal(boundary_map(mask).astype(bool), expected)


@pytest.mark.parametrize(("size_hw", "radius"), [((480, 854), 8), ((480, 480), 6), ((270, 480), 5), ((300, 400), 4), ((1, 1), 1)])
def test_boundary_tolerance_is_a_share_of_the_diagonal_rounded_up(size_hw, radius):
    assert boundary_radius(size_hw) == radius


def plain_f(truth, answer):
    """F by the letter: pixel loops for the boundary and exact Euclidean distances for the tolerance."""

    def edge(mask):
        height, width = mask.shape
        out = np.zeros(mask.shape, bool)
        for y in range(height):
            for x in range(width):
                neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                out[y, x] = any(mask[y, x] != mask[v, u] for v, u in neighbours if v < height and u < width)
        return out

    radius = np.ceil(0.008 * np.linalg.norm(truth.shape))
    true_edge, answer_edge = edge(truth), edge(answer)
    if not true_edge.any() or not answer_edge.any():
        return float(true_edge.any() == answer_edge.any())
    precision = np.mean(distance_transform_edt(~true_edge)[answer_edge] <= radius)
    recall = np.mean(distance_transform_edt(~answer_edge)[true_edge] <= radius)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (7, 1), (37, 61), (90, 350), (160, 90)])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5])
def test_boundary_f_equals_a_plain_computation_on_random_masks(size_hw, share):
    random = np.random.default_rng([*size_hw, round(share * 1e4)])
    for _ in range(4):
        y, x = (random.integers(0, n) for n in size_hw)
        truth = random.random(size_hw) < share
        answer = np.roll(truth, (1, 2), (0, 1)) ^ (random.random(size_hw) < share / 4)
        answer[y:, x:] |= random.random() < 0.5  # large blocks that touch the last row and column
        assert boundary_f(truth, answer) == pytest.approx(plain_f(truth, answer), abs=1e-15)


# -- statistics -------------------------------------------------------------------------------------------------------


def test_recall_counts_frames_strictly_above_one_half():
    assert statistic(np.array([0.5, 0.5000001, 1.0, 0.0])).recall == 0.5


@pytest.mark.parametrize(
    ("n", "first", "last"),
    [
        (1, [0], [0]),
        (3, [0, 1], [2]),
        (4, [0, 1], [2, 3]),
        (7, [0, 1, 2], [5, 6]),
        (10, [0, 1, 2], [7, 8, 9]),
        (256, range(65), range(191, 256)),
    ],
)
def test_decay_compares_first_and_last_quarter_sharing_their_edge_frames(n, first, last):
    values = np.random.default_rng(n).random(n)
    expected = values[list(first)].mean() - values[sorted(set(last))].mean()
    assert decay(values) == pytest.approx(expected, abs=1e-15)
    assert decay(values, edge_bits=8) == decay(values)


@pytest.mark.parametrize(
    ("n", "official_last"),
    [
        (300, []),  # edges 0, 75, 150, 224, 299: the last one wraps to 43, before the one it follows
        (400, range(43, 144)),  # edges 0, 100, 200, 299, 399: the last two wrap to 43 and 143
    ],
)
def test_decay_beyond_256_frames_wraps_like_the_official_one_and_is_right_beside_it(n, official_last):
    values = np.random.default_rng(n).random(n)
    found, quarter = statistic(values), n // 4
    official = values[: quarter + 1].mean() - values[official_last].mean() if official_last else math.nan
    assert found.decay == pytest.approx(official, abs=1e-15, nan_ok=True)
    assert found.decay_corrected == pytest.approx(values[: quarter + 1].mean() - values[n - quarter - 1 :].mean(), abs=1e-15)


# -- sequences --------------------------------------------------------------------------------------------------------


def toy_run():
    """The golden toy run: object 1 moves 20 px a frame along x and its answer runs ahead by 5 px a frame; object 2 leaves after frame 7."""
    truth, answers = [], []
    for i in range(12):
        true_map, answer = np.zeros((2, 480, 854), np.uint8)
        true_map[100:200, 50 + 20 * i : 150 + 20 * i] = 1
        answer[100:200, 50 + 25 * i : 150 + 25 * i] = 1
        if i < 8:
            true_map[300:360, 400:500] = answer[300:360, 400:500] = 2
        truth.append(true_map)
        answers.append(answer)
    return truth, answers


def test_golden_toy_run_gives_the_official_figures():
    score = score_sequence(*toy_run())
    first, second = score.objects
    assert (first.j.mean, first.j.recall, first.j.decay) == pytest.approx((0.5889898951068366, 0.6, 0.440286350331328), abs=1e-9)
    assert (first.f.mean, first.f.recall, first.f.decay) == pytest.approx((0.4915, 0.3, 0.3216666666666667), abs=1e-9)
    assert (second.j.mean, second.j.recall, second.j.decay, second.f.mean) == (1.0, 1.0, 0.0, 1.0)
    assert score.jf == pytest.approx(0.7701224737767092, abs=1e-9)


def test_first_and_last_frame_are_not_scored():
    truth = [np.full((5, 5), 1, np.uint8)] * 4
    answers = [np.zeros((5, 5), np.uint8), *truth[1:3], np.zeros((5, 5), np.uint8)]
    score = score_sequence(truth, answers)
    assert (len(score.objects[0].j_frames), score.j.mean) == (2, 1.0)


def test_void_in_the_truth_is_background_and_does_not_count_as_an_object():
    true_map = np.array([[1, 255, 0, 0]], np.uint8)
    answer = np.array([[1, 1, 0, 0]], np.uint8)
    score = score_sequence([true_map] * 3, [answer] * 3)
    assert [o.object_id for o in score.objects] == [1]
    assert score.j.mean == 0.5


def test_an_object_that_is_never_answered_scores_as_empty_masks():
    true_map = np.array([[1, 0, 2]], np.uint8)
    score = score_sequence([true_map] * 3, [np.array([[1, 0, 0]], np.uint8)] * 3)
    assert [o.j.mean for o in score.objects] == [1.0, 0.0]


def test_a_data_set_is_averaged_over_objects_and_not_over_sequences():
    two = score_sequence([np.array([[1, 0, 2]], np.uint8)] * 3, [np.array([[1, 0, 2]], np.uint8)] * 3)
    one = score_sequence([np.array([[1, 0, 0]], np.uint8)] * 3, [np.zeros((1, 3), np.uint8)] * 3)
    assert average([*two.objects, *one.objects]).j.mean == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([np.zeros((4, 4), np.uint8)] * 2, "2 answered label maps for 3"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), np.zeros((4, 4), np.uint8)], r"frame 1: .*\(4, 5\)"),
        ([np.full((4, 4), 2, np.uint8)] * 3, "object id 2, .* up to 1"),
    ],
)
def test_answers_that_do_not_fit_the_truth_are_refused_by_name(answers, words):
    with pytest.raises(BadInput, match=words):
        score_sequence([np.eye(4, dtype=np.uint8)] * 3, answers)


def test_an_id_beyond_the_first_true_map_is_allowed_on_frames_that_are_not_scored():
    truth = [np.eye(4, dtype=np.uint8)] * 3
    assert score_sequence(truth, [truth[0], truth[1], truth[2] * 2]).j.mean == 1.0


@pytest.mark.parametrize(
    ("sequence", "j", "f", "jf"), [("blackswan", 54.5, 33.4, 44.0), ("drift-chicane", 1.7, 2.7, 2.2), ("motocross-jump", 15.4, 10.1, 12.7)]
)
def test_copying_the_first_mask_gives_the_figures_of_the_official_code(sequence, j, f, jf):
    files = sorted((DAVIS / "Annotations" / "480p" / sequence).glob("*.png"))
    if not files:
        pytest.skip(f"no DAVIS annotations of {sequence} in {DAVIS}; set PSALM_DAVIS")
    truth = [np.array(Image.open(file)) for file in files]
    score = score_sequence(truth, [truth[0]] * len(truth))
    assert [round(100 * v, 1) for v in (score.j.mean, score.f.mean, score.jf)] == [j, f, jf]

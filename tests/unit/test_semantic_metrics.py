"""Mean IoU from a confusion matrix small enough to count by hand, and the folders it is read from."""

import math

import numpy as np
import pytest
from PIL import Image
from psalm_stream.eval.pictures.semantic_files import score_semantic
from psalm_stream.eval.pictures.semantic_metrics import confusion, score
from psalm_stream.stream.errors import BadInput


def row(*numbers):
    return np.array([numbers])


def test_a_confusion_matrix_has_the_truth_first_and_leaves_out_what_it_ignores():
    matrix = confusion(row(0, 0, 1, 255), row(0, 1, 1, 1), 2)
    assert matrix.tolist() == [[1, 1], [0, 1]]


def test_the_figures_of_a_matrix_counted_by_hand():
    found = score(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert found.iou[:2].tolist() == [3 / 4, 4 / 5]
    assert math.isnan(found.iou[2])
    assert found.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found.fwiou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert (found.pixels, found.accuracy, found.mean_accuracy) == (8, 7 / 8, (3 / 4 + 1) / 2)


def test_fwiou_weighs_a_category_by_its_true_pixels():
    assert score(np.array([[6, 0], [1, 1]])).fwiou == pytest.approx((6 / 7) * 6 / 8 + (1 / 2) * 2 / 8)


def test_a_category_that_is_answered_and_nowhere_true_counts_only_in_the_second_mean():
    found = score(np.array([[2, 2], [0, 0]]))
    assert (found.miou, found.miou_answered) == (1 / 2, 1 / 4)


def test_pixels_are_counted_over_all_pictures_and_not_picture_by_picture():
    first, second = confusion(row(0, 0, 0, 1), row(0, 0, 0, 0), 2), confusion(row(1, 1, 1, 1), row(1, 1, 1, 1), 2)
    assert score(first + second).miou == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_no_pixel_is_no_figure():
    found = score(confusion(row(255), row(0), 2))
    assert (found.pixels, math.isnan(found.miou), math.isnan(found.accuracy)) == (0, True, True)


@pytest.mark.parametrize(
    ("truth", "answer", "said"),
    [
        (row(0, 1), row(0), "is (1, 1), the true one (1, 2)"),
        (row(0, 2), row(0, 0), "true map has category 2, expected numbers from 0 to 1"),
        (row(0, 1), row(0, 255), "answered map has category 255"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(truth, answer, said):
    with pytest.raises(BadInput) as error:
        confusion(truth, answer, 2)
    assert said in str(error.value)


def folder(path, **maps):
    path.mkdir()
    for name, (mode, numbers) in maps.items():
        depth = np.uint16 if mode == "I;16" else np.uint8
        image = Image.fromarray(np.asarray(numbers, depth))
        if mode == "P":
            image.putpalette([0, 0, 0] * 256)
        (image.convert("RGB") if mode == "RGB" else image).save(path / f"{name}.png")
    return path


def test_maps_may_be_indexed_grey_or_of_16_bits(tmp_path):
    truth = folder(tmp_path / "truth", a=("P", [[0, 1]]), b=("L", [[1, 255]]), c=("I;16", [[0, 0]]))
    answers = folder(tmp_path / "answers", a=("L", [[0, 0]]), b=("P", [[1, 0]]), c=("L", [[0, 0]]), more=("L", [[0]]))
    found = score_semantic(truth, answers, 2)
    assert (found.pixels, found.iou.tolist()) == (5, [3 / 4, 1 / 2])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "lacks 1 of 1 maps, the first is a.png"),
        ({"a": ("RGB", [[0, 0]])}, "is a RGB picture, expected an indexed or grey PNG"),
        ({"a": ("L", [[0]])}, "a.png: the answered map is (1, 1)"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused_by_name(tmp_path, answers, said):
    with pytest.raises(BadInput) as error:
        score_semantic(folder(tmp_path / "truth", a=("L", [[0, 1]])), folder(tmp_path / "answers", **answers), 2)
    assert said in str(error.value)


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no"):
        score_semantic(tmp_path, tmp_path, 2)

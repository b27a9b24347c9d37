"""Questions and answers on disk: both layouts, every kind of segmentation, and what is said of files that cannot be scored."""

import json

import numpy as np
import pytest
from psalm_stream.eval.pictures.interactive_truth import official_truth
from psalm_stream.eval.pictures.referring_files import mask_of, read_answers, read_questions, union_of
from psalm_stream.eval.pictures.referring_scores import score_answers
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json
from psalm_stream.stream.errors import BadInput

SIZE_HW = (6, 8)
POLYGON = [1.9, 1.9, 4.9, 1.9, 4.9, 3.9, 1.9, 3.9]


def block(rows, columns, size_hw=SIZE_HW):
    mask = np.zeros(size_hw, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def run_length(mask):
    return rle_json(rle.encode(mask))


def lines(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


# -- masks -------------------------------------------------------------------------------------------------------------


def test_an_official_polygon_has_its_corners_cut_to_whole_pixels_and_both_ends_included():
    assert np.array_equal(mask_of([POLYGON], SIZE_HW), block((1, 4), (1, 5)))


def test_a_coco_polygon_follows_cocos_rules():
    assert np.array_equal(mask_of([POLYGON], SIZE_HW, "coco"), block((2, 4), (2, 5)))


@pytest.mark.parametrize("polygons", ["official", "coco"])
def test_several_polygons_are_one_object(polygons):
    two = [[0, 0, 2, 0, 2, 2, 0, 2], [5, 3, 7, 3, 7, 5, 5, 5]]
    expected = mask_of(two[:1], SIZE_HW, polygons) | mask_of(two[1:], SIZE_HW, polygons)
    assert np.array_equal(mask_of(two, SIZE_HW, polygons), expected)
    assert expected.sum() > 4


@pytest.mark.parametrize("nothing", [None, []])
def test_null_is_no_pixel(nothing):
    assert mask_of(nothing, SIZE_HW).sum() == 0
    assert union_of((), SIZE_HW).shape == SIZE_HW


def test_a_run_length_may_be_compressed_or_a_list_of_counts():
    mask = block((0, 2), (0, 1))
    assert np.array_equal(mask_of(run_length(mask), SIZE_HW), mask)
    assert np.array_equal(mask_of({"size": list(SIZE_HW), "counts": [0, 2, 46]}, SIZE_HW), mask)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [6, 9], "counts": [54]}, "of (6, 9), its picture (6, 8)"),
        ({"size": [6, 8]}, "cannot be read"),
        ({"size": [6, 8], "counts": "?"}, "expected"),
        ([["a"]], "cannot be read"),
        ([[1.0]], "cannot be read"),
        ("box", "cannot be read"),
    ],
)
def test_a_segmentation_that_cannot_be_read_is_refused(segmentation, said):
    with pytest.raises(BadInput) as error:
        mask_of(segmentation, SIZE_HW)
    assert said in str(error.value)


# -- interactive truth -------------------------------------------------------------------------------------------------


def test_a_region_that_the_padded_square_loses_is_not_scored():
    lone = np.zeros((100, 100), bool)
    lone[3, 3] = True
    assert official_truth([run_length(lone)], (100, 100), 32) is None
    assert official_truth([run_length(block((0, 50), (0, 50), (100, 100)))], (100, 100), 32).any()


def test_the_official_truth_is_the_original_where_the_square_is_as_large():
    mask = block((3, 20), (5, 31), (32, 32))
    assert np.array_equal(official_truth([run_length(mask)], (32, 32), 32), mask)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_line_is_a_question(tmp_path):
    path = lines(tmp_path / "gt.jsonl", {"id": 7, "size": [6, 8], "segmentation": None, "sentences": "the cup", "image": "a.jpg"})
    (question,) = read_questions(path)
    assert (question.id, question.size_hw, question.sentences, question.segmentations) == ("7", (6, 8), ("the cup",), ())


def psalm_items():
    info = {"file_name": "a.jpg", "height": 6, "width": 8}
    anns = [
        {"id": 5, "segmentation": [POLYGON], "point_visual_prompt_mask": {"size": [6, 8], "counts": [3, 1, 44]}},
        {"segmentation": run_length(block((0, 2), (0, 2)))},
    ]
    said = [{"sent": "left cup"}, {"sent": "cup"}]
    return [
        {"image": "a.jpg", "image_info": info, "instruction": said, "anns": anns, "new_img_id": 3},
        {"image": "a.jpg", "image_info": info, "instruction": said[:1], "anns": [], "new_img_id": 4},
    ]


def test_psalms_referring_file_is_a_question_an_item(tmp_path):
    path = tmp_path / "gref.json"
    path.write_text(json.dumps(psalm_items()))
    several, none = read_questions(path)
    assert (several.id, several.sentences, len(several.segmentations)) == ("3", ("left cup", "cup"), 2)
    assert union_of(several.segmentations, SIZE_HW).sum() == 12 + 4 - 1
    assert (none.id, none.segmentations) == ("4", ())


def test_psalms_interactive_file_is_a_question_a_region(tmp_path):
    path = tmp_path / "interactive.json"
    path.write_text(json.dumps(psalm_items()))
    first, second = read_questions(path, interactive=True)
    assert (first.id, second.id) == ("3/5", "3/1")
    assert (list(first.prompts), list(second.prompts)) == (["point"], [])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"id": 1, "segmentation": None}], "question 1: KeyError('size')"),
        ([{"id": 1, "size": [6], "segmentation": None}], "question 1"),
        ([{"id": 1, "size": [6, 8], "segmentation": None}] * 2, "1 ids are there more than once"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(tmp_path, entries, said):
    with pytest.raises(BadInput) as error:
        read_questions(lines(tmp_path / "gt.jsonl", *entries))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": 1}\n', "line 1: KeyError('segmentation')"),
        ("{\n", "line 1 is no JSON"),
        ('{"id": 1, "segmentation": null}\n' * 2, "line 2: id 1"),
    ],
)
def test_answers_that_cannot_be_read_are_refused(tmp_path, text, said):
    (tmp_path / "answers.jsonl").write_text(text)
    with pytest.raises(BadInput) as error:
        read_answers(tmp_path / "answers.jsonl")
    assert said in str(error.value)


def test_official_and_corrected_figures_differ_by_how_polygons_are_drawn(tmp_path):
    questions = read_questions(lines(tmp_path / "gt.jsonl", {"id": 1, "size": [6, 8], "segmentation": [POLYGON]}))
    found = score_answers(questions, {"1": run_length(block((2, 4), (2, 5)))})
    assert (found.official.ciou, found.corrected.ciou, found.dropped) == (6 / 12, 1.0, 0)


def test_a_region_left_out_of_the_official_score_is_in_the_corrected_one(tmp_path):
    tiny, large = np.zeros((100, 100), bool), block((0, 50), (0, 50), (100, 100))
    tiny[3, 3] = True
    entries = [{"id": n, "size": [100, 100], "segmentation": run_length(mask)} for n, mask in enumerate((tiny, large))]
    answers = {"0": run_length(tiny), "1": run_length(large)}
    found = score_answers(read_questions(lines(tmp_path / "gt.jsonl", *entries)), answers, side=32)
    assert (found.official.samples, found.corrected.samples, found.dropped) == (1, 2, 1)


@pytest.mark.parametrize(
    ("answers", "said"), [({}, "1 of 1 questions have no answer, the first is 1"), ({"1": None, "9": None}, "the first is 9")]
)
def test_answers_that_do_not_belong_to_the_questions_are_refused(tmp_path, answers, said):
    questions = read_questions(lines(tmp_path / "gt.jsonl", {"id": 1, "size": [6, 8], "segmentation": None}))
    with pytest.raises(BadInput) as error:
        score_answers(questions, answers)
    assert said in str(error.value)

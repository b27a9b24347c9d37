"""COCO's panoptic layout: ids as colours, segments as COCO lists them, categories of its files."""

import json

import numpy as np
import pytest
from psalm_stream.stream.coco import Category, categories_of, ids_to_rgb, read_json, rgb_to_ids, segments_info
from psalm_stream.stream.errors import BadInput


@pytest.mark.parametrize(
    ("panoptic_id", "rgb"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (256, (0, 1, 0)), (256**2, (0, 0, 1)), (7 + 256 * 8 + 256**2 * 9, (7, 8, 9))]
)
def test_an_id_is_a_colour_with_red_lowest(panoptic_id, rgb):
    colours = ids_to_rgb(np.array([[panoptic_id]], np.int32))
    assert tuple(colours[0, 0].tolist()) == rgb
    assert rgb_to_ids(colours)[0, 0] == panoptic_id


def test_every_id_comes_back_from_its_colour():
    ids = np.random.default_rng(0).integers(0, 256**3, (31, 17), np.int32)
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)


def test_a_segment_has_its_area_and_box():
    ids = np.zeros((5, 6), np.int32)
    ids[1:3, 2:6] = 4
    ids[4, 0] = 9
    assert segments_info(ids, {4: 17, 9: 1, 11: 2}) == [
        {"id": 4, "category_id": 17, "area": 8, "bbox": [2, 1, 4, 2], "iscrowd": 0},
        {"id": 9, "category_id": 1, "area": 1, "bbox": [0, 4, 1, 1], "iscrowd": 0},
    ]


@pytest.mark.parametrize("wrap", [lambda listed: listed, lambda listed: {"categories": listed, "images": []}])
def test_categories_are_a_list_or_under_their_name(wrap):
    listed = [
        {"id": 1, "name": "person", "isthing": 1, "color": [0, 0, 0]},
        {"id": 92, "name": "banner", "isthing": 0},
        {"id": 3, "name": "car"},
    ]
    assert categories_of(wrap(listed), "file") == (Category(1, "person", True), Category(92, "banner", False), Category(3, "car", True))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"categories": None},
        [],
        ["person"],
        [{"id": 1}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}],
    ],
)
def test_a_document_without_usable_categories_is_refused(document):
    with pytest.raises(BadInput, match=r"^file: .*categories"):
        categories_of(document, "file")


@pytest.mark.parametrize(("text", "said"), [(None, "does not exist"), ("{", "is no JSON")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, said):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=rf"a\.json {said}"):
        read_json(path)


def test_a_file_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1]}))
    assert read_json(tmp_path / "a.json") == {"a": [1]}

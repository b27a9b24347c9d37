"""The DAVIS layouts of 2017 and 2016, and everything that can be wrong with a folder."""

import re
import shutil

import numpy as np
import pytest
from davis_folder import davis_2016, davis_2017, label_map
from PIL import Image
from psalm_stream.eval.davis.layout import check_pictures, first_mask_prompt, ids_of, open_davis, read_labels
from psalm_stream.stream import rle
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.paint import PALETTE


@pytest.mark.parametrize(("write", "layout"), [(davis_2017, 2017), (davis_2016, 2016)])
def test_both_layouts_give_the_sequences_of_the_list_with_their_frames(tmp_path, write, layout):
    davis = open_davis(write(tmp_path))
    assert (davis.layout, davis.listed) == (layout, ("pair", "single"))
    assert [s.frames for s in davis.sequences] == [tuple(f"{i:05d}" for i in range(6))] * 2
    for sequence in davis.sequences:
        check_pictures(sequence)


def test_the_layout_of_2017_keeps_object_ids(tmp_path):
    (pair, _) = open_davis(davis_2017(tmp_path)).sequences
    np.testing.assert_array_equal(pair.true_map(3), label_map(3, (1, 2)))


def test_in_the_layout_of_2016_whatever_is_annotated_is_object_one(tmp_path):
    (pair, _) = open_davis(davis_2016(tmp_path)).sequences
    np.testing.assert_array_equal(pair.true_map(3), label_map(3, (1, 2)) > 0)
    assert pair.true_map(3).dtype == np.uint8


def test_a_folder_with_both_lists_is_of_2017(tmp_path):
    davis_2016(tmp_path)
    (tmp_path / "ImageSets/2017").mkdir()
    (tmp_path / "ImageSets/2017/val.txt").write_text("single\n")
    assert open_davis(tmp_path).layout == 2017


def test_sequences_that_are_named_come_in_the_order_of_the_list_and_cut(tmp_path):
    davis = open_davis(davis_2017(tmp_path), names=["single", "pair"], limit=4)
    assert [(s.name, len(s.labels)) for s in davis.sequences] == [("pair", 4), ("single", 4)]
    assert davis.listed == ("pair", "single")


@pytest.mark.parametrize("write", [davis_2017, davis_2016])
def test_frames_whose_numbers_are_not_padded_come_in_the_order_the_tracker_sees_them(tmp_path, write):
    write(tmp_path, frames=12)
    for path in [*tmp_path.glob("JPEGImages/480p/*/*"), *tmp_path.glob("Annotations/480p/*/*")]:
        path.rename(path.with_stem(str(int(path.stem))))
    for path in tmp_path.glob("ImageSets/480p/*"):
        path.write_text("".join(sorted(re.sub(r"/0+(?=\d)", "/", path.read_text()).splitlines(keepends=True))))
    sequence = open_davis(tmp_path).sequences[0]
    assert sequence.frames == tuple(map(str, range(12)))
    check_pictures(sequence)


def break_list(root, text):
    (root / "ImageSets/480p/val.txt").write_text(text)


@pytest.mark.parametrize(
    ("write", "damage", "options", "words"),
    [
        (
            davis_2017,
            lambda root: None,
            {"names": ["singel"]},
            r"sequence singel is not in .*val.txt; did you mean single\? It lists pair, single",
        ),
        (
            davis_2017,
            lambda root: None,
            {"set_name": "train"},
            r"no ImageSets/2017/train.txt and no ImageSets/480p/train.txt.* sets val: .*--set",
        ),
        (davis_2017, lambda root: None, {"limit": 2}, "limit is 2 frames, expected at least 3"),
        (davis_2017, lambda root: shutil.rmtree(root / "ImageSets"), {}, "no ImageSets/2017/val.txt.*give the folder of a DAVIS data set"),
        (
            davis_2017,
            lambda root: shutil.rmtree(root / "Annotations/480p/pair"),
            {},
            "sequence pair of .* has no annotation: .*pair is missing",
        ),
        (
            davis_2017,
            lambda root: (root / "ImageSets/2017/val.txt").write_text("\n"),
            {},
            "val.txt lists no sequence; expected one name a line",
        ),
        (
            davis_2016,
            lambda root: (root / "Annotations/480p/pair/00003.png").unlink(),
            {},
            "sequence pair: annotation .*00003.png is missing",
        ),
        (
            davis_2016,
            lambda root: break_list(root, "/a/pair/0.jpg\n"),
            {},
            "val.txt, line 1: '/a/pair/0.jpg', expected an image path and an ann",
        ),
        (
            davis_2016,
            lambda root: break_list(root, "/a/pair/0.jpg /b/pair/1.png\n"),
            {},
            "line 1: image 0.jpg and annotation 1.png are not of",
        ),
        (davis_2016, lambda root: break_list(root, ""), {}, "lists no sequence; expected an image and an annotation a line"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name_with_what_to_do(tmp_path, write, damage, options, words):
    damage(write(tmp_path))
    with pytest.raises(BadInput, match=words):
        open_davis(tmp_path, **options)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere is no folder; give the one that holds JPEGImages"):
        open_davis(tmp_path / "nowhere")


def test_a_sequence_too_short_to_be_scored_is_refused(tmp_path):
    with pytest.raises(BadInput, match="sequence pair has 2 annotated frames, expected at least 3"):
        open_davis(davis_2017(tmp_path, frames=2))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda images, labels: (labels / "00005.png").unlink(), "picture 00005 has no annotation .*00005.png is missing"),
        (lambda images, labels: (labels / "00002.png").unlink(), "picture 00002 has no annotation"),
        (lambda images, labels: (images / "00002.jpg").unlink(), "annotation 00002.png has no picture"),
        (lambda images, labels: (images / "00005.jpg").unlink(), "annotation 00005.png has no picture"),
        (lambda images, labels: shutil.rmtree(images), "folder .*pair is missing; unpack the pictures"),
        (lambda images, labels: (images / "00000.jpg").write_bytes(b"no"), "picture .*00000.jpg: .*; replace it"),
        (lambda images, labels: Image.new("L", (48, 36)).save(labels / "00000.png"), "00000.png is 48x36, its picture 96x72"),
        (lambda images, labels: Image.new("RGB", (96, 72)).save(labels / "00000.png"), "00000.png is a RGB picture, expected an indexed"),
    ],
)
def test_pictures_and_annotations_that_do_not_match_are_refused_before_anything_is_followed(tmp_path, damage, words):
    davis_2017(tmp_path)
    damage(tmp_path / "JPEGImages/480p/pair", tmp_path / "Annotations/480p/pair")
    with pytest.raises(BadInput, match=words):
        check_pictures(open_davis(tmp_path).sequences[0])


def test_pictures_beyond_a_cut_need_no_annotation(tmp_path):
    davis_2017(tmp_path)
    for index in (4, 5):
        (tmp_path / f"Annotations/480p/pair/{index:05d}.png").unlink()
    check_pictures(open_davis(tmp_path, names=["pair"], limit=4).sequences[0], whole=False)


@pytest.mark.parametrize(
    ("mode", "value", "binary", "expected"),
    [("P", 3, False, 3), ("L", 255, False, 255), ("L", 255, True, 1), ("P", 2, True, 1), ("1", 1, False, 1), ("RGB", (0, 0, 9), True, 1)],
)
def test_label_files_are_read_by_index_and_as_one_object_where_asked(tmp_path, mode, value, binary, expected):
    image = Image.new(mode, (4, 2))
    if mode == "P":
        image.putpalette(PALETTE.tobytes())
    image.putpixel((1, 0), value)
    image.save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", binary).tolist() == [[0, expected, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is missing"), (b"GIF89a", "is no PNG"), (b"\x89PNG\r\n\x1a\n", "is no PNG|cannot be read")]
)
def test_a_file_that_is_no_label_picture_is_refused_by_name(tmp_path, content, words):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadInput, match=rf"a.png ({words})"):
        read_labels(tmp_path / "a.png")


def test_the_first_mask_is_handed_over_object_by_object_without_void():
    labels = np.array([[0, 3, 3], [1, 255, 0]], np.uint8)
    prompt = first_mask_prompt(labels, "s")
    assert ids_of(labels) == (1, 3)
    assert [o.object_id for o in prompt.objects] == [1, 3]
    np.testing.assert_array_equal(rle.decode(prompt.objects[1].shape.rle), labels == 3)

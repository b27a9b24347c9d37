"""Prompt flags: what a text means, and what is said when it means nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psalm_stream.stream import rle
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.types import Box, FrameKey, Points, Scribble
from psalm_stream.workers.prompt_flags import PromptFlags, check, prompts, read_ids

SIZE_HW = (40, 60)


def one(**flags):
    (flag,) = PromptFlags(**flags).parse()
    return flag.object_id, flag.frame, flag.shape


def mask_file(path, values):
    """An indexed PNG of these values."""
    image = Image.fromarray(np.asarray(values, np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0] + [200] * 762)
    image.save(path, format="PNG")
    return str(path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"points": ["1:3,4"]}, (1, 0, Points(((3.0, 4.0),)))),
        ({"points": ["255@12:3.5,4"]}, (255, 12, Points(((3.5, 4.0),)))),
        ({"points": ["1:3,4", "1:5,6"]}, (1, 0, Points(((3.0, 4.0), (5.0, 6.0))))),
        ({"boxes": ["2@5:10,20,30,40"]}, (2, 5, Box((10.0, 20.0, 30.0, 40.0)))),
        ({"scribbles": ["3:1,2;3,4;5,6"]}, (3, 0, Scribble(((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))))),
        ({"scribbles": ["3@7:1,2;3,4;"]}, (3, 7, Scribble(((1.0, 2.0), (3.0, 4.0))))),
    ],
)
def test_a_flag_names_object_frame_and_shape(flags, expected):
    assert one(**flags) == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"points": ["3,4"]}, r"--point 3,4 cannot be read, expected ID\[@FRAME\]:x,y"),
        ({"points": ["x:3,4"]}, "cannot be read"),
        ({"points": ["1@:3,4"]}, "cannot be read"),
        ({"points": ["-1:3,4"]}, "cannot be read"),
        ({"points": ["1:3"]}, "'3' is not 2 numbers"),
        ({"points": ["1:3,4,5"]}, "is not 2 numbers"),
        ({"points": ["1:3,four"]}, "four.*such as 1:320,180"),
        ({"points": ["0:3,4"]}, "object id is 0, expected 1 to 255"),
        ({"boxes": ["256:1,2,3,4"]}, "object id is 256"),
        ({"boxes": ["1:1,2,3"]}, "is not 4 numbers"),
        ({"scribbles": ["1:1,2;;3,4"]}, "could not convert"),
    ],
)
def test_a_flag_that_cannot_be_read_says_what_was_expected(flags, said):
    with pytest.raises(BadPrompt, match=said):
        PromptFlags(**flags).parse()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"points": ["1:60,4"]}, "--point 1:60,4: point is .*60"),
        ({"points": ["1:3,-1"]}, "--point 1:3,-1"),
        ({"points": ["1:nan,4"]}, "nan"),
        ({"points": ["1:inf,4"]}, "inf"),
        ({"boxes": ["1:30,2,10,4"]}, "x0 < x1"),
        ({"boxes": ["1:10,4,30,4"]}, "y0 < y1"),
        ({"boxes": ["1:10,4,61,8"]}, "61"),
        ({"scribbles": ["1:1,2;3,40"]}, "scribble vertex"),
    ],
)
def test_a_shape_that_does_not_lie_on_its_frame_is_refused_naming_the_flag(flags, said):
    with pytest.raises(BadPrompt, match=said):
        check(PromptFlags(**flags).parse(), SIZE_HW)


def test_no_prompt_at_all_is_answered_with_examples_of_every_flag():
    with pytest.raises(BadPrompt) as caught:
        PromptFlags().parse()
    assert all(flag in str(caught.value) for flag in ("--mask", "--point", "--box", "--scribble"))


@pytest.mark.parametrize(
    "flags",
    [
        {"points": ["1:3,4"], "boxes": ["1:1,2,3,4"]},
        {"boxes": ["1@3:1,2,3,4", "1@3:5,6,7,8"]},
        {"scribbles": ["1:1,2;3,4"], "points": ["1:3,4", "1:5,6"]},
    ],
)
def test_two_shapes_of_one_object_on_one_frame_are_refused_naming_both(flags):
    with pytest.raises(BadPrompt, match=r"object 1 has two shapes on frame \d: --\w+ .* and --\w+ "):
        PromptFlags(**flags).parse()


def test_one_object_may_have_a_shape_on_each_of_two_frames():
    assert [flag.frame for flag in PromptFlags(boxes=["1@9:1,2,3,4", "1:1,2,3,4"]).parse()] == [0, 9]


def test_with_several_views_each_text_names_its_view_and_objects_are_told_apart_by_it():
    flags = PromptFlags(boxes=["exo/1@4:1,2,3,4"], points=["ego/1:3,4", "exo/1:5,6", "ego/1:7,8"]).parse(["ego", "exo"])
    assert [(f.view, f.frame, f.object_id) for f in flags] == [("ego", 0, 1), ("exo", 0, 1), ("exo", 4, 1)]
    assert flags[0].shape == Points(((3.0, 4.0), (7.0, 8.0)))
    assert flags[0].said == "--point ego/1:3,4 --point ego/1:7,8"
    assert [p.key for p in prompts(flags, "s")] == [FrameKey("s", "ego", 0), FrameKey("s", "exo", 0), FrameKey("s", "exo", 4)]
    assert len({p.prompt_id for p in prompts(flags, "s")}) == 3


def test_a_mask_of_a_view_may_lie_anywhere(tmp_path):
    path = mask_file(tmp_path / "m.png", np.ones((4, 5)))
    assert [(f.view, f.frame) for f in PromptFlags(masks=[f"ego/{path}@3"]).parse(["ego", "exo"])] == [("ego", 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1:3,4", r"--point 1:3,4: names no view, expected VIEW/ID\[@FRAME\]:x,y, such as ego/1:320,180, with VIEW one of ego, exo"),
        ("top/1:3,4", "--point top/1:3,4: view 'top' is none of this run"),
        ("/1:3,4", "view '' is none of this run"),
        ("ego/", "--point ego/ cannot be read"),
        ("ego/exo/1:3,4", "--point ego/exo/1:3,4 cannot be read"),
    ],
)
def test_a_text_that_names_no_view_of_the_run_says_what_was_expected(text, said):
    with pytest.raises(BadPrompt, match=said):
        PromptFlags(points=[text]).parse(["ego", "exo"])


def test_flags_of_one_frame_make_one_prompt():
    flags = PromptFlags(boxes=["2@4:1,2,3,4"], points=["1@4:3,4", "3:3,4"]).parse()
    found = [(p.key.index, [o.object_id for o in p.objects]) for p in prompts(flags, "s")]
    assert found == [(0, [3]), (4, [1, 2])]


def test_a_mask_file_names_one_object_a_value_and_leaves_255_out(tmp_path):
    values = np.zeros((4, 5), np.uint8)
    values[0], values[1, 2], values[2] = 7, 200, 255
    flags = PromptFlags(masks=[mask_file(tmp_path / "m.png", values) + "@3"]).parse()
    assert [(f.object_id, f.frame, f.void) for f in flags] == [(7, 3, 5), (200, 3, 5)]
    assert (rle.decode(flags[0].shape.rle) == (values == 7)).all()


def test_an_at_sign_in_a_file_name_is_no_frame(tmp_path):
    path = mask_file(tmp_path / "cam@2", np.ones((4, 5)))
    assert [flag.frame for flag in PromptFlags(masks=[path]).parse()] == [0]


def test_a_mask_of_only_0_and_255_says_that_255_is_no_object(tmp_path):
    with pytest.raises(BadPrompt, match=r"values are 0, 255, expected object ids from 1 to 254"):
        PromptFlags(masks=[mask_file(tmp_path / "m.png", [[0, 255]])]).parse()


def test_a_mask_of_another_size_is_refused_naming_file_and_both_sizes(tmp_path):
    path = mask_file(tmp_path / "m.png", np.ones((40, 59)))
    with pytest.raises(BadPrompt, match=r"m\.png.*40, 59.*40, 60"):
        check(PromptFlags(masks=[path]).parse(), SIZE_HW)


def test_a_colour_picture_is_no_mask(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    with pytest.raises(BadPrompt, match=r"rgb\.png is a RGB picture, expected an indexed"):
        read_ids(tmp_path / "rgb.png")


def test_a_mask_file_that_is_not_there_or_no_picture_or_lossy_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(BadPrompt, match=r"text\.png is no PNG"):
        read_ids(tmp_path / "text.png")
    with pytest.raises(BadPrompt, match=r"gone\.png does not exist"):
        read_ids(tmp_path / "gone.png")
    Image.new("L", (4, 4)).save(tmp_path / "grey.jpg")
    with pytest.raises(BadPrompt, match=r"grey\.jpg is no PNG"):
        read_ids(tmp_path / "grey.jpg")


def test_a_mask_file_that_is_cut_off_is_named(tmp_path):
    whole = Path(mask_file(tmp_path / "m.png", np.ones((40, 60)))).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadPrompt, match=r"half\.png cannot be read"):
        read_ids(tmp_path / "half.png")

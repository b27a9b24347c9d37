"""How alike two answers are: eval/service/alike.py, on answers made by hand."""

import json

import numpy as np
import pytest
import typer
from psalm_stream.eval.service.alike import alike_command, iou, pair_frames, read_answers, show
from psalm_stream.stream.codec import mask_frame_json
from psalm_stream.stream.errors import BadInput, BadRecord
from psalm_stream.stream.rle import encode
from psalm_stream.stream.types import FrameKey, FrameStatus, MaskFrame, ObjectMask, ObjectStatus
from rich.console import Console

SIZE_HW = (40, 50)


def mask(pixels):
    """The first pixels of a picture, row by row."""
    return encode((np.arange(SIZE_HW[0] * SIZE_HW[1]) < pixels).reshape(SIZE_HW))


def answer(index, objects, view="main", score=0.5, ms=1.0, size_hw=SIZE_HW):
    """objects: pixels by object id, None: absent."""
    found = [(object_id, None if pixels is None else mask(pixels)) for object_id, pixels in objects.items()]
    told = tuple(ObjectMask(i, "", ObjectStatus.SEEN if rle else ObjectStatus.ABSENT, score, rle) for i, rle in found)
    return MaskFrame(FrameKey("s", view, index), index, size_hw, FrameStatus.OK, told, "digest", "", {"model": ms})


def write(folder, answers):
    folder.mkdir(parents=True)
    (folder / "masks.jsonl").write_text("".join(json.dumps(mask_frame_json(a)) + "\n" for a in answers))
    return folder


def pairs_of(one, other):
    return pair_frames({a.key: a for a in one}, {a.key: a for a in other})


def shown(pairs):
    console = Console(record=True, width=140)
    show(pairs, console)
    return [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]


@pytest.mark.parametrize(
    ("one", "other", "value"), [(1000, 1000, 1.0), (1000, 999, 0.999), (0, 0, 1.0), (10, 0, 0.0), (None, None, 1.0), (None, 10, 0.0)]
)
def test_an_iou_counts_two_that_are_missing_as_equal_and_one_as_nothing(one, other, value):
    masks = [None if pixels is None else mask(pixels) for pixels in (one, other)]
    assert iou(*masks) == iou(*reversed(masks)) == pytest.approx(value)


def test_an_object_that_one_run_does_not_list_has_no_mask_there():
    (pair,) = pairs_of([answer(0, {1: 100, 2: 50, 3: None})], [answer(0, {1: 100})])
    assert pair.ious == {1: 1.0, 2: 0.0, 3: 1.0}
    assert pair.worst == (2, 0.0)


def test_timings_make_no_difference_and_scores_do():
    one, timed, scored = (answer(0, {1: 9}, **more) for more in ({}, {"ms": 2.0}, {"score": 0.6}))
    assert pairs_of([one], [timed])[0].equal
    (pair,) = pairs_of([one], [scored])
    assert (pair.equal, pair.least) == (False, 1.0)


def test_the_shares_and_the_first_frame_that_differs_are_printed():
    one = [answer(n, {1: 500, 2: 1000}) for n in range(4)]
    other = [one[0], answer(1, {1: 500, 2: 1000}, score=0.6), answer(2, {1: 500, 2: 999}), answer(3, {1: 400, 2: 999})]
    said = shown(pairs_of(one, other))
    assert "compared 4" in said
    assert "equal by digest (all but ms) 1 25.0 %" in said
    assert "every mask equal 2 50.0 %" in said
    assert "every IoU >= 0.999 3 75.0 %" in said
    assert "in anything but ms s/main/1 1" in said
    assert "in a mask s/main/2 2 0.999000" in said
    assert "below IoU 0.999 s/main/3 1 0.800000" in said
    assert "the least alike s/main/3 1 0.800000" in said


def test_equal_answers_differ_nowhere():
    said = shown(pairs_of([answer(0, {})], [answer(0, {})]))
    assert "every IoU >= 0.999 1 100.0 %" in said
    assert "in a mask none" in said
    assert "the least alike none" in said


def test_frames_go_by_their_index_with_the_views_side_by_side():
    answers = [answer(n, {1: 5}, view) for view in ("a", "b") for n in range(2)]
    assert [str(pair.key) for pair in pairs_of(answers, answers)] == ["s/a/0", "s/b/0", "s/a/1", "s/b/1"]


def test_answers_to_different_frames_are_refused_by_the_first_that_only_one_has():
    with pytest.raises(BadInput, match="ONE answers 2 frames, OTHER 1, and 1 are in one of them only: ONE has s/main/1, OTHER lacks it"):
        pairs_of([answer(0, {}), answer(1, {})], [answer(0, {})])


def test_answers_of_different_sizes_are_refused():
    with pytest.raises(BadInput, match=r"frame s/main/0 has \(40, 50\) pixels .* and \(4, 5\) in OTHER"):
        pairs_of([answer(0, {})], [answer(0, {}, size_hw=(4, 5))])


def test_a_file_its_folder_and_a_folder_of_views_are_read(tmp_path):
    answers = [answer(0, {1: 7}), answer(1, {1: None})]
    folder = write(tmp_path / "one", answers)
    assert list(read_answers(folder).values()) == list(read_answers(folder / "masks.jsonl").values()) == answers
    for view in ("ego", "exo"):
        write(tmp_path / "views" / view, [answer(0, {1: 7}, view)])
    assert {key.view for key in read_answers(tmp_path / "views")} == {"ego", "exo"}


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, BadInput, "is no file and holds no masks.jsonl"),
        (b"", BadInput, "holds no answer"),
        (b"\xff\xfe", BadInput, "cannot be read"),
        (b'{"session": "s"', BadRecord, "line 1 is no answer"),
        (b'{"session": "s"}', BadRecord, "line 1 is no answer .*lacks the field"),
        (b"7", BadRecord, "line 1 is no answer"),
    ],
    ids=["nothing there", "empty", "no text", "cut off", "another layout", "no object"],
)
def test_what_is_no_answer_is_named(tmp_path, content, error, said):
    if content is not None:
        (tmp_path / "masks.jsonl").write_bytes(content)
    with pytest.raises(error, match=said):
        read_answers(tmp_path)


def test_a_frame_that_is_answered_twice_is_refused(tmp_path):
    with pytest.raises(BadRecord, match="line 2 answers frame s/main/0 a second time"):
        read_answers(write(tmp_path / "one", [answer(0, {1: 7})] * 2))


def test_the_command_prints_a_report_or_what_is_wrong(tmp_path, capsys):
    folder = write(tmp_path / "one", [answer(0, {1: 7})])
    alike_command(folder, folder)
    assert "100.0 %" in capsys.readouterr().out
    with pytest.raises(typer.Exit):
        alike_command(folder, tmp_path / "nowhere")
    assert "nowhere" in capsys.readouterr().err

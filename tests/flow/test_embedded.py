"""Frames and prompts in, masks out, in one process."""

from dataclasses import replace

import numpy as np
import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream import rle
from psalm_stream.stream.codec import pack
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.types import Box, FrameKey, Mask, ObjectPrompt, Points, Prompt
from psalm_stream.workers.pipeline import Embedded
from psalm_stream.workers.settings import Settings
from scene import ColourSegmenter, box_of, frames, mask_of, mask_prompt, picture


def answers(clip, *prompts, settings=None, rules=None):
    embedded = Embedded(ColourSegmenter(), rules or Rules(), settings or Settings())
    return [answer for _, answer in embedded.answer(clip, prompts)]


def bare(found):
    """The bytes of answers in every field but ms."""
    return [pack(replace(answer, ms={})) for answer in found]


def mask_shape(pixels):
    return Mask(rle.encode(pixels))


def masks(answer):
    return {o.object_id: rle.decode(o.rle) for o in answer.objects if o.rle is not None}


def test_every_frame_is_answered_once_and_in_order():
    clip = frames(8)
    assert [a.key for a in answers(clip, mask_prompt(0, 1))] == [frame.key for frame in clip]


def test_a_frame_comes_out_beside_its_answer():
    embedded = Embedded(ColourSegmenter(), Rules(), Settings())
    assert all(frame.key == answer.key for frame, answer in embedded.answer(frames(4), [mask_prompt(0, 1)]))


@pytest.mark.parametrize("motion", ["on", "off"])
def test_the_objects_are_followed_to_the_last_frame(motion):
    last = answers(frames(12), mask_prompt(0, 1, 2), rules=Rules(motion=motion))[-1]
    for object_id in (1, 2):
        true, found = mask_of(object_id, 11), masks(last)[object_id]
        assert (true & found).sum() / (true | found).sum() > 0.95


def test_two_runs_give_the_same_answers():
    first, second = (bare(answers(frames(10), mask_prompt(0, 1, 2))) for _ in range(2))
    assert first == second


def test_a_mask_prompt_is_returned_unchanged():
    odd = np.zeros((72, 96), bool)
    odd[3:40:3, 5:90:7] = True
    prompt = Prompt(FrameKey("run", "main", 2), "odd", (ObjectPrompt(9, odd_shape := mask_shape(odd)),))
    answer = answers(frames(4), mask_prompt(0, 1), prompt)[2]
    assert {o.object_id: o.rle for o in answer.objects}[9] == odd_shape.rle


@pytest.mark.parametrize("shape", [Box(tuple(map(float, box_of(1, 0)))), Points(((18.0, 12.0),))], ids=["box", "point"])
def test_a_drawn_prompt_is_answered_by_the_model_on_its_own_frame(shape):
    prompt = Prompt(FrameKey("run", "main", 0), "drawn", (ObjectPrompt(1, shape),))
    assert (masks(answers(frames(1), prompt)[0])[1] == mask_of(1, 0)).all()


def test_frames_before_the_first_prompt_are_answered_without_objects():
    found = answers(frames(5), mask_prompt(3, 1))
    assert [a.status for a in found] == ["no_prompt"] * 3 + ["ok"] * 2
    assert [len(a.objects) for a in found] == [0, 0, 0, 1, 1]


def test_an_object_prompted_in_mid_stream_joins_those_already_followed():
    found = answers(frames(6), mask_prompt(0, 1), mask_prompt(3, 2))
    assert [[o.object_id for o in a.objects] for a in found] == [[1]] * 3 + [[1, 2]] * 3


def test_a_frame_that_is_no_picture_is_answered_undecodable_and_the_stream_goes_on():
    clip = frames(6)
    clip[3] = replace(clip[3], data=picture(3)[:60])
    found = answers(clip, mask_prompt(0, 1, 2))
    assert [a.status for a in found] == ["ok", "ok", "ok", "undecodable", "ok", "ok"]
    assert found[3].objects == ()
    assert set(masks(found[5])) == {1, 2}


def test_a_broken_frame_leaves_the_remembered_state_as_it_was():
    clip = frames(6)
    broken = [*clip[:3], replace(clip[3], data=b""), *clip[4:]]
    without = [*clip[:3], *clip[4:]]
    with_broken, never_there = (bare(answers(c, mask_prompt(0, 1)))[-2:] for c in (broken, without))
    assert with_broken == never_there


def test_a_prompt_whose_frame_never_comes_is_named_after_the_last_answer():
    embedded = Embedded(ColourSegmenter(), Rules(), Settings())
    found = embedded.answer(frames(3), [mask_prompt(0, 1), mask_prompt(7, 2)])
    assert [next(found)[1].key.index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BadPrompt, match=r"after 3 frames.*frame 7 \(object 2\)"):
        next(found)


def test_a_mask_of_another_size_is_refused_naming_its_frame_and_both_sizes():
    prompt = Prompt(FrameKey("run", "main", 1), "small", (ObjectPrompt(1, mask_shape(np.ones((71, 96), bool))),))
    with pytest.raises(BadPrompt, match=r"run/main/1.*71, 96.*72, 96"):
        answers(frames(3), prompt)


def test_every_answer_says_what_each_stage_took():
    assert set(answers(frames(2), mask_prompt(0, 1))[1].ms) == {"decode", "plan", "model", "settle"}


@pytest.mark.parametrize("cached_sessions", [0, 1])
def test_a_state_read_back_from_the_store_gives_the_same_answers_as_one_kept(cached_sessions):
    kept, reread = (
        bare(answers(frames(8), mask_prompt(0, 1), mask_prompt(4, 2), settings=Settings(cached_sessions=n))) for n in (64, cached_sessions)
    )
    assert kept == reread


@pytest.mark.parametrize(
    ("max_skew_s", "expected"),
    [(0.5, {("left", 1), ("left", 2), ("right", 1), ("right", 2)}), (0.0, {("left", 1), ("right", 2)})],
    ids=["joined", "each on its own"],
)
def test_an_object_prompted_in_one_view_of_a_session_has_its_id_in_every_view_that_is_joined(max_skew_s, expected):
    left, right = frames(4, view="left"), frames(4, view="right")
    both = [frame for pair in zip(left, right, strict=True) for frame in pair]
    prompts = mask_prompt(0, 1, view="left"), mask_prompt(0, 2, view="right")
    found = answers(both, *prompts, rules=Rules(max_skew_s=max_skew_s))
    assert {(a.key.view, o.object_id) for a in found for o in a.objects} == expected


def test_nothing_is_kept_of_a_clip_that_has_ended():
    embedded = Embedded(ColourSegmenter(), Rules(), Settings())
    for _ in embedded.answer(frames(5), [mask_prompt(0, 1)]):
        assert len(embedded.log.topic("frames")[0]) == 0
    claim = embedded.worker.claims[0]
    assert embedded.worker.states == {}
    assert embedded.worker.store.load(claim, "run") is None
    assert [len(queue) for name in ("frames", "masks") for queue in embedded.log.topic(name)] == [0, 0]


def test_one_embedded_path_answers_one_clip_after_another():
    embedded = Embedded(ColourSegmenter(), Rules(), Settings())
    first, second = (bare(a for _, a in embedded.answer(frames(4), [mask_prompt(0, 1)])) for _ in range(2))
    assert first == second

"""Prompts, identity and the bookkeeping of the tracker, whichever policy decides."""

import subprocess
import sys

import numpy as np
import pytest
from psalm_stream.psalm.tracker import Rules, plan, prompted, settle
from psalm_stream.stream.errors import BadConfig, BadPrompt
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import Box, FrameKey, FrameStatus, Mask, ObjectPrompt, Points, Prompt, TrackState
from tracker_scenes import SIZE_HW, Scene, answered, begun, frame_of, mask_prompt, proposals_of, shift, square, step

SCENE = Scene()
RULES = [Rules(), Rules(motion="off"), Rules(motion="only"), Rules("official")]
EVERY_RULE = pytest.mark.parametrize("rules", RULES, ids=["on", "off", "only", "official"])
CLICK = Points(((20.0, 20.0),))


def drawn(frame, object_id, shape, label=""):
    return Prompt(frame.key, "d", (ObjectPrompt(object_id, shape, label),))


@EVERY_RULE
def test_a_frame_before_any_prompt_is_answered_no_prompt_and_changes_nothing(rules):
    state = TrackState("s")
    assert plan(state, SCENE.frame(0), rules) is None
    after, answer = settle(state, SCENE.frame(0), None, None, rules, "digest")
    assert after == state
    assert (answer.status, answer.objects, answer.model) == (FrameStatus.NO_PROMPT, (), "digest")


@EVERY_RULE
def test_a_mask_prompt_comes_back_bit_identical(rules):
    ragged = np.random.default_rng(0).random(SIZE_HW) < 0.5
    masks = {7: ragged, 3: ~ragged}
    prompt = mask_prompt(SCENE.frame(0), masks)
    state = prompted(TrackState("s"), prompt)
    state, answer = step(state, SCENE.frame(0), rules, [])
    assert answer.status == FrameStatus.OK
    assert [(o.object_id, o.status, o.score) for o in answer.objects] == [(3, "seen", 1.0), (7, "seen", 1.0)]
    assert {o.object_id: o.rle for o in answer.objects} == {p.object_id: p.shape.rle for p in prompt.objects}
    assert state.views["main"].pending == ()


@EVERY_RULE
def test_a_single_pixel_object_in_a_single_pixel_frame_is_tracked(rules):
    pixel = np.ones((1, 1), bool)
    frames = [frame_of(np.full((1, 1, 3), 90, np.uint8), n) for n in (0, 1)]
    state = begun(frames[0], {1: pixel}, rules)
    _, answer = step(state, frames[1], rules, [(pixel, {1: 0.9})])
    assert answered(answer)[1][1].all()


@EVERY_RULE
def test_a_click_is_asked_on_its_own_frame_and_its_answer_becomes_the_anchor(rules):
    state = prompted(TrackState("s"), drawn(SCENE.frame(0), 1, CLICK, "cup"))
    request = plan(state, SCENE.frame(0), rules)
    (region,) = request.condition.regions
    assert (region.object_id, region.frame.key.index, int(region.mask.sum())) == (1, 0, 317)
    truth = SCENE.truth(0)[1]
    state, answer = settle(state, SCENE.frame(0), request, proposals_of(request, [(truth, {1: 0.8})]), rules, "")
    assert np.array_equal(answered(answer)[1][1], truth)
    assert answer.objects[0].label == "cup"
    assert np.array_equal(decode(state.views["main"].object(1).anchor.rle), truth)


def test_an_answer_that_does_not_touch_the_click_is_none_and_the_click_stays_the_anchor():
    state = prompted(TrackState("s"), drawn(SCENE.frame(0), 1, CLICK))
    state, answer = step(state, SCENE.frame(0), Rules(), [(square(80, 60), {1: 0.9})])
    assert answer.objects[0].status == "absent"
    assert int(decode(state.views["main"].object(1).anchor.rle).sum()) == 317


def test_of_two_lookalikes_the_one_that_fits_the_box_is_meant():
    inside, around = square(10, 10), square(4, 4, side=60)
    state = prompted(TrackState("s"), drawn(SCENE.frame(0), 1, Box((10, 10, 34, 34))))
    _, answer = step(state, SCENE.frame(0), Rules(), [(around, {1: 0.8}), (inside, {1: 0.75})])
    assert np.array_equal(answered(answer)[1][1], inside)


@EVERY_RULE
def test_an_object_may_be_prompted_later_than_others(rules):
    state = begun(SCENE.frame(0), {1: SCENE.truth(0)[1]}, rules)
    state = prompted(state, mask_prompt(SCENE.frame(1), {2: SCENE.truth(1)[2]}))
    state, answer = step(state, SCENE.frame(1), rules, [(SCENE.truth(1)[1], {1: 0.9})])
    assert [o.status for o in answer.objects] == ["carried" if rules.motion == "only" else "seen", "seen"]
    candidates = [(mask, {i: 0.9}) for i, mask in SCENE.truth(2).items()]
    _, answer = step(state, SCENE.frame(2), rules, candidates)
    assert len(answered(answer)[1]) == 2
    request = plan(state, SCENE.frame(2), rules)
    if rules.motion != "only":
        anchors = {r.object_id: r.frame.key.index for r in reversed(request.condition.regions)}
        assert anchors == {1: 0, 2: 1}


@EVERY_RULE
def test_a_correction_replaces_the_object_under_its_id_and_keeps_its_label(rules):
    state = prompted(TrackState("s"), Prompt(SCENE.frame(0).key, "a", (ObjectPrompt(1, Mask(encode(square(10, 10))), "cup"),)))
    state, _ = step(state, SCENE.frame(0), rules, [])
    state = prompted(state, mask_prompt(SCENE.frame(1), {1: square(70, 50)}))
    assert 1 not in plan(state, SCENE.frame(1), rules).carried
    state, answer = step(state, SCENE.frame(1), rules, [(square(10, 10), {1: 0.9})])
    assert np.array_equal(answered(answer)[1][1], square(70, 50))
    assert answer.objects[0].label == "cup"
    assert state.views["main"].object(1).anchor.frame.key.index == 1


@EVERY_RULE
def test_a_correcting_click_asks_for_the_object_anew_and_only_there(rules):
    state = begun(SCENE.frame(0), {1: square(60, 50)}, rules)
    state = prompted(state, drawn(SCENE.frame(1), 1, CLICK))
    assert [r.frame.key.index for r in plan(state, SCENE.frame(1), rules).condition.regions] == [1]
    _, answer = step(state, SCENE.frame(1), rules, [(SCENE.truth(1)[1], {1: 0.9})])
    assert len(answer.objects) == 1
    assert np.array_equal(answered(answer)[1][1], SCENE.truth(1)[1])


def test_the_later_of_two_waiting_prompts_for_one_object_counts():
    state = prompted(TrackState("s"), mask_prompt(SCENE.frame(0), {1: square(10, 10), 2: square(60, 60)}))
    state = prompted(state, mask_prompt(SCENE.frame(0), {1: square(14, 10)}))
    _, answer = step(state, SCENE.frame(0), Rules(), [])
    assert np.array_equal(answered(answer)[1][1], square(14, 10))
    assert len(answer.objects) == 2


@pytest.mark.parametrize(
    "rules", [Rules(max_skew_s=0), Rules(motion="only"), Rules("official")], ids=["no skew", "motion only", "official"]
)
def test_views_that_are_not_joined_share_no_objects(rules):
    state = begun(SCENE.frame(0), {1: square(10, 10)}, rules)
    other = frame_of(np.zeros((4, 4, 3), np.uint8), view="left")
    assert plan(state, other, rules) is None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (Prompt(FrameKey("other", "main", 0), "p", ()), "session 'other'"),
        (Prompt(FrameKey("s", "main", 0), "p", (ObjectPrompt(1, CLICK), ObjectPrompt(1, CLICK))), "object 1 more than once"),
        (mask_prompt(SCENE.frame(0), {1: square(10, 10), 2: square(33, 33)}), "share 1 pixels"),
        (mask_prompt(SCENE.frame(0), {1: square(10, 10), 2: np.ones((2, 3), bool)}), r"\(2, 3\)"),
    ],
)
def test_a_prompt_that_contradicts_itself_is_refused_before_it_is_remembered(prompt, expected):
    with pytest.raises(BadPrompt, match=expected):
        prompted(TrackState("s"), prompt)


@EVERY_RULE
@pytest.mark.parametrize("shape", [Points(((128.0, 5.0),)), Mask(encode(np.ones((2, 3), bool)))])
def test_a_prompt_that_does_not_fit_its_frame_is_refused_when_the_frame_comes(rules, shape):
    state = prompted(TrackState("s"), drawn(SCENE.frame(0), 1, shape))
    with pytest.raises(BadPrompt):
        plan(state, SCENE.frame(0), rules)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"policy": "fair"}, "honest, official"),
        ({"motion": "slow"}, "on, off, only"),
        ({"oracle": {1: (1,)}}, "oracle"),
        ({"policy": "official", "motion": "only"}, "always runs the model"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, expected):
    with pytest.raises(BadConfig, match=expected):
        Rules(**rules)


def test_the_seed_depends_on_the_frame_alone_and_not_on_the_process():
    state = begun(SCENE.frame(0), SCENE.truth(0), Rules())
    assert plan(state, SCENE.frame(1), Rules()).seed == 697640162  # crc32 of s/main/1
    assert plan(state, SCENE.frame(1), Rules(motion="off")).seed != plan(state, SCENE.frame(2), Rules(motion="off")).seed


def test_the_same_frames_and_answers_give_the_same_values_again():
    def run():
        state, said = begun(SCENE.frame(0), SCENE.truth(0), Rules()), []
        for n in range(1, 4):
            state, answer = step(state, SCENE.frame(n), Rules(), [(shift(m, 3), {i: 0.6}) for i, m in SCENE.truth(n).items()])
            said.append(answer)
        return state, said

    assert run() == run()


def test_the_tracker_never_loads_torch():
    code = "import sys, psalm_stream.psalm.tracker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

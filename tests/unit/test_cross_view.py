"""Objects across views: when one is looked for by how it looks elsewhere, by which picture, and what becomes of a find."""

from dataclasses import replace

import numpy as np
import pytest
from psalm_stream.psalm.cross_view import GIVE_UP, regions
from psalm_stream.psalm.honest_policy import PATIENCE
from psalm_stream.psalm.tracker import Rules, plan, prompted
from psalm_stream.stream.codec import pack, unpack
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import Box, FrameKey, Mask, ObjectPrompt, Points, Prompt, TrackState
from tracker_scenes import answered, frame_of, square, step, texture

OFF, ON = Rules(motion="off"), Rules()
HERE, THERE = square(20, 30), square(70, 50)  # the same object as ego and exo see it
GROUND = texture(3)


def frame(view, index, t_s=None):
    """A picture in which nothing moves, captured at t_s (by default ten a second)."""
    return replace(frame_of(GROUND, index, view), t_ns=round((index / 10 if t_s is None else t_s) * 1e9))


def named(view, masks, index=0, label="", **more):
    shapes = tuple(ObjectPrompt(i, Mask(encode(mask)), label) for i, mask in masks.items())
    return Prompt(FrameKey("s", view, index), f"{view}-{index}-{sorted(masks)}", shapes, **more)


def ego_prompted(masks, rules=OFF, label=""):
    """A session whose view ego was prompted with masks on its frame 0."""
    state = prompted(TrackState("s"), named("ego", masks, label=label))
    return step(state, frame("ego", 0), rules, [])[0]


def seen_in_exo(rules=OFF, index=0, mask=THERE):
    """The same, with object 1 found in exo."""
    return step(ego_prompted({1: HERE}, rules, "cup"), frame("exo", index), rules, [(mask, {1: 0.9})])[0]


def asked(state, where, rules=OFF):
    """(object, view, index) of every region a frame is asked with."""
    request = plan(state, where, rules)
    return request and [(r.object_id, r.frame.key.view, r.frame.key.index) for r in request.condition.regions]


def statuses(answer):
    return {o.object_id: str(o.status) for o in answer.objects}


def absent_in_exo(state, first, count, rules=OFF):
    """The session after frames of exo, far from any of ego in time, on which nothing is found."""
    for index in range(first, first + count):
        state, _ = step(state, frame("exo", index, 100 + index / 10), rules, [])
    return state


def test_an_object_named_in_one_view_is_asked_for_in_another_by_how_it_looks_there():
    state = ego_prompted({1: HERE})
    (region,) = plan(state, frame("exo", 0), OFF).condition.regions
    assert (region.object_id, region.frame.key) == (1, FrameKey("s", "ego", 0))
    assert np.array_equal(region.mask, HERE)


def test_a_find_is_seen_under_its_id_and_label_and_looks_from_then_on_as_it_was_found():
    state, answer = step(ego_prompted({1: HERE}, label="cup"), frame("exo", 0), OFF, [(THERE, {1: 0.9})])
    objects, masks = answered(answer)
    assert (objects[1].status, objects[1].label, objects[1].score) == ("seen", "cup", pytest.approx(0.9))
    assert np.array_equal(masks[1], THERE)
    assert asked(state, frame("exo", 1)) == [(1, "exo", 0)]
    assert np.array_equal(decode(state.views["exo"].object(1).anchor.rle), THERE)


@pytest.mark.parametrize(("score", "status", "known"), [(0.49, "absent", 0), (0.5, "seen", 1)])
def test_a_find_needs_a_trusted_score_and_what_is_not_found_is_absent_unknown_and_asked_for_again(score, status, known):
    state, answer = step(ego_prompted({1: HERE}, label="cup"), frame("exo", 0), OFF, [(THERE, {1: score})])
    assert (statuses(answer), answer.objects[0].label, str(answer.status)) == ({1: status}, "cup", "ok")
    assert len(state.views["exo"].objects) == known
    assert asked(state, frame("exo", 1)) == ([(1, "exo", 0)] if known else [(1, "ego", 0)])


def test_a_find_may_not_be_what_is_tracked_under_another_id():
    state = prompted(ego_prompted({1: HERE}, ON), named("exo", {2: THERE}))
    state, _ = step(state, frame("exo", 0), ON, [])
    state, answer = step(state, frame("exo", 1), ON, [(THERE, {1: 0.99, 2: 0.6})])
    assert statuses(answer) == {1: "absent", 2: "seen"}


def test_two_objects_that_are_found_as_one_mask_are_not_both_found_and_the_disputed_one_is_not_taken():
    state = ego_prompted({1: HERE, 2: square(80, 10)})
    state, answer = step(state, frame("exo", 0), OFF, [(THERE, {1: 0.9}), (square(71, 50), {2: 0.8})])
    assert statuses(answer) == {1: "absent", 2: "absent"}
    assert state.views["exo"].objects == ()


def test_each_find_gets_its_own_proposal():
    state = ego_prompted({1: HERE, 2: square(80, 10)})
    _, answer = step(state, frame("exo", 0), OFF, [(THERE, {1: 0.9, 2: 0.85}), (square(10, 10), {1: 0.8, 2: 0.1})])
    _, masks = answered(answer)
    assert np.array_equal(masks[2], THERE)
    assert np.array_equal(masks[1], square(10, 10))


@pytest.mark.parametrize(
    ("t_s", "expected"),
    [(0.0, 0), (0.3, 0), (0.5, 8), (0.8, 8), (1.3, 8), (1.4, None), (-0.5, 0), (-0.6, None)],
    ids=["at the prompt", "nearer to it", "nearer to the memory", "at the memory", "after", "too late", "before", "too early"],
)
def test_a_view_is_asked_with_the_nearest_picture_within_the_skew(t_s, expected):
    state, _ = step(ego_prompted({1: HERE}), frame("ego", 8), OFF, [(HERE, {1: 0.9})])
    assert asked(state, frame("exo", 0, t_s)) == (None if expected is None else [(1, "ego", expected)])


def test_a_view_that_lags_far_behind_gets_the_object_where_it_comes_to_the_time_of_the_prompt():
    state = ego_prompted({1: HERE})
    for index in range(10, 40, 10):
        state, _ = step(state, frame("ego", index), OFF, [(HERE, {1: 0.9})])
    assert asked(state, frame("exo", 0, -1.0)) is None
    assert asked(state, frame("exo", 1, 0.2)) == [(1, "ego", 0)]
    assert asked(state, frame("exo", 2, 1.0)) is None


def test_what_motion_alone_carried_is_not_shown():
    state = ego_prompted({1: HERE}, ON)
    for index in range(1, 8):
        state, answer = step(state, frame("ego", index), ON, [])
    assert statuses(answer) == {1: "carried"}
    assert asked(state, frame("exo", 0, 0.7), ON) is None


def test_a_doubtful_mask_is_not_shown():
    state, answer = step(ego_prompted({1: HERE}), frame("ego", 7), OFF, [(square(22, 30), {1: 0.4})])
    assert (statuses(answer), str(answer.status)) == ({1: "seen"}, "distrusted")
    assert asked(state, frame("exo", 0, 0.7)) is None


def test_an_object_that_was_prompted_in_a_view_is_never_looked_for_there_by_how_it_looks_elsewhere():
    state = seen_in_exo()
    for index in range(1, 3 * GIVE_UP):
        state, answer = step(state, frame("ego", index), OFF, [])
        state, _ = step(state, frame("exo", index), OFF, [(THERE, {1: 0.9})])
    assert statuses(answer) == {1: "absent"}
    assert asked(state, frame("ego", 3 * GIVE_UP)) == [(1, "ego", 0)]


def test_a_find_that_nobody_confirms_is_carried_for_a_while_then_absent_and_looked_for_anew():
    state = seen_in_exo(ON)
    told = []
    for index in range(1, GIVE_UP + 2):
        state, _ = step(state, frame("ego", index), ON, [(HERE, {1: 0.9})])
        state, answer = step(state, frame("exo", index), ON, [(square(2, 2), {1: 0.2})])
        told.append(statuses(answer)[1])
    assert told == ["carried"] * PATIENCE + ["absent"]
    assert state.views["exo"].object(1).memory is None
    assert asked(state, frame("exo", GIVE_UP + 2), ON) == [(1, "ego", GIVE_UP + 1)]


def test_a_find_that_was_lost_for_long_does_not_say_any_more_how_the_object_looks():
    state = absent_in_exo(seen_in_exo(), 1, GIVE_UP)
    assert asked(state, frame("exo", 20, 200.0)) == [(1, "exo", 0)]  # shown nowhere: as it was found is all that is known
    assert asked(state, frame("exo", 20, 0.2)) == [(1, "ego", 0)]
    again, _ = step(state, frame("exo", 20, 0.2), OFF, [(square(5, 5), {1: 0.9})])
    assert np.array_equal(decode(again.views["exo"].object(1).anchor.rle), square(5, 5))
    state, answer = step(state, frame("exo", 20, 0.2), OFF, [])
    assert statuses(answer) == {1: "absent"}
    assert state.views["exo"].objects == ()


def test_a_find_that_was_lost_shortly_is_asked_for_as_it_looked_in_its_own_view():
    state = absent_in_exo(seen_in_exo(), 1, GIVE_UP - 1)
    assert asked(state, frame("exo", 20, 0.2)) == [(1, "exo", 0)]


def test_a_view_where_the_object_was_named_speaks_before_one_where_it_was_found():
    state = seen_in_exo()
    assert asked(state, frame("top", 0, 0.2)) == [(1, "ego", 0)]
    state = prompted(state, named("left", {1: HERE}))
    state, _ = step(state, frame("left", 0), OFF, [])
    assert asked(state, frame("top", 0, 0.2)) == [(1, "ego", 0), (1, "left", 0)]


def test_where_nobody_who_was_told_shows_the_object_one_who_found_it_does():
    state, _ = step(seen_in_exo(), frame("exo", 20), OFF, [(THERE, {1: 0.9})])
    assert asked(state, frame("top", 0, 2.0)) == [(1, "exo", 20)]


def test_what_an_object_looked_like_does_not_count_any_more_once_it_was_named_anew():
    state = prompted(ego_prompted({1: HERE}), named("ego", {1: square(50, 10)}, index=1))
    assert asked(state, frame("exo", 0)) is None
    state, _ = step(state, frame("ego", 1), OFF, [])
    assert asked(state, frame("exo", 1)) == [(1, "ego", 1)]


def test_an_object_that_waits_to_be_named_in_a_view_is_not_looked_for_in_it():
    state = prompted(ego_prompted({1: HERE}), Prompt(FrameKey("s", "exo", 0), "click", (ObjectPrompt(1, Points(((80.0, 60.0),))),)))
    assert asked(state, frame("exo", 0)) == [(1, "exo", 0)]
    state, _ = step(state, frame("exo", 0), OFF, [(THERE, {1: 0.9})])
    assert state.views["exo"].object(1).prompted


@pytest.mark.parametrize("view", ["ego", "exo", "nobody"])
def test_a_removal_in_any_view_forgets_the_object_in_every_one(view):
    state = prompted(seen_in_exo(), named("top", {1: HERE, 2: THERE}))
    state = prompted(state, Prompt(FrameKey("s", view, 1), "away", remove=(1,)))
    assert asked(state, frame("ego", 1)) is asked(state, frame("exo", 1)) is None
    assert [p.object_id for p in state.views["top"].pending] == [2]
    assert not any(1 in v.masks for v in state.views.values())


def test_named_anew_where_it_was_prompted_it_is_looked_for_anew_where_it_was_found():
    state = prompted(seen_in_exo(), named("ego", {1: square(50, 10)}, index=1))
    assert (state.views["exo"].objects, state.views["exo"].masks) == ((), {})
    state, _ = step(state, frame("ego", 1), OFF, [])
    assert asked(state, frame("exo", 1)) == [(1, "ego", 1)]


def test_named_anew_in_one_view_it_stays_as_it_is_where_a_user_named_it_too():
    state = prompted(ego_prompted({1: HERE}), named("exo", {1: THERE}))
    state, _ = step(state, frame("exo", 0), OFF, [])
    state = prompted(state, named("ego", {1: square(50, 10)}, index=1))
    assert asked(state, frame("exo", 1)) == [(1, "exo", 0)]


def test_a_find_that_is_corrected_in_its_view_leaves_the_finds_of_other_views_as_they_are():
    state, _ = step(seen_in_exo(), frame("top", 0), OFF, [(HERE, {1: 0.9})])
    state = prompted(state, named("exo", {1: square(5, 5)}, index=1, correct=True))
    assert state.views["top"].object(1) is not None
    state, _ = step(state, frame("exo", 1), OFF, [])
    assert state.views["exo"].object(1).prompted
    assert state.views["exo"].object(1).label == "cup"


def test_named_when_no_view_is_left_in_which_it_was_prompted_it_is_looked_for_anew_where_it_was_found():
    state = seen_in_exo()
    state = replace(state, views={"exo": state.views["exo"]})  # ego has ended
    state = prompted(state, named("ego", {1: square(50, 10)}, index=5))
    assert state.views["exo"].objects == ()


def test_named_where_it_was_found_it_keeps_its_label_also_when_no_other_view_knows_it():
    state = seen_in_exo()
    state = prompted(replace(state, views={"exo": state.views["exo"]}), named("exo", {1: square(5, 5)}, index=1))
    _, answer = step(state, frame("exo", 1), OFF, [])
    assert answer.objects[0].label == "cup"


def test_an_object_may_be_corrected_in_a_view_in_which_it_was_not_found():
    state = prompted(ego_prompted({1: HERE}), Prompt(FrameKey("s", "exo", 0), "c", (ObjectPrompt(1, Box((70, 50, 94, 74))),), correct=True))
    assert [p.object_id for p in state.views["exo"].pending] == [1]


def test_a_correction_of_what_no_view_tracks_names_all_of_them():
    with pytest.raises(BadPrompt, match="object 7 is not tracked in s/top, s/ego, s/exo, which tracks 1;"):
        prompted(seen_in_exo(), named("top", {7: HERE}, correct=True))


def test_every_view_is_on_its_own_without_a_skew():
    assert regions(ego_prompted({1: HERE}), frame("exo", 0), 0.0) == ()


def test_the_state_of_a_find_survives_its_bytes_and_that_of_a_prompt_is_written_as_it_always_was():
    state = seen_in_exo()
    assert unpack("track_state", pack(state)) == state
    assert not unpack("track_state", pack(state)).views["exo"].object(1).prompted
    alone = {"ego": state.views["ego"]}
    told = replace(state, views={"ego": replace(alone["ego"], objects=(replace(alone["ego"].objects[0], prompted=False),))})
    assert len(pack(told)) == len(pack(replace(state, views=alone))) + 1

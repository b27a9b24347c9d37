"""The rules of the official loop on cases the recorded videos do not hold."""

import numpy as np
import pytest
from psalm_stream.psalm.official_policy import is_accepted, pick_distinct
from psalm_stream.psalm.tracker import Rules, plan
from psalm_stream.stream.types import FrameStatus
from tracker_scenes import SIZE_HW, Scene, answered, begun, shift, square, step

SCENE = Scene()
OFFICIAL = Rules("official")


def asked(state, n, rules=OFFICIAL):
    return [(r.object_id, r.frame.key.index) for r in plan(state, SCENE.frame(n), rules).condition.regions]


def own(n, score=0.9):
    return [(mask, {i: score}) for i, mask in SCENE.truth(n).items()]


@pytest.mark.parametrize(
    ("scores", "picks"),
    [
        ([[0.1, 0.9, 0.5]], [1]),
        ([[0.1, 0.9, 0.5], [0.2, 0.8, 0.7]], [1, 2]),
        ([[0.1, 0.9]] * 3, [1, 0, 0]),  # nothing left: the previous object's query again
        ([[0.5, 0.5]], [0]),
        (np.tile(np.linspace(1, 0, 12), (11, 1)), [*range(10), 9]),  # only ten are looked at
        (np.zeros((2, 0)), []),
        (np.zeros((0, 4)), []),
    ],
)
def test_objects_pick_in_order_from_their_ten_best(scores, picks):
    assert pick_distinct(np.asarray(scores)) == picks


@pytest.mark.parametrize(
    ("masks", "accepted"),
    [
        ([square(0, 0)], True),
        ([square(0, 0), square(40, 0)], True),
        ([square(0, 0), square(0, 0)], False),
        ([square(0, 0), square(10, 0)], False),  # IoU 14/34
        ([square(0, 0), square(11, 0)], True),  # IoU 13/35
        ([square(0, 0), square(40, 0), square(3, 0)], False),
        ([np.zeros(SIZE_HW, bool)] * 2, True),
        (np.zeros((0, *SIZE_HW), bool), True),
    ],
)
def test_any_pair_above_the_limit_rejects_the_frame(masks, accepted):
    assert is_accepted(np.array(masks)) == accepted


def test_memory_replaces_the_prompt_after_an_accepted_frame_and_stays_when_one_is_rejected():
    state = begun(SCENE.frame(0), SCENE.truth(0), OFFICIAL)
    assert asked(state, 1) == [(1, 0), (2, 0)]
    state, answer = step(state, SCENE.frame(1), OFFICIAL, own(1))
    assert answer.status == FrameStatus.OK
    assert asked(state, 2) == [(1, 1), (2, 1)]
    same = [(square(20, 20), {1: 0.9}), (square(21, 20), {2: 0.9})]
    state, answer = step(state, SCENE.frame(2), OFFICIAL, same)
    assert answer.status == FrameStatus.DISTRUSTED
    assert asked(state, 3) == [(1, 1), (2, 1)]


def test_a_missing_object_sends_the_frame_back_to_the_prompt_and_shrinks_memory():
    rules = Rules("official", oracle={2: (2,), 3: (1, 2), 4: (1,)})
    state = begun(SCENE.frame(0), SCENE.truth(0), rules)
    state, _ = step(state, SCENE.frame(1), rules, own(1))
    assert asked(state, 2, rules) == [(2, 0)]
    state, answer = step(state, SCENE.frame(2), rules, own(2))
    assert [(o.object_id, o.status) for o in answer.objects] == [(1, "absent"), (2, "seen")]
    assert asked(state, 3, rules) == [(1, 0), (2, 0)]
    assert asked(state, 4, rules) == [(2, 2)]  # counts agree, ids do not: the official confusion
    assert asked(state, 9, rules) == [(1, 0), (2, 0)]  # a frame without a word in the oracle has all


def test_a_frame_in_which_nothing_exists_leaves_memory_alone():
    rules = Rules("official", oracle={2: ()})
    state = begun(SCENE.frame(0), SCENE.truth(0), rules)
    state, _ = step(state, SCENE.frame(1), rules, own(1))
    state, answer = step(state, SCENE.frame(2), rules, [])
    assert {o.status for o in answer.objects} == {"absent"}
    assert asked(state, 3, rules) == [(1, 1), (2, 1)]


def test_later_objects_paint_over_earlier_ones_whatever_their_score_but_memory_is_unpainted():
    one, two = square(10, 10), square(26, 10)
    state = begun(SCENE.frame(0), SCENE.truth(0), OFFICIAL)
    state, answer = step(state, SCENE.frame(1), OFFICIAL, [(one, {1: 0.9}), (two, {2: 0.2})])
    _, masks = answered(answer)
    assert np.array_equal(masks[1], one & ~two)
    assert np.array_equal(masks[2], two)
    assert np.array_equal(plan(state, SCENE.frame(2), OFFICIAL).condition.regions[0].mask, one)


def test_an_accepted_empty_mask_is_not_remembered_so_the_next_frame_starts_from_the_prompts():
    state = begun(SCENE.frame(0), SCENE.truth(0), OFFICIAL)
    state, answer = step(state, SCENE.frame(1), OFFICIAL, [(np.zeros(SIZE_HW, bool), {1: 0.9}), (square(60, 60), {2: 0.9})])
    assert [o.status for o in answer.objects] == ["absent", "seen"]
    assert asked(state, 2) == [(1, 0), (2, 0)]


def test_objects_are_asked_for_in_the_order_of_the_oracle_and_memory_keeps_it():
    rules = Rules("official", oracle={1: (2, 1), 2: (1, 2)})
    state = begun(SCENE.frame(0), SCENE.truth(0), rules)
    assert asked(state, 1, rules) == [(2, 0), (1, 0)]
    state, _ = step(state, SCENE.frame(1), rules, own(1))
    assert asked(state, 2, rules) == [(2, 1), (1, 1)]


def test_a_rejected_frame_leaves_the_order_of_memory_too():
    rules = Rules("official", oracle={1: (2, 1, 3), 2: (1, 2), 3: (1, 2, 3)})
    state = begun(SCENE.frame(0), {**SCENE.truth(0), 3: square(100, 0)}, rules)
    state, _ = step(state, SCENE.frame(1), rules, [*own(1), (square(100, 2), {3: 0.9})])
    state, answer = step(state, SCENE.frame(2), rules, [(square(20, 20), {1: 0.9}), (square(21, 20), {2: 0.9})])
    assert answer.status == FrameStatus.DISTRUSTED
    assert asked(state, 3, rules) == [(2, 1), (1, 1), (3, 1)]


def test_motion_plays_no_part():
    state = begun(SCENE.frame(0), SCENE.truth(0), OFFICIAL)
    assert plan(state, SCENE.frame(1), OFFICIAL).carried == {}
    _, answer = step(state, SCENE.frame(1), OFFICIAL, [(shift(m, 30), {i: 0.01}) for i, m in SCENE.truth(1).items()])
    assert {o.status for o in answer.objects} == {"seen"}

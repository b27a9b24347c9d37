"""The honest policy: what becomes of perfect, absent, swapped and drifted proposals."""

from dataclasses import replace

import numpy as np
import pytest
from psalm_stream.psalm.honest_policy import PATIENCE
from psalm_stream.psalm.tracker import Rules, plan, prompted, settle
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import FrameStatus, Proposals
from tracker_scenes import SIZE_HW, Scene, answered, begun, iou, mask_prompt, shift, square, step

SCENE = Scene()
ON, OFF, ONLY = Rules(), Rules(motion="off"), Rules(motion="only")


def perfect(truth, score=0.9):
    return [(truth[1], {1: score}), (truth[2], {2: score})]


def swapped(truth, score=0.9, own=0.1):
    return [(truth[1], {1: own, 2: score}), (truth[2], {1: score, 2: own})]


def drifted(truth, dx):
    return [(shift(truth[1], dx), {1: 0.9}), (shift(truth[2], -dx), {2: 0.9})]


def noise(truth):
    random = np.random.default_rng(0)
    return [(random.random(SIZE_HW) < share, {1: 0.9, 2: 0.9}) for share in (0.1, 0.3, 0.5, 0.7)]


def merged(truth):
    return [(truth[1] | truth[2], {1: 0.9, 2: 0.9})]


def nothing(truth):
    return []


@pytest.mark.parametrize(
    ("motion", "found_before", "candidates", "objects", "frame"),
    [
        ("on", False, perfect, "seen", "ok"),
        ("on", True, perfect, "seen", "ok"),
        ("on", True, lambda truth: perfect(truth, 0.4), "seen", "distrusted"),
        ("on", True, lambda truth: perfect(truth, 0.1), "carried", "distrusted"),
        ("on", True, lambda truth: swapped(truth), "carried", "distrusted"),
        ("on", True, lambda truth: swapped(truth, own=0.5), "seen", "ok"),
        ("on", True, lambda truth: drifted(truth, 2), "seen", "ok"),
        ("on", True, lambda truth: drifted(truth, 10), "carried", "distrusted"),
        ("on", False, lambda truth: drifted(truth, 6), "carried", "distrusted"),
        ("on", False, noise, "carried", "distrusted"),
        ("on", True, merged, "carried", "distrusted"),
        ("on", True, nothing, "carried", "distrusted"),
        ("only", False, nothing, "carried", "ok"),
        ("off", False, perfect, "seen", "ok"),
        ("off", False, lambda truth: perfect(truth, 0.4), "seen", "distrusted"),
        ("off", True, lambda truth: perfect(truth, 0.4), "seen", "distrusted"),
        ("off", True, lambda truth: perfect(truth, 0.1), "absent", "ok"),
        ("off", True, nothing, "absent", "ok"),
    ],
)
def test_each_kind_of_proposal_gets_the_answer_it_deserves(motion, found_before, candidates, objects, frame):
    rules = Rules(motion=motion)
    state, n = begun(SCENE.frame(0), SCENE.truth(0), rules), 1
    if found_before:
        state, _ = step(state, SCENE.frame(1), rules, perfect(SCENE.truth(1)))
        n = 2
    _, answer = step(state, SCENE.frame(n), rules, candidates(SCENE.truth(n)))
    found, masks = answered(answer)
    assert {o.status for o in found.values()} == {objects}
    assert answer.status == frame
    assert all(iou(mask, SCENE.truth(n)[i]) > 0.8 for i, mask in masks.items())


def test_a_confirmed_mask_is_the_proposal_to_the_pixel_so_that_drift_is_corrected():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    state, _ = step(state, SCENE.frame(1), ON, perfect(SCENE.truth(1)))
    view = state.views["main"]
    off_course = {i: encode(shift(decode(rle), 3)) for i, rle in view.masks.items()}
    state = replace(state, views={"main": replace(view, masks=off_course)})
    _, answer = step(state, SCENE.frame(2), ON, perfect(SCENE.truth(2)))
    assert all(np.array_equal(mask, SCENE.truth(2)[i]) for i, mask in answered(answer)[1].items())


def test_random_proposals_over_many_frames_equal_motion_alone():
    with_noise, alone = begun(SCENE.frame(0), SCENE.truth(0), ON), begun(SCENE.frame(0), SCENE.truth(0), ONLY)
    for n in range(1, 2 * PATIENCE):
        with_noise, answer = step(with_noise, SCENE.frame(n), ON, noise(None))
        alone, expected = step(alone, SCENE.frame(n), ONLY, [])
        assert [o.rle for o in answer.objects] == [o.rle for o in expected.objects]


def test_a_found_object_the_condition_no_longer_sees_is_carried_for_a_while_then_absent_then_back_under_its_id():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    state, _ = step(state, SCENE.frame(1), ON, perfect(SCENE.truth(1)))
    still = SCENE.frame(1)
    statuses = []
    for n in range(2, PATIENCE + 4):
        state, answer = step(state, replace(still, key=replace(still.key, index=n)), ON, perfect(SCENE.truth(1), 0.1))
        statuses.append(answered(answer)[0][1].status)
    assert statuses == ["carried"] * PATIENCE + ["absent"] * 2
    memory = state.views["main"].object(1).memory
    assert memory.frame.key.index == 1
    state, answer = step(state, SCENE.frame(20), ON, perfect(SCENE.truth(20)))
    assert np.array_equal(answered(answer)[1][1], SCENE.truth(20)[1])
    assert answered(answer)[0][1].status == "seen"
    assert state.views["main"].object(1).misses == 0


def test_an_overdue_object_the_condition_is_unsure_of_stays_carried():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    state, _ = step(state, SCENE.frame(1), ON, perfect(SCENE.truth(1)))
    for n in range(2, PATIENCE + 4):
        state, answer = step(state, SCENE.frame(n), ON, [(square(50, 0), {1: 0.4}), (square(50, 72), {2: 0.4})])
    assert {o.status for o in answer.objects} == {"carried"}


def test_motion_alone_never_gives_an_object_up_for_a_model_that_is_not_asked():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    state, _ = step(state, SCENE.frame(1), ON, perfect(SCENE.truth(1)))
    for n in range(2, PATIENCE + 4):
        state, answer = step(state, SCENE.frame(n), ONLY, [])
    assert {o.status for o in answer.objects} == {"carried"}


def test_an_absent_object_does_not_come_back_in_the_place_of_another():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    view = state.views["main"]
    state = replace(state, views={"main": replace(view, masks={1: view.masks[1]})})
    _, answer = step(state, SCENE.frame(1), ON, [(SCENE.truth(1)[1], {1: 0.1, 2: 0.9})])
    assert [o.status for o in answer.objects] == ["carried", "absent"]


def test_one_proposal_over_two_objects_is_neither():
    one, two = square(20, 20), square(44, 20)
    still = SCENE.frame(0)
    state = begun(still, {1: one, 2: two}, ON)
    state, _ = step(state, replace(still, key=SCENE.frame(1).key), ON, [(one, {1: 0.9}), (two, {2: 0.9})])
    _, answer = step(state, replace(still, key=SCENE.frame(2).key), ON, [(one | two, {1: 0.9, 2: 0.8})])
    assert {o.status for o in answer.objects} == {"carried"}


def test_an_empty_proposal_is_passed_over_whatever_its_score():
    state = begun(SCENE.frame(0), {1: square(10, 10)}, OFF)
    _, answer = step(state, SCENE.frame(1), OFF, [(np.zeros(SIZE_HW, bool), {1: 0.9}), (square(12, 10), {1: 0.8})])
    assert np.array_equal(answered(answer)[1][1], square(12, 10))


def test_a_doubtful_proposal_yields_disputed_pixels_to_a_carried_mask():
    one, two = square(20, 20), square(44, 20)
    still = SCENE.frame(0)
    state = begun(still, {1: one, 2: two}, ON)
    _, answer = step(state, replace(still, key=SCENE.frame(1).key), ON, [(shift(two, -3), {2: 0.4})])
    _, masks = answered(answer)
    assert np.array_equal(masks[1], one)
    assert np.array_equal(masks[2], shift(two, -3) & ~one)


def test_an_object_the_model_never_found_is_carried_whatever_the_model_says():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    for n in range(1, PATIENCE + 4):
        state, answer = step(state, SCENE.frame(n), ON, perfect(SCENE.truth(n), 0.1))
    assert {o.status for o in answer.objects} == {"carried"}


def test_a_found_object_is_taken_elsewhere_once_motion_is_overdue_but_not_remembered_at_once():
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    state, _ = step(state, SCENE.frame(1), ON, perfect(SCENE.truth(1)))
    for n in range(2, PATIENCE + 3):
        state, answer = step(state, SCENE.frame(n), ON, drifted(SCENE.truth(n), 14))
        expected = "carried" if n < PATIENCE + 2 else "seen"
        assert {o.status for o in answer.objects} == {expected}
    assert answer.status == FrameStatus.DISTRUSTED
    assert state.views["main"].object(1).memory.frame.key.index == 1


@pytest.mark.parametrize("absent_score", [0.35, 0.49])
def test_an_absent_object_needs_more_than_a_present_one_to_be_seen_again(absent_score):
    state = begun(SCENE.frame(0), SCENE.truth(0), OFF)
    state, _ = step(state, SCENE.frame(1), OFF, nothing(None))
    _, answer = step(state, SCENE.frame(2), OFF, perfect(SCENE.truth(2), absent_score))
    assert {o.status for o in answer.objects} == {"absent"}


def test_an_object_that_left_the_frame_is_absent():
    frames = {n: SCENE.frame(0) for n in (0, 1)}
    state = begun(frames[0], {1: square(127, 90)}, ON)
    view = state.views["main"]
    state = replace(state, views={"main": replace(view, masks={})})
    _, answer = step(state, replace(frames[1], key=replace(frames[1].key, index=1)), ON, [(square(10, 10), {1: 0.4})])
    assert answer.objects[0].status == "absent"
    assert answer.objects[0].rle is None


def test_each_object_gets_its_own_proposal_by_the_best_total():
    one, two = square(10, 10), square(60, 60)
    state = begun(SCENE.frame(0), {1: one, 2: two}, OFF)
    candidates = [(one, {1: 0.9, 2: 0.85}), (two, {1: 0.8, 2: 0.1})]  # best for 1 first would leave 2 with 0.1
    _, answer = step(state, SCENE.frame(1), OFF, candidates)
    _, masks = answered(answer)
    assert np.array_equal(masks[2], one)
    assert np.array_equal(masks[1], two)


def test_of_two_nearly_equal_masks_the_lower_score_gives_way_and_neither_is_remembered():
    one, two = square(10, 10), square(60, 60)
    state = begun(SCENE.frame(0), {1: one, 2: two}, OFF)
    state, answer = step(state, SCENE.frame(1), OFF, [(one, {1: 0.9}), (shift(one, 3), {2: 0.8})])
    assert [o.status for o in answer.objects] == ["seen", "absent"]
    assert answer.status == FrameStatus.DISTRUSTED
    assert state.views["main"].object(1).memory is None


def test_a_mask_of_implausible_size_is_answered_but_not_remembered():
    state = begun(SCENE.frame(0), {1: square(10, 10)}, OFF)
    state, answer = step(state, SCENE.frame(1), OFF, [(square(10, 10, side=60), {1: 0.9})])
    assert answer.objects[0].status == "seen"
    assert answer.status == FrameStatus.DISTRUSTED
    assert state.views["main"].object(1).memory is None


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.6), (0.6, 0.9)])
def test_a_disputed_pixel_belongs_to_the_higher_score(first, second):
    one, two = square(10, 10), square(30, 10)  # 4 of 24 columns shared
    state = begun(SCENE.frame(0), {1: square(10, 10, side=20), 2: two}, OFF)
    _, answer = step(state, SCENE.frame(1), OFF, [(one, {1: first}), (two, {2: second})])
    _, masks = answered(answer)
    assert not (masks[1] & masks[2]).any()
    assert np.array_equal(masks[1] if first > second else masks[2], one if first > second else two)


def test_masks_never_overlap_whatever_is_proposed():
    random = np.random.default_rng(1)
    state = begun(SCENE.frame(0), SCENE.truth(0), ON)
    for n in range(1, 6):
        candidates = [(random.random(SIZE_HW) < 0.5, {1: random.random(), 2: random.random()}) for _ in range(5)]
        candidates += [(shift(m, random.integers(-6, 6)), {i: 0.9}) for i, m in SCENE.truth(n).items()]
        state, answer = step(state, SCENE.frame(n), ON, candidates)
        assert sum(mask.astype(int) for mask in answered(answer)[1].values()).max() <= 1


def test_the_score_of_an_object_is_the_highest_of_its_tokens():
    state = begun(SCENE.frame(0), {1: square(10, 10)}, OFF)
    state, _ = step(state, SCENE.frame(1), OFF, [(square(12, 10), {1: 0.9})])
    request = plan(state, SCENE.frame(2), OFF)
    assert [r.frame.key.index for r in request.condition.regions] == [0, 1]
    found = Proposals(np.float32([[0.2], [0.8]]), lambda queries: square(14, 10)[None])
    _, answer = settle(state, SCENE.frame(2), request, found, OFF, "")
    assert answer.objects[0].score == pytest.approx(0.8)


@pytest.mark.parametrize("rules", [ON, OFF, ONLY])
def test_a_model_without_a_single_query_leaves_motion_or_nothing(rules):
    state = begun(SCENE.frame(0), SCENE.truth(0), rules)
    request = plan(state, SCENE.frame(1), rules)
    silent = Proposals(np.zeros((len(request.condition.regions), 0), np.float32), lambda queries: np.zeros((0, *SIZE_HW), bool))
    _, answer = settle(state, SCENE.frame(1), request, silent, rules, "")
    assert {o.status for o in answer.objects} == {"absent" if rules is OFF else "carried"}


def test_motion_alone_asks_the_model_nothing():
    state = begun(SCENE.frame(0), SCENE.truth(0), ONLY)
    assert plan(state, SCENE.frame(1), ONLY).condition.regions == ()


def test_without_motion_the_model_is_told_where_the_masks_were():
    state = begun(SCENE.frame(0), SCENE.truth(0), OFF)
    told = plan(state, SCENE.frame(1), OFF).carried
    assert all(np.array_equal(told[i], mask) for i, mask in SCENE.truth(0).items())


def test_an_object_touching_the_border_is_seen_up_to_the_border():
    one = square(-6, 80)
    state = begun(SCENE.frame(0), {1: one}, ON)
    _, answer = step(state, replace(SCENE.frame(0), key=SCENE.frame(1).key), ON, [(one, {1: 0.9})])
    assert np.array_equal(answered(answer)[1][1], one)


def test_a_mask_the_user_gives_owns_its_pixels_over_any_proposal():
    state = begun(SCENE.frame(0), {1: square(10, 10)}, OFF)
    corner = square(30, 10)
    state = prompted(state, mask_prompt(SCENE.frame(1), {2: corner}))
    _, answer = step(state, SCENE.frame(1), OFF, [(square(10, 10), {1: 1.0})])
    _, masks = answered(answer)
    assert np.array_equal(masks[2], corner)
    assert np.array_equal(masks[1], square(10, 10) & ~corner)


def test_a_proposal_that_is_the_mask_the_user_just_gave_to_another_is_not_this_object():
    state = begun(SCENE.frame(0), {1: square(10, 10)}, OFF)
    state = prompted(state, mask_prompt(SCENE.frame(1), {2: square(60, 40)}))
    _, answer = step(state, SCENE.frame(1), OFF, [(square(61, 46), {1: 0.9})])
    assert [o.status for o in answer.objects] == ["absent", "seen"]

"""What the model is asked across views and what becomes of its proposals: sizes, turned pictures, and the tracker's own decision."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from egoexo_takes import EGO, EXO, cup_take
from psalm_stream.eval.egoexo.ask import (
    CALIBRATION,
    Question,
    Views,
    confidence,
    decide,
    missing_pictures,
    questions,
    resized,
    shrunk,
)
from psalm_stream.eval.egoexo.data import DataRoot
from psalm_stream.psalm.honest_policy import TRUSTED_SCORE
from psalm_stream.psalm.tracker import Rules, plan, settle
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.types import (
    Frame,
    FrameKey,
    ObjectState,
    ObjectStatus,
    Proposals,
    Region,
    Regions,
    Remembered,
    Request,
    TrackState,
    ViewState,
)

SIZE_HW = (30, 40)


# -- questions --------------------------------------------------------------------------------------------------------


def test_a_question_is_asked_for_every_query_frame_of_every_pair_of_cameras_in_order_of_frames():
    asked = questions(cup_take(), ("ego-exo", "exo-ego"))
    assert [(q.frame, q.query, q.target) for q in asked] == [
        (0, EGO, EXO),
        (0, EXO, EGO),
        (30, EGO, EXO),
        (30, EXO, EGO),
        (60, EGO, EXO),
    ]
    assert {q.names for q in asked} == {("cup_0",)}  # the knife has no other camera


def test_objects_of_one_pair_of_frames_are_asked_for_together():
    take = cup_take()
    masks = {**take.masks, "knife_1": {**take.masks["knife_1"], EXO: {}}}
    assert questions(replace(take, masks=masks), ("ego-exo",))[0].names == ("cup_0", "knife_1")


# -- pictures and masks -----------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """The cup's take with pictures of the processed sizes, each pixel telling its place."""
    for camera, (height, width) in {EGO: (704, 704), EXO: (540, 960)}.items():
        (tmp_path / "take-1" / camera).mkdir(parents=True)
        y, x = np.mgrid[:height, :width]
        picture = np.dstack([y * 255 // height, x * 255 // width, np.full_like(x, 90)]).astype(np.uint8)
        for frame in (0, 30, 60):
            cv2.imwrite(str(tmp_path / "take-1" / camera / f"{frame}.jpg"), picture)
    return DataRoot(tmp_path, (cup_take(),), True)


def test_the_other_view_s_mask_is_the_condition_at_the_size_of_its_picture(data):
    request, names = Views(data, cup_take()).request(Question(EGO, EXO, 30, ("cup_0",)))
    (region,) = request.condition.regions
    assert (request.frame.key, request.frame.size_hw) == (FrameKey("take-1", EXO, 30), (540, 960))
    assert (region.frame.key, region.frame.size_hw, region.mask.shape) == (FrameKey("take-1", EGO, 30), (704, 704), (704, 704))
    assert np.flatnonzero(region.mask.any(1))[[0, -1]] == pytest.approx([147, 293], abs=1)  # 100 to 200 of 480
    assert (names, region.object_id, request.frame.t_ns) == (("cup_0",), 1, 10**9)


def test_both_pictures_are_of_the_same_time(data):
    request, _ = Views(data, cup_take()).request(Question(EXO, EGO, 30, ("cup_0",)))
    assert request.frame.t_ns == request.condition.regions[0].frame.t_ns


@pytest.mark.parametrize("mask", [None, rle_json(rle.encode(np.zeros((1408, 1408), bool)))])
def test_an_object_whose_mask_is_null_or_empty_is_not_asked_for(mask, data):
    take = cup_take()
    take = replace(take, masks={"bowl_0": {EGO: {0: mask}, EXO: {}}, **take.masks})
    request, names = Views(data, take).request(Question(EGO, EXO, 0, ("bowl_0", "cup_0")))
    assert (names, [r.object_id for r in request.condition.regions]) == (("cup_0",), [2])


def test_a_mask_smaller_than_a_pixel_of_the_picture_is_asked_for_all_the_same():
    mask = np.zeros((2160, 3840), bool)
    mask[1001, 2003] = True
    assert not resized(mask, (540, 960)).any()
    assert np.argwhere(shrunk(mask, (540, 960))).tolist() == [[250, 500]]


@pytest.mark.parametrize(("query", "target"), [(EXO, EGO), (EGO, EXO)])
def test_a_picture_in_another_orientation_than_its_masks_is_refused(query, target, data):
    upright = np.zeros((960, 540, 3), np.uint8)
    cv2.imwrite(str(data.picture("take-1", EXO, 0)), upright)
    with pytest.raises(BadInput, match="masks of cam01 are 3840 x 2160, its picture 0 is 540 x 960; both must be stored in the same"):
        Views(data, cup_take()).request(Question(query, target, 0, ("cup_0",)))


def test_missing_pictures_are_listed_by_camera(data):
    data.picture("take-1", EXO, 60).unlink()
    for frame in (0, 30, 60):
        data.picture("take-1", EGO, frame).unlink()
    assert missing_pictures(data, cup_take(), ("ego-exo",)) == {EGO: [0, 30, 60], EXO: [60]}
    with pytest.raises(BadInput, match=r"60\.jpg cannot be read"):
        Views(data, cup_take()).frame(EXO, 60)


def test_an_empty_file_is_a_missing_picture(data):
    data.picture("take-1", EXO, 60).write_bytes(b"")
    assert missing_pictures(data, cup_take(), ("ego-exo",)) == {EXO: [60]}


@pytest.mark.parametrize("kept", [100, 0.5])
def test_a_picture_that_was_cut_off_is_named_by_its_path(kept, data):
    path = data.picture("take-1", EXO, 60)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    with pytest.raises(BadInput, match=r"take-1/cam01/60\.jpg cannot be decoded .*; process the take again"):
        Views(data, cup_take()).frame(EXO, 60)


# -- turned pictures --------------------------------------------------------------------------------------------------


def request_of(data, upright, query, target):
    return Views(data, cup_take(), upright).request(Question(query, target, 0, ("cup_0",)))[0]


def test_nothing_is_turned_by_default(data):
    stored_pixels = cv2.cvtColor(cv2.imread(str(data.picture("take-1", EGO, 0))), cv2.COLOR_BGR2RGB)
    assert np.array_equal(request_of(data, None, EXO, EGO).frame.pixels(), stored_pixels)


@pytest.mark.parametrize(("upright", "turned"), [("cw", lambda a: np.rot90(a, -1)), ("ccw", np.rot90)])
def test_ego_pictures_and_masks_are_turned_together_and_others_are_not(upright, turned, data):
    plain, other = request_of(data, None, EGO, EXO), request_of(data, upright, EGO, EXO)
    assert np.array_equal(other.condition.regions[0].frame.pixels(), turned(plain.condition.regions[0].frame.pixels()))
    assert np.array_equal(other.condition.regions[0].mask, turned(plain.condition.regions[0].mask))
    assert np.array_equal(other.frame.pixels(), plain.frame.pixels())


def test_clockwise_brings_the_left_side_of_the_stored_picture_to_the_top(data):
    stored_pixels, upright = (request_of(data, turn, EXO, EGO).frame.pixels() for turn in (None, "cw"))
    assert np.array_equal(upright[0], stored_pixels[::-1, 0])


@pytest.mark.parametrize("upright", ["cw", "ccw", None])
@pytest.mark.parametrize("camera", [EGO, EXO])
def test_a_mask_turned_for_the_model_comes_back_to_the_pixel(upright, camera, data):
    views = Views(data, cup_take(), upright)
    mask = np.random.default_rng(3).random((53, 71)) < 0.5
    turned = views._turned(camera, mask)
    assert np.array_equal(views.restored(camera, turned), mask)
    assert np.array_equal(turned, mask) == (upright is None or camera == EXO)


# -- decisions --------------------------------------------------------------------------------------------------------


def frame(view):
    return Frame(FrameKey("take-1", view, 0), 0, False, SIZE_HW, b"")


def box(top, left):
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + 10, left : left + 10] = True
    return mask


MASKS = np.array([box(0, 0), box(0, 20), box(15, 0), box(1, 1)])  # the last is nearly the first


def asked(objects):
    other = frame(EGO)
    return Request(frame(EXO), Regions(tuple(Region(i, other, box(10, 10)) for i in range(1, objects + 1))))


def found(*scores):
    return decide(asked(len(scores)), Proposals(np.array(scores, np.float32), lambda queries: MASKS[list(queries)]))


def test_an_object_gets_its_best_proposal_and_half_sure_is_the_border():
    answers = found([0.9, 0.1, 0.2, 0.1], [0.1, 0.4, 0.2, 0.1])
    assert [a.mask.tolist() for a in answers] == [MASKS[0].tolist(), MASKS[1].tolist()]
    assert [a.confidence for a in answers] == pytest.approx([0.9, 0.4], abs=1e-6)


def test_two_objects_do_not_get_one_proposal():
    first, second = found([0.9, 0.3, 0.1, 0.1], [0.8, 0.1, 0.4, 0.1])
    assert first.mask.tolist() == MASKS[0].tolist()
    assert second.mask.tolist() == MASKS[2].tolist()
    assert second.confidence == pytest.approx(0.4)


def test_an_absent_object_is_not_answered_with_what_another_has():
    _, second = found([0.9, 0.1, 0.1, 0.1], [0.2, 0.0, 0.0, 0.3])  # its best is nearly the first one's
    assert (second.mask.any(), second.confidence) == (False, 0.0)


def test_without_any_proposal_everything_is_surely_absent_and_empty():
    (nothing,) = decide(asked(1), Proposals(np.zeros((1, 0), np.float32), lambda queries: MASKS[:0]))
    assert (nothing.mask.any(), nothing.mask.shape, nothing.confidence) == (False, SIZE_HW, 0.0)


def test_nothing_asked_is_nothing_answered():
    assert decide(asked(0), Proposals(np.zeros((0, 4), np.float32), lambda queries: MASKS[:0])) == []


def track(scores):
    """What the tracker itself calls the objects when only the other view, at the same time, shows them: its status by object id."""
    request = asked(len(scores))
    shown = Remembered(request.condition.regions[0].frame, rle.encode(box(10, 10)))
    ego = ViewState(tuple(ObjectState(r.object_id, "", shown) for r in request.condition.regions))
    state = TrackState("take-1", views={EGO: ego})
    planned = plan(state, request.frame, Rules())
    assert [r.object_id for r in planned.condition.regions] == [r.object_id for r in request.condition.regions]
    _, answer = settle(state, request.frame, planned, Proposals(scores, lambda queries: MASKS[list(queries)]), Rules(), "")
    return {o.object_id: o for o in answer.objects}


def test_more_than_half_sure_is_exactly_what_the_tracker_calls_seen():
    draw, seen = np.random.default_rng(0), 0
    for _ in range(200):
        scores = draw.uniform(0, 1, (3, 4)).astype(np.float32).round(1)  # rounded: the border itself, 0.5, occurs
        tracked, answers = track(scores), found(*scores)
        assert [a.confidence > 0.5 for a in answers] == [tracked[i].status == ObjectStatus.SEEN for i in (1, 2, 3)]
        for answer, theirs in zip(answers, tracked.values(), strict=True):
            seen += theirs.rle is not None
            assert theirs.rle is None or np.array_equal(answer.mask, rle.decode(theirs.rle))
    assert 100 < seen < 500


@pytest.mark.parametrize(
    ("score", "is_seen", "expected"),
    [
        (0.0, False, 0.0),
        (TRUSTED_SCORE / 2, False, 0.25),
        (TRUSTED_SCORE, True, 0.500001),
        (0.999, True, 0.999),
        (1.0, True, 1.0),
        (0.9, False, 0.5),
    ],
)
def test_confidence_is_linear_on_both_sides_of_the_tracker_s_border(score, is_seen, expected):
    assert confidence(score, is_seen) == pytest.approx(expected, abs=1e-5)
    assert (round(confidence(score, is_seen), 6) > 0.5) == is_seen


def test_the_calibration_names_its_constant_and_where_it_is_from():
    assert CALIBRATION["seen_at_score"] == TRUSTED_SCORE
    assert "honest_policy.TRUSTED_SCORE" in CALIBRATION["constant"]
    assert CALIBRATION["data"].startswith("none:")

"""ObjectRelator's evaluation: which frames it takes, and what becomes of masks that overlap or vanish, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from egoexo_takes import EGO, EXO, TALL, cup_take, stored
from psalm_stream.eval.davis.metrics import boundary_f
from psalm_stream.eval.egoexo.ask import Question
from psalm_stream.eval.egoexo.data import DataRoot, Take
from psalm_stream.eval.egoexo.objectrelator import ObjectScore, SampleScore, evaluated_truth, samples, score_sample, stored_mask, totals
from psalm_stream.eval.egoexo.run import Job, score_samples
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.types import Proposals

EGO_BOX, EXO_BOX = ((100, 200), (100, 200)), ((100, 150), (200, 280))


def take_of(**objects):
    """A take; objects by name: camera -> frames on which it has a mask."""
    boxes = {EGO: EGO_BOX, EXO: EXO_BOX, TALL: EXO_BOX}
    masks = {name: {c: {f: stored(c, *boxes[c]) for f in frames} for c, frames in cameras.items()} for name, cameras in objects.items()}
    return Take("t", masks)


@pytest.fixture
def data(tmp_path):
    """Pictures of both exo cameras and the ego camera on frames 0, 30, 60 and 300."""
    for camera in (EGO, EXO, TALL):
        (tmp_path / "t" / camera).mkdir(parents=True)
        for frame in (0, 30, 60, 300):
            cv2.imwrite(str(tmp_path / "t" / camera / f"{frame}.jpg"), np.zeros((4, 4, 3), np.uint8))
    return DataRoot(tmp_path, (), True)


# -- frames -----------------------------------------------------------------------------------------------------------


def test_the_exo_camera_is_the_one_that_shares_most_objects_with_the_ego_camera(data):
    take = take_of(cup={EGO: [0], EXO: [0], TALL: [0]}, knife={EGO: [0], TALL: [0]}, bowl={EXO: [0]}, pan={EXO: [0]})
    assert samples(data, take, "ego-exo") == [Question(EGO, TALL, 0, ("cup", "knife"))]


def test_of_two_that_share_as_many_the_first_counts(data):
    assert samples(data, take_of(cup={EGO: [0], TALL: [0], EXO: [0]}), "exo-ego") == [Question(EXO, EGO, 0, ("cup",))]


def test_the_frames_are_those_of_the_object_annotated_most_often_in_the_query_view(data):
    take = take_of(cup={EGO: [0, 30, 300], EXO: [0, 30, 60, 300]}, knife={EGO: [60], EXO: [30, 60]})
    assert [q.frame for q in samples(data, take, "ego-exo")] == [0, 30, 300]  # the knife's 60 is lost
    assert [(q.frame, q.names) for q in samples(data, take, "exo-ego")] == [
        (0, ("cup",)),
        (30, ("cup",)),
        (60, ("knife",)),
        (300, ("cup",)),
    ]


def test_a_frame_without_a_target_picture_or_an_object_in_both_views_is_no_sample(data):
    data.picture("t", EXO, 30).unlink()
    take = take_of(cup={EGO: [0, 30, 60], EXO: [30, 60]})
    assert [q.frame for q in samples(data, take, "ego-exo")] == [60]


def test_an_object_must_be_left_in_both_views_after_shrinking(data):
    take = take_of(cup={EGO: [0], EXO: [0]})
    lost = np.zeros((2160, 3840), bool)
    lost[1, 1] = True  # between the pixels that are looked at
    take = replace(take, masks={"cup": {**take.masks["cup"], EXO: {0: rle_json(rle.encode(lost))}}})
    assert samples(data, take, "ego-exo") == []


@pytest.mark.parametrize(("camera", "size_hw"), [(EGO, (704, 704)), (EXO, (540, 960))])
def test_masks_are_stored_at_half_the_size_for_ego_and_a_quarter_for_exo(camera, size_hw):
    assert stored_mask(cup_take(), "cup_0", camera, 0).shape == size_hw


@pytest.mark.parametrize("take", [take_of(cup={EGO: [0]}), take_of(cup={EXO: [0]}), take_of(cup={EXO: [0]}, pan={EGO: [0]})])
def test_a_take_whose_views_share_nothing_has_no_samples(take, data):
    assert samples(data, take, "ego-exo") == []


# -- measures ---------------------------------------------------------------------------------------------------------

SIZE_HW = (60, 80)


def box(rows, columns):
    mask = np.zeros(SIZE_HW, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


MASKS = np.array([box((10, 30), (10, 30)), box((10, 30), (20, 40)), box((40, 50), (60, 80))])


def scored(scores, *truth):
    names = [f"cup_{n}" for n in range(len(truth))]
    proposals = Proposals(np.array(scores, np.float32), lambda queries: MASKS[list(queries)])
    return score_sample(names, proposals, np.array(truth), truth)


def test_the_iou_takes_every_object_s_best_proposal_even_twice():
    sample = scored([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1]], MASKS[0], MASKS[1])
    assert (sample.intersection, sample.union) == (400 + 200, 400 + 600)


def test_the_other_measures_take_distinct_proposals_painted_one_over_the_other():
    first, second = scored([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1]], MASKS[0], MASKS[1]).objects
    left = MASKS[0] & ~MASKS[1]  # the second was painted over the first
    assert (first.shape, second.shape) == (boundary_f(MASKS[0], left), 1)
    assert (first.location, second.location) == pytest.approx((5 / 100, 0))  # 14 against 19 in x, over the diagonal of 60 x 80


def test_an_object_that_is_painted_over_is_left_out_and_not_punished():
    sample = scored([[0.9, 0.0, 0.0], [0.9, 0.0, 0.0]], MASKS[0], MASKS[2])
    assert len(sample.objects) == 2  # the second gets the next proposal
    small = np.array([[0.9, 0.1]], np.float32)
    whole, part = np.ones(SIZE_HW, bool), box((0, 5), (0, 5))
    proposals = Proposals(np.concatenate([small[:, ::-1], small]), lambda queries: np.array([whole, part])[list(queries)])
    sample = score_sample(["cup_0", "cup_1"], proposals, np.array([part, whole]), [part, whole])
    assert ([o.name for o in sample.objects], sample.vanished) == (["cup_1"], ("cup_0",))


def test_the_truth_of_the_iou_went_through_the_network_s_square_and_is_not_quite_the_true_mask():
    true = np.random.default_rng(0).random((2, 45, 77)) < 0.5
    made = evaluated_truth(true, 64)
    assert made.shape == true.shape
    assert 0 < (made != true).mean() < 0.6
    big = np.stack([cv2.resize(MASKS[0].view(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST).view(bool)])
    assert np.array_equal(evaluated_truth(big, 160), big)  # nothing is resized


def test_a_picture_of_another_size_than_its_tool_makes_is_refused_before_the_model_is_asked(tmp_path):
    for camera, size_hw in {EGO: (704, 704), EXO: (270, 480)}.items():
        (tmp_path / "t" / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "t" / camera / "0.jpg"), np.zeros((*size_hw, 3), np.uint8))
    take = take_of(cup={EGO: [0], EXO: [0]})
    job = Job(DataRoot(tmp_path, (take,), True), tmp_path, ("ego-exo",), 1, None, {})
    job.samples(take, "ego-exo").parent.mkdir(parents=True)
    said = r"take t: picture 0 of cam01 is 480 x 270, .* expects 960 x 540, .* use --protocol official"
    with pytest.raises(BadInput, match=said):
        list(score_samples(job, take, "ego-exo", None))


# -- averages ---------------------------------------------------------------------------------------------------------


def test_iou_is_pooled_over_a_take_and_everything_is_then_averaged_over_takes():
    sure, poor = ObjectScore("a", 0.0, 1.0, True), ObjectScore("b", 0.3, 0.1, True)
    found = totals(
        {
            "long": [SampleScore(1, 10, (sure, sure)), SampleScore(89, 90, (sure,), ("c",))],
            "short": [SampleScore(0, 50, (poor,))],
            "none": [],
        }
    )
    assert found.iou == pytest.approx((90 / 100 + 0) / 2)
    assert (found.location, found.shape, found.existence) == pytest.approx((0.15, 0.55, 1))
    assert (found.location_objects, found.shape_objects) == pytest.approx((0.3 / 4, 3.1 / 4))
    assert (found.takes, found.samples, found.objects, found.vanished) == (2, 3, 4, 1)


def test_nothing_to_average_is_not_a_number():
    assert math.isnan(totals({"none": []}).iou)

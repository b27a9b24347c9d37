"""The decisions of the official DAVIS loop, replayed on its recorded scores and masks."""

from __future__ import annotations

from itertools import combinations, groupby

import numpy as np
import pytest
from psalm_stream.psalm.official_policy import pick_distinct
from psalm_stream.psalm.overlap import pair_iou
from psalm_stream.psalm.preprocess import pad_mask
from psalm_stream.psalm.tracker import Rules, plan, prompted, settle
from psalm_stream.stream.rle import encode
from psalm_stream.stream.types import FrameStatus, Mask, ObjectPrompt, Prompt, Proposals, TrackState
from video import frame_of, painted
from walk import case_names, load_case, sizes, unpack

if "video_davis" not in case_names():
    pytest.skip("no golden video; set PSALM_GOLDEN", allow_module_level=True)

CASE = load_case("video_davis")
ITEMS = CASE.told["frames"]


def recorded(item):
    """The scores [K, Q] and masks [Q, H, W] of one item."""
    scores = np.ascontiguousarray(CASE.tensors[f"f{item['index']}.out.scores"].T)
    shape = (scores.shape[1], item["height"], item["width"])
    return scores, unpack(CASE.tensors[f"f{item['index']}.out.masks_packed"], shape).numpy()


def replay():
    """Every item with the request it led to, the answer, and the frame index the official memory stood at (0: none yet)."""
    steps = []
    for video, items in groupby(ITEMS, lambda item: item["video"]):
        items = list(items)
        rules = Rules("official", oracle={n: tuple(item["gt_ids_in_frame"]) for n, item in enumerate(items, start=1)})
        label = CASE.tensors[f"video.{video}.first_frame_label"].numpy()
        first = frame_of(video, 0, items[0]["first_frame_image"], label.shape)
        objects = tuple(ObjectPrompt(int(i), Mask(encode(label == i))) for i in np.unique(label) if i)
        state = prompted(TrackState(video), Prompt(first.key, "first", objects))
        nothing = Proposals(np.zeros((0, 1), np.float32), lambda queries, shape=label.shape: np.zeros((0, *shape), bool))
        state, _ = settle(state, first, plan(state, first, rules), nothing, rules, "")
        memory_index = 0
        for n, item in enumerate(items, start=1):
            frame = frame_of(video, n, item["image"], (item["height"], item["width"]))
            scores, masks = recorded(item)
            request = plan(state, frame, rules)
            state, answer = settle(state, frame, request, Proposals(scores, lambda queries, masks=masks: masks[list(queries)]), rules, "")
            steps.append((item, request, answer, memory_index))
            memory_index = n if item["memory_updated"] else memory_index
    return steps


STEPS = replay()
EVERY_STEP = pytest.mark.parametrize(
    ("item", "request_made", "answer", "memory_index"), STEPS, ids=[f"f{step[0]['index']}" for step in STEPS]
)


@EVERY_STEP
def test_the_prompt_comes_from_the_recorded_frame(item, request_made, answer, memory_index):
    expected = 0 if item["vp_source"] == "first_frame" else memory_index
    assert {region.frame.key.index for region in request_made.condition.regions} == {expected}


@EVERY_STEP
def test_the_recorded_objects_are_asked_for_in_their_order(item, request_made, answer, memory_index):
    assert [region.object_id for region in request_made.condition.regions] == item["fill_numbers"]


@EVERY_STEP
def test_the_prompt_masks_are_the_recorded_ones_to_the_pixel(item, request_made, answer, memory_index):
    padded = np.array([pad_mask(region.mask, sizes()["image_size"]) for region in request_made.condition.regions])
    assert np.array_equal(padded, CASE.bits(f"f{item['index']}.in.vp_region_masks"))


@EVERY_STEP
def test_the_picked_queries_and_scores_are_exact(item, request_made, answer, memory_index):
    scores, _ = recorded(item)
    picks = pick_distinct(scores)
    assert picks == item["picked_query"]
    assert [float(scores[k, q]) for k, q in enumerate(picks)] == item["picked_score"]


@EVERY_STEP
def test_the_overlap_of_picked_masks_is_the_recorded_one(item, request_made, answer, memory_index):
    scores, masks = recorded(item)
    picked = masks[pick_distinct(scores)]
    iou = pair_iou(picked, picked)
    found = {f"{a},{b}": iou[a, b] for a, b in combinations(range(len(picked)), 2)}
    assert found == pytest.approx({pair: np.nan_to_num(value) for pair, value in item["pair_iou"].items()}, abs=1e-12)  # NaN: both empty


@EVERY_STEP
def test_memory_is_refused_exactly_where_it_was(item, request_made, answer, memory_index):
    assert (answer.status == FrameStatus.OK) == item["memory_updated"]


@EVERY_STEP
def test_the_painted_frame_is_the_recorded_one_to_the_pixel(item, request_made, answer, memory_index):
    assert np.array_equal(painted(answer), CASE.tensors[f"f{item['index']}.out.fused"])

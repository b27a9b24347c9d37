"""The decisions of the official DAVIS loop, replayed on its recorded scores and masks."""

import json
import os
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
import pytest
from psalm_stream.psalm.official_policy import pick_distinct
from psalm_stream.psalm.overlap import pair_iou
from psalm_stream.psalm.preprocess import pad_mask
from psalm_stream.psalm.tracker import Rules, plan, prompted, settle
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, Mask, ObjectPrompt, Prompt, Proposals, TrackState
from safetensors.numpy import load_file

GOLDEN = Path(os.environ.get("PSALM_GOLDEN") or Path(__file__).parents[3] / "shared/golden/psalm-tiny")
if not (GOLDEN / "cases/video_davis.json").exists():
    pytest.skip(f"no golden data at {GOLDEN}; set PSALM_GOLDEN", allow_module_level=True)

SIDE = json.loads((GOLDEN / "config.json").read_text())["image_size"]
CASE = json.loads((GOLDEN / "cases/video_davis.json").read_text())
TENSORS = load_file(GOLDEN / "cases/video_davis.safetensors")
ITEMS = CASE["frames"]


def bits(packed, shape):
    return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)


def recorded(item):
    """The scores [K, Q] and masks [Q, H, W] of one item."""
    scores = np.ascontiguousarray(TENSORS[f"f{item['index']}.out.scores"].T)
    shape = (scores.shape[1], item["height"], item["width"])
    return scores, bits(TENSORS[f"f{item['index']}.out.masks_packed"], shape)


def picture(video, index, name, size_hw):
    return Frame(FrameKey(video, "main", index), index, False, tuple(size_hw), (GOLDEN / name).read_bytes())


def replay():
    """Every item with the request it led to, the answer, and the frame index the official memory stood at (0: none yet)."""
    steps = []
    for video, items in groupby(ITEMS, lambda item: item["video"]):
        items = list(items)
        rules = Rules("official", oracle={n: tuple(item["gt_ids_in_frame"]) for n, item in enumerate(items, start=1)})
        label = TENSORS[f"video.{video}.first_frame_label"]
        first = picture(video, 0, items[0]["first_frame_image"], label.shape)
        objects = tuple(ObjectPrompt(int(i), Mask(encode(label == i))) for i in np.unique(label) if i)
        state = prompted(TrackState(video), Prompt(first.key, "first", objects))
        nothing = Proposals(np.zeros((0, 1), np.float32), lambda queries, shape=label.shape: np.zeros((0, *shape), bool))
        state, _ = settle(state, first, plan(state, first, rules), nothing, rules, "")
        memory_index = 0
        for n, item in enumerate(items, start=1):
            frame = picture(video, n, item["image"], (item["height"], item["width"]))
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
    padded = np.array([pad_mask(region.mask, SIDE) for region in request_made.condition.regions])
    packed = TENSORS[f"f{item['index']}.in.vp_region_masks"]
    assert np.array_equal(padded, bits(packed, CASE["bit_packed_shapes"][f"f{item['index']}.in.vp_region_masks"]))


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
    painted = np.zeros((item["height"], item["width"]), np.uint8)
    for found in answer.objects:
        if found.rle is not None:
            painted[decode(found.rle)] = found.object_id
    assert np.array_equal(painted, TENSORS[f"f{item['index']}.out.fused"])

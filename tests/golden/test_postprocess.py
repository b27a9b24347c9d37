"""Post-processing against recorded official results: the unit case without a network, then every case from its last mask logits.

Final masks of light cases are recorded in float16, which moves scores by some 1e-3 and flips pixels on outlines; there, which query
is chosen is read from the recorded scores.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from psalm_stream.psalm import postprocess
from psalm_stream.psalm.postprocess import Segment
from psalm_stream.psalm.preprocess import Geometry
from safetensors.torch import load_file

GOLDEN = Path(os.environ.get("PSALM_GOLDEN") or Path(__file__).parents[3] / "shared/golden/psalm-tiny")
if not (GOLDEN / "config.json").exists():
    pytest.skip(f"no golden data at {GOLDEN}; set PSALM_GOLDEN", allow_module_level=True)

SIDE = json.loads((GOLDEN / "config.json").read_text())["image_size"]
UNIT = json.loads((GOLDEN / "cases/postprocess.json").read_text())
INPUT = load_file(GOLDEN / "cases/postprocess.safetensors")
LOGITS, CLASSES = INPUT["in.mask_logits"], INPUT["in.class_logits"]
THINGS = [bool(x) for x in UNIT["is_thing"]]
UNIT_TOLERANCE = 1e-5  # another torch interpolates 2e-6 differently
EXACT, HALF = (2e-4, 3e-5), (1e-2, 2e-3)  # tolerance of scores, share of pixels


def unpack(packed, shape):
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=int(np.prod(shape))).reshape(shape)).bool()


def assert_close(found, recorded, tolerance):
    """Greatest difference relative to the greatest value."""
    assert found.shape == recorded.shape
    assert (found - recorded.float()).abs().max() <= tolerance * recorded.float().abs().max()


def assert_few_differ(found, recorded, share):
    assert found.shape == recorded.shape
    assert (found != recorded).sum() <= max(1, share * recorded.numel())


def segments(recorded):
    return tuple(Segment(s["id"], s["category_id"], s["isthing"]) for s in recorded)


# -- the unit case ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(UNIT["resize"]))
def test_logits_are_cropped_and_resized_as_recorded(name):
    logits = INPUT["in.resize"]
    where = Geometry(tuple(UNIT["resize"][name]["out"]), tuple(UNIT["resize"][name]["crop"]), logits.shape[-1])
    assert_close(postprocess.upsample_masks(logits, where), INPUT[f"out.resize_{name}"], UNIT_TOLERANCE)


def test_the_official_ground_truth_is_bit_exact():
    masks = INPUT["in.resize"] > 0
    where = Geometry(tuple(UNIT["resize"]["a"]["out"]), tuple(UNIT["resize"]["a"]["crop"]), masks.shape[-1])
    assert torch.equal(postprocess.official_ground_truth(masks, where), INPUT["out.resize_uint8_cpu"].bool())


def test_panoptic_ids_and_segments_are_exact():
    result = postprocess.panoptic(CLASSES, LOGITS, None, THINGS)
    assert torch.equal(result.ids, INPUT["out.panoptic_seg"])
    assert result.segments == segments(UNIT["segments_info"])


def test_the_semantic_map_agrees():
    assert_close(postprocess.semantic(CLASSES, LOGITS, None), INPUT["out.sem_seg"], UNIT_TOLERANCE)


@pytest.mark.parametrize(("name", "things"), [("things_only", THINGS), ("all", None)])
def test_instances_agree_pair_by_pair(name, things):
    result, recorded = postprocess.instance(CLASSES, LOGITS, None, things), INPUT[f"out.instance_{name}.scores"]
    masks = unpack(INPUT[f"out.instance_{name}.masks_packed"], (len(recorded), *LOGITS.shape[1:]))
    ours, theirs = result.scores.argsort(stable=True), recorded.argsort(stable=True)
    assert_close(result.scores[ours], recorded[theirs], UNIT_TOLERANCE)
    scored = theirs[recorded[theirs] > 0]  # pairs of empty masks all score zero: no order among them
    ours = ours[-len(scored) :]
    assert torch.equal(result.labels[ours], INPUT[f"out.instance_{name}.labels"][scored])
    assert torch.equal(result.masks[ours], masks[scored])


def test_referring_scores_and_masks_agree_in_order_of_score():
    scores, recorded = postprocess.referring_scores(INPUT["in.SEG_logits"], LOGITS, None), INPUT["out.refer.scores"]
    order, theirs = scores.argsort(), recorded.argsort()
    assert_close(scores[order], recorded[theirs], UNIT_TOLERANCE)
    masks = unpack(INPUT["out.refer.masks_packed"], LOGITS.shape)
    assert torch.equal(postprocess.binary_masks(LOGITS, None, order), masks[theirs])


def test_region_scores_and_masks_agree():
    assert_close(postprocess.region_scores(INPUT["in.region_logits"], LOGITS, None).T, INPUT["out.region.scores"], UNIT_TOLERANCE)
    masks = unpack(INPUT["out.region.masks_packed"], LOGITS.shape)
    assert torch.equal(postprocess.binary_masks(LOGITS, None, range(len(LOGITS))), masks)


@pytest.mark.parametrize("case", UNIT["gref_rule"]["cases"], ids=lambda case: case["name"])
def test_the_official_rule_for_expressions_of_any_number_gives_the_recorded_metrics(case):
    logits = LOGITS[:6].clone()
    if "best_empty" in case["name"]:
        logits[2] = -1
    truth = LOGITS[4] > 0 if "no_target" not in case["name"] else torch.zeros_like(LOGITS[4], dtype=torch.bool)
    found = postprocess.generalized_referring(torch.tensor(case["scores"]), logits, None, fallback="official")
    both = [((found == value) & (truth == value)).sum().item() for value in (False, True)]
    either = [((found == value) | (truth == value)).sum().item() for value in (False, True)]
    assert found.sum() == case["pred_area"]
    assert (both, either) == (case["intersection"], case["union"])
    assert [i / (u + 1e-5) if u else 1.0 for i, u in zip(both, either, strict=True)] == pytest.approx(case["iou"], abs=1e-6)


# -- whole cases, from their last mask logits -------------------------------------------------------------------------


def recorded_cases(task, needed="out.scores"):
    found = []
    for path in sorted(GOLDEN.glob("cases/*.json")):
        case = json.loads(path.read_text())
        final = last_level(case["tensors"])
        if case.get("task") == task and needed in case["tensors"] and f"dec.l{final}.mask_logits" in case["tensors"]:
            found.append(path.stem)
    return found


def last_level(names):
    return max((int(name.split(".")[1][1:]) for name in names if name.startswith("dec.l")), default=None)


def load(name):
    """Tensors of a case under short names, its geometry and its tolerances."""
    case, tensors = json.loads((GOLDEN / f"cases/{name}.json").read_text()), load_file(GOLDEN / f"cases/{name}.safetensors")
    prefix = f"dec.l{last_level(tensors)}."
    tensors |= {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    where = Geometry((case["height"][0], case["width"][0]), tuple(case["valid_hw"][0]), SIDE)
    exact = tensors["mask_logits"].dtype == torch.float32
    return case, tensors, where, EXACT if exact else HALF


@pytest.mark.parametrize("name", recorded_cases("panoptic") + recorded_cases("instance"))
def test_instances_of_a_case_are_the_recorded_pairs(name):
    case, tensors, where, (tolerance, share) = load(name)
    classes, masks = tensors["class_logits"][0], tensors["mask_logits"][0]
    things = [bool(x) for x in case["is_thing"]] if case["task"] == "panoptic" else None
    result = postprocess.instance(classes, masks, where, things)
    pairs = tensors["out.topk_flat_index_before_thing_filter"]
    categories = classes.shape[1] - 1
    kept = pairs if things is None else pairs[torch.tensor(things)[pairs % categories]]
    ours, theirs = (result.queries * categories + result.labels).argsort(), kept.argsort()
    assert torch.equal((result.queries * categories + result.labels)[ours], kept[theirs])
    assert torch.equal(result.labels[ours], tensors["out.labels"][theirs])
    assert_close(result.scores[ours], tensors["out.scores"][theirs], tolerance)
    assert_few_differ(result.masks[ours], unpack(tensors["out.masks_packed"], case["out_masks_shape"])[theirs], share)


@pytest.mark.parametrize("name", recorded_cases("panoptic", "out.panoptic_seg"))
def test_the_panoptic_result_of_a_case_is_the_recorded_one(name):
    case, tensors, where, (_, share) = load(name)
    result = postprocess.panoptic(tensors["class_logits"][0], tensors["mask_logits"][0], where, [bool(x) for x in case["is_thing"]])
    assert result.segments == segments(case["segments_info"])
    assert_few_differ(result.ids, tensors["out.panoptic_seg"], share)


@pytest.mark.parametrize("name", recorded_cases("panoptic", "out.sem_seg") + recorded_cases("semantic", "out.sem_seg"))
def test_the_semantic_map_of_a_case_is_the_recorded_one(name):
    case, tensors, where, (_, share) = load(name)
    at = "source" if case["task"] == "panoptic" else "padded"
    result = postprocess.semantic(tensors["class_logits"][0], tensors["mask_logits"][0], where, at)
    assert_close(result, tensors["out.sem_seg"], 2e-3)
    assert_few_differ(result.argmax(0).to(torch.uint8), tensors["out.sem_seg_argmax"], share)


@pytest.mark.parametrize("name", recorded_cases("referring"))
def test_the_referring_result_of_a_case_and_both_its_answers_are_the_recorded_ones(name):
    case, tensors, where, (tolerance, share) = load(name)
    logits, order = tensors["mask_logits"][0], tensors["out.topk_query_index"]
    scores = postprocess.referring_scores(tensors["SEG_logits"][0], logits, where)
    assert_close(scores[order], tensors["out.scores"], tolerance)
    assert_few_differ(postprocess.binary_masks(logits, where, order), unpack(tensors["out.masks_packed"], case["out_masks_shape"]), share)
    scores[order] = tensors["out.scores"]
    best = postprocess.binary_masks(logits, where, scores.argmax()[None])[0]
    assert_few_differ(best, unpack(tensors["out.top1.pred_packed"], where.size_hw), share)
    union = postprocess.generalized_referring(scores, logits, where, fallback="official")
    assert_few_differ(union, unpack(tensors["out.gref_0.6.pred_packed"], where.size_hw), share)


@pytest.mark.parametrize("name", recorded_cases("region"))
def test_the_region_result_of_a_case_is_the_recorded_one(name):
    case, tensors, where, (tolerance, share) = load(name)
    logits = tensors["mask_logits"][0]
    scores = postprocess.region_scores(tensors["region_logits.0"], logits, where)
    assert_close(scores.T, tensors["out.scores"], tolerance)
    picked = tensors["out.scores"].gather(0, scores.argmax(1)[None])[0]
    assert (picked >= tensors["out.scores"].amax(0) - tolerance).all()
    masks = postprocess.binary_masks(logits, where, range(len(logits)))
    assert_few_differ(masks, unpack(tensors["out.masks_packed"], case["out_masks_shape"]), share)


@pytest.mark.parametrize("name", recorded_cases("region", "out.gt"))
def test_the_official_ground_truth_of_a_case_is_bit_exact(name):
    case, tensors, where, _ = load(name)
    padded, truth = (unpack(tensors[key], case["bit_packed_shapes"][key]) for key in ("in.gt_masks_padded", "out.gt"))
    assert torch.equal(postprocess.official_ground_truth(padded, where), truth)

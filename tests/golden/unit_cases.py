"""The cases without a network: pictures and masks on their way into the square, results from recorded logits."""

from __future__ import annotations

import torch
from inputs import picture
from psalm_stream.psalm import postprocess, preprocess
from psalm_stream.psalm.model import normalize
from results import figures, instance_results, panoptic_results, proposal_results
from torch import Tensor
from walk import Case, Found, pixels, sizes, unpack


def preprocess_case(case: Case) -> Found:
    """Pictures, masks and padding on their way into the square."""
    side, found = sizes()["image_size"], {}
    for n, item in enumerate(case.told["items"]):
        source = pixels(item["image"])
        padded = preprocess.pad_image(source, side)
        where = preprocess.geometry(source.shape[:2], side)
        mask = unpack(case.tensors[f"{n}.mask_packed"], source.shape[:2]).numpy()
        padding = torch.ones(side, side, dtype=torch.bool)
        padding[: where.valid_hw[0], : where.valid_hw[1]] = False
        found |= picture(case, f"{n}.image_padded_u8", [padded])
        found[f"json:items.{n}.valid_hw"] = where.valid_hw
        found[f"{n}.image"] = normalize(torch.from_numpy(padded).permute(2, 0, 1))
        found[f"{n}.mask_padded_packed"] = torch.from_numpy(preprocess.pad_mask(mask, side))
        found[f"{n}.padding_mask_packed"] = padding
    return found


def postprocess_case(case: Case) -> Found:
    """Every rule on recorded logits, without a network."""
    masks, classes = case.tensors["in.mask_logits"], case.tensors["in.class_logits"]
    things = [bool(x) for x in case.told["is_thing"]]
    found = panoptic_results(classes, masks, None, things)
    found["out.sem_seg"] = postprocess.semantic(classes, masks, None)
    for name, kept in {"all": None, "things_only": things}.items():
        result = instance_results(classes, masks, None, kept, unordered_pairs(case, name, classes, masks, kept))
        found |= {f"out.instance_{name}.{key.removeprefix('out.')}": value for key, value in result.items()}
    scores = postprocess.referring_scores(case.tensors["in.SEG_logits"], masks, None)
    order = in_order_of_scores(scores, case.tensors["out.refer.scores"])
    found |= {"out.refer.scores": scores[order], "out.refer.masks_packed": postprocess.binary_masks(masks, None, order)}
    regions = proposal_results("", case.tensors["in.region_logits"], masks, None)
    found |= {f"out.region.{key.removeprefix('out.')}": value for key, value in regions.items()}
    for name, resized in case.told["resize"].items():
        where = preprocess.Geometry(tuple(resized["out"]), tuple(resized["crop"]), case.tensors["in.resize"].shape[-1])
        found[f"out.resize_{name}"] = postprocess.upsample_masks(case.tensors["in.resize"], where)
        if found[f"out.resize_{name}"].shape == case.tensors["out.resize_uint8_cpu"].shape:
            found["out.resize_uint8_cpu"] = postprocess.official_ground_truth(case.tensors["in.resize"] > 0, where).to(torch.uint8)
    found["json:gref_rule"] = case.told["gref_rule"] | {"cases": [gref_rule(c, masks) for c in case.told["gref_rule"]["cases"]]}
    return found


def unordered_pairs(case: Case, name: str, classes: Tensor, masks: Tensor, things: list[bool] | None) -> Tensor:
    """Our (query, category) pairs in the recorded order, which this case tells by scores alone."""
    result = postprocess.instance(classes, masks, None, things)
    recorded = case.tensors[f"out.instance_{name}.scores"]
    labels = case.tensors[f"out.instance_{name}.labels"]
    pairs = result.queries * (classes.shape[1] - 1) + result.labels
    left, order = list(range(len(pairs))), []
    for score, label in zip(recorded.tolist(), labels.tolist(), strict=True):
        nearest = min(left, key=lambda row: (int(result.labels[row]) != label, abs(float(result.scores[row]) - score)))
        left.remove(nearest)
        order.append(nearest)
    return pairs[order]


def in_order_of_scores(ours: Tensor, recorded: Tensor) -> Tensor:
    """Rows of `ours` in the recorded order of score."""
    order = torch.empty_like(recorded, dtype=torch.int64)
    order[recorded.argsort()] = ours.argsort()
    return order


def gref_rule(told: dict, masks: Tensor) -> dict:
    """One unit case of the rule for expressions of any number; the recording's note says how its masks and truth are made."""
    logits = masks[: len(told["scores"])].clone()
    if "best_empty" in told["name"]:
        logits[2] = -1
    truth = masks[4] > 0 if "no_target" not in told["name"] else torch.zeros_like(masks[4], dtype=torch.bool)
    answer = postprocess.generalized_referring(torch.tensor(told["scores"]), logits, None, fallback="official")
    return told | figures(answer, truth) | {"pred_area": int(answer.sum())}

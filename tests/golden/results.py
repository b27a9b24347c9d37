"""From the last logits of a case to its recorded results: `out.*` tensors and JSON figures, by task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from psalm_stream.psalm import postprocess
from psalm_stream.psalm.official_policy import pick_distinct
from psalm_stream.psalm.postprocess import GENERALIZED_SCORE
from psalm_stream.psalm.preprocess import Geometry
from torch import Tensor
from walk import Case, Found, Near, few, unpack


def category_results(case: Case, class_logits: Tensor, mask_logits: Tensor, where: Geometry) -> Found:
    """Of the tasks with class names. class_logits: [Q, C+1]."""
    task, things = case.told["task"], [bool(x) for x in case.told["is_thing"]]
    found: Found = {}
    if task != "instance":
        found["out.sem_seg"] = postprocess.semantic(class_logits, mask_logits, where, "source" if task == "panoptic" else "padded")
        found["out.sem_seg_argmax"] = found["out.sem_seg"].argmax(0).to(torch.uint8)
    if task == "panoptic":
        found |= panoptic_results(class_logits, mask_logits, where, things)
    if task != "semantic":
        recorded = case.tensors["out.topk_flat_index_before_thing_filter"]
        found |= instance_results(class_logits, mask_logits, where, things if task == "panoptic" else None, recorded)
    return found


def panoptic_results(class_logits: Tensor, mask_logits: Tensor, where: Geometry | None, things: list[bool]) -> Found:
    """The id map and its segments."""
    result = postprocess.panoptic(class_logits, mask_logits, where, things)
    segments = [{"id": s.id, "isthing": s.is_thing, "category_id": s.label} for s in result.segments]
    return {"out.panoptic_seg": result.ids, "json:segments_info": segments}


def instance_results(
    class_logits: Tensor, mask_logits: Tensor, where: Geometry | None, things: list[bool] | None, recorded_pairs: Tensor
) -> Found:
    """Instances in the recorded order (the official top-k is unsorted); which pairs there are is ours."""
    categories = class_logits.shape[1] - 1
    everything, kept = (postprocess.instance(class_logits, mask_logits, where, t) for t in (None, things))
    order = in_order_of(everything.queries * categories + everything.labels, recorded_pairs)
    pairs = (everything.queries * categories + everything.labels)[order]
    chosen = in_order_of(kept.queries * categories + kept.labels, pairs)
    return {
        "out.topk_flat_index_before_thing_filter": pairs,
        "out.scores": kept.scores[chosen],
        "out.labels": kept.labels[chosen],
        "out.masks_packed": kept.masks[chosen],
    }


def in_order_of(ours: Tensor, recorded: Tensor) -> Tensor:
    """Rows of `ours` in the order in which `recorded` names them; rows it does not name come last."""
    place = {int(value): n for n, value in enumerate(recorded)}
    return torch.tensor(sorted(range(len(ours)), key=lambda row: place.get(int(ours[row]), len(place))), dtype=torch.int64)


def referring_results(case: Case, refer_logits: Tensor, mask_logits: Tensor, where: Geometry) -> Found:
    """Scores, and the two answers with their figures. refer_logits: [Q, 1]."""
    scores = postprocess.referring_scores(refer_logits, mask_logits, where)
    order = in_order_of(torch.arange(len(scores)), case.tensors["out.topk_query_index"])
    best = postprocess.binary_masks(mask_logits, where, scores.argmax()[None])[0]
    several = postprocess.generalized_referring(scores, mask_logits, where, fallback="official")
    truth = unpack(case.tensors["out.gt_mask_packed"], where.size_hw)
    above = int((scores > GENERALIZED_SCORE).sum())
    return {
        "out.scores": scores[order],
        "out.masks_packed": postprocess.binary_masks(mask_logits, where, order),
        "out.top1.pred_packed": best,
        "out.gref_0.6.pred_packed": several,
        "json:metric_top1": figures(best, truth) | {"n_above_thr": above},
        "json:metric_gref_0.6": figures(several, truth) | {"n_above_thr": above},
    }


def region_results(case: Case, region_logits: Tensor, mask_logits: Tensor, where: Geometry) -> Found:
    """Scores and masks of all queries, and the figures of the best ones. region_logits: [K, Q]."""
    found = proposal_results("", region_logits, mask_logits, where)
    if "out.pick" not in case.tensors:
        return found
    found["out.pick"] = found["out.scores"].argmax(0)
    found["out.gt"] = postprocess.official_ground_truth(case.bits("in.gt_masks_padded"), where)
    per_region = [figures(found["out.masks_packed"][q], truth) for q, truth in zip(found["out.pick"], found["out.gt"], strict=True)]
    both, either, quotient = (np.array([f[key].value for f in per_region]) for key in ("intersection", "union", "iou"))
    found["json:metric"] = {
        "intersection": replace(per_region[0]["intersection"], value=both.sum(0).tolist()),
        "union": replace(per_region[0]["union"], value=either.sum(0).tolist()),
        "giou": replace(max((f["iou"] for f in per_region), key=lambda near: near.margin), value=quotient.mean(0).tolist()),
    }
    return found


def proposal_results(prefix: str, region_logits: Tensor, mask_logits: Tensor, where: Geometry) -> Found:
    """Every query's score for every region [Q, K] and its mask."""
    return {
        f"{prefix}out.scores": postprocess.region_scores(region_logits, mask_logits, where).T,
        f"{prefix}out.masks_packed": postprocess.binary_masks(mask_logits, where, range(len(mask_logits))),
    }


def picked_results(name: str, scores: Tensor) -> Found:
    """The queries picked without repetition, and their scores. name: of the JSON entry; scores: [Q, K]."""
    picks = pick_distinct(scores.T.numpy())
    return {f"json:{name}.picked_query": picks, f"json:{name}.picked_score": [scores[q, k].item() for k, q in enumerate(picks)]}


def figures(mask: Tensor, truth: Tensor) -> dict[str, object]:
    """Intersection, union and their quotient for [background, foreground], as far off as a few pixels take them."""
    both = [float(((mask == value) & (truth == value)).sum()) for value in (False, True)]
    either = [float(((mask == value) | (truth == value)).sum()) for value in (False, True)]
    quotient = [b / (e + 1e-5) if e else 1.0 for b, e in zip(both, either, strict=True)]
    slack = few(mask.numel()), few(mask.numel(), loose=True)
    fractions = [pixels / max(1.0, min(either)) + 1e-6 for pixels in slack]
    return {"intersection": Near(both, *slack), "union": Near(either, *slack), "iou": Near(quotient, *fractions)}

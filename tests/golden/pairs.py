"""Questions about one image whose regions lie in another: the ego-exo cases, and what the video loop asks."""

from __future__ import annotations

import numpy as np
import torch
from inputs import condition_of, fragile_json, fragile_names, picture, prompt_tensors, region_inputs, stacked_masks, text_of
from psalm_stream.psalm import preprocess
from psalm_stream.psalm.prompt import tokenize
from psalm_stream.psalm.segmenter import Segmenter
from results import picked_results, proposal_results
from torch import Tensor
from traces import Question, Trace, trace
from walk import Case, Found, pixels, sizes


def view_case(case: Case, segmenter: Segmenter) -> tuple[Found, list[str]]:
    """Regions of one view asked for in the other; objectrelator cases say a sentence beside them."""
    found: Found = {}
    loose: list[str] = []
    for n, sample in enumerate(case.told["samples"]):
        prefix, side = f"s{n}.", sizes()["image_size"]
        masks = case.bits(f"{prefix}in.vp_region_masks")
        if f"{prefix}vp_mask_original.{sample['ids'][0]}" in case.tensors:
            masks = stacked_masks([case.bits(f"{prefix}vp_mask_original.{i}").numpy() for i in sample["ids"]])
        asked = pair_of_images(case, segmenter, prefix, sample, (pixels(sample["image"]), pixels(sample["vp_image"]), masks))
        traced, values = asked
        where = preprocess.geometry((sample["height"], sample["width"]), side)
        logits, final = traced.logits[-1], traced.answer.predictions[-1].mask_logits[0]
        results = proposal_results(prefix, logits["regions"][0], final, where)
        found |= values | results | picked_results(f"samples.{n}", results[f"{prefix}out.scores"])
        found[f"{prefix}out.fused"] = fused(found[f"json:samples.{n}.picked_query"], sample["ids"], results[f"{prefix}out.masks_packed"])
        found[f"json:samples.{n}.valid_hw"] = where.valid_hw
        found[f"json:samples.{n}.vp_valid_hw"] = preprocess.geometry(pixels(sample["vp_image"]).shape[:2], side).valid_hw
        loose += fragile_names(prefix, sample, traced) + fragile_json(f"samples.{n}", sample, traced)
        found[f"json:samples.{n}.attn_mask_margin"] = traced.found["json:attn_mask_margin"]
    return found, loose


def pair_of_images(
    case: Case, segmenter: Segmenter, prefix: str, told: dict, pictures: tuple[np.ndarray, np.ndarray, Tensor]
) -> tuple[Trace, Found]:
    """Trace one question about an image whose regions lie in another. pictures: the image, the other, padded masks there."""
    image, vp_image, masks = pictures
    condition = condition_of(told, len(masks))
    prompt = tokenize(condition, segmenter.tokenizer)
    padded = [preprocess.pad_image(p, sizes()["image_size"]) for p in (image, vp_image)]
    found = region_inputs(case, [masks], prefix, "in.vp_region_masks")
    for name, ours in zip(("image", "vp_image"), padded, strict=True):
        found |= picture(case, f"{prefix}in.{name}_padded_u8", [ours])
    points = found[f"{prefix}rng.region_points.0"]
    traced = trace(segmenter.network, [Question(torch.from_numpy(padded[0]), prompt, torch.from_numpy(padded[1]), masks, points)])
    found |= {f"{prefix}{key}": value for key, value in (traced.found | prompt_tensors([prompt])).items()}
    found[f"{prefix}in.token_refer_id"] = torch.tensor(prompt.refer)
    last = len(traced.answer.predictions) - 1
    found[f"{prefix}dec.final.region_logits"] = found[f"{prefix}dec.l{last}.region_logits.0"]
    if condition.sentences:
        found[f"{prefix}dec.final.SEG_logits"] = found[f"{prefix}dec.l{last}.SEG_logits"]
    entries, number = ("frames" if "index" in told else "samples"), int(prefix[1:-1])
    found[f"json:{entries}.{number}.prompt"] = text_of(condition)
    return traced, found


def fused(picks: list[int], ids: list[int], masks: Tensor) -> Tensor:
    """The id map of picked masks, later objects over earlier ones, uint8 [H, W]."""
    painted = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    for query, object_id in zip(picks, ids, strict=True):
        painted[masks[query]] = object_id
    return painted

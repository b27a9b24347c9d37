"""Questions about one image whose regions lie in another: the ego-exo cases with their metrics, and what the video loop asks."""

from __future__ import annotations

import math

import numpy as np
import torch
from inputs import condition_of, fragile_json, fragile_names, picture, prompt_tensors, region_inputs, stacked_masks, text_of
from psalm_stream.eval.davis.metrics import jaccard
from psalm_stream.eval.egoexo.objectrelator import SampleScore, evaluated_truth, score_sample, totals
from psalm_stream.psalm import preprocess
from psalm_stream.psalm.prompt import tokenize
from psalm_stream.psalm.segmenter import Segmenter
from psalm_stream.stream.types import Proposals
from results import picked_results, proposal_results
from torch import Tensor
from traces import Question, Trace, trace
from walk import Case, Found, Near, few, load_case, pixels, sizes

SHAPE_SLACK = 0.02  # of outlines of some hundred pixels, three are another's when one pixel of a mask is


def view_case(case: Case, segmenter: Segmenter) -> tuple[Found, list[str]]:
    """Regions of one view asked for in the other; objectrelator cases say a sentence beside them."""
    found: Found = {}
    loose: list[str] = []
    for n, sample in enumerate(case.told["samples"]):
        prefix, side = f"s{n}.", sizes()["image_size"]
        masks = stacked_masks(masks_of(case, n, "vp_mask_original"))
        asked = pair_of_images(case, segmenter, prefix, sample, (pixels(sample["image"]), pixels(sample["vp_image"]), masks))
        traced, values = asked
        where = preprocess.geometry((sample["height"], sample["width"]), side)
        logits, final = traced.logits[-1], traced.answer.predictions[-1].mask_logits[0]
        results = proposal_results(prefix, logits["regions"][0], final, where)
        found |= values | results | picked_results(f"samples.{n}", results[f"{prefix}out.scores"])
        found[f"{prefix}out.fused"] = fused(found[f"json:samples.{n}.picked_query"], sample["ids"], results[f"{prefix}out.masks_packed"])
        if "metrics" in sample:
            found[f"json:samples.{n}.metrics"] = object_metrics(case, n, found)
        else:
            found[f"{prefix}out.gt"] = torch.from_numpy(evaluated_truth(truth_of(case, n), side))
        found[f"json:samples.{n}.valid_hw"] = where.valid_hw
        found[f"json:samples.{n}.vp_valid_hw"] = preprocess.geometry(pixels(sample["vp_image"]).shape[:2], side).valid_hw
        loose += fragile_names(prefix, sample, traced) + fragile_json(f"samples.{n}", sample, traced)
        found[f"json:samples.{n}.attn_mask_margin"] = traced.found["json:attn_mask_margin"]
    if "totals" in case.told:
        found["json:totals"] = printed_totals(case, found)
    return found, loose


# -- metrics ----------------------------------------------------------------------------------------------------------


def masks_of(case: Case, sample: int, kind: str) -> list[np.ndarray]:
    """The masks of a sample's objects as stored, bool [H, W] each. kind: `gt`, or `vp_mask_original`, those of the other view.

    The evaluation runs do not record them, but are about the same pictures and objects.
    """
    recorded = load_case(case.name.replace("objectrelator_eval", "egoexo"))
    assert [s["ids"] for s in recorded.told["samples"]] == [s["ids"] for s in case.told["samples"]]
    return [recorded.bits(f"s{sample}.{kind}.{i}").numpy() for i in case.told["samples"][sample]["ids"]]


def truth_of(case: Case, sample: int) -> np.ndarray:
    """The true masks of a sample, bool [K, H, W]."""
    return np.stack(masks_of(case, sample, "gt"))


def location_slack(size_hw: tuple[int, ...]) -> float:
    """A box's middle moved by one pixel, over the picture's diagonal."""
    return 1 / math.hypot(*size_hw)


def sample_score(case: Case, sample: int, masks: Tensor, scores: Tensor) -> SampleScore:
    """One sample as ObjectRelator scores it. masks: bool [Q, H, W]; scores: [Q, K]."""
    truth = truth_of(case, sample)
    proposals = Proposals(np.ascontiguousarray(scores.T), lambda queries: masks.numpy()[list(queries)])
    names = [str(i) for i in case.told["samples"][sample]["ids"]]
    return score_sample(names, proposals, evaluated_truth(truth, sizes()["image_size"]), truth)


def object_metrics(case: Case, sample: int, found: Found) -> list[dict]:
    """What is recorded of each object of a sample, from its masks, scores and fused map."""
    prefix = f"s{sample}."
    masks, ids = found[f"{prefix}out.masks_packed"], case.told["samples"][sample]["ids"]
    truth = truth_of(case, sample)
    scored = {o.name: o for o in sample_score(case, sample, masks, found[f"{prefix}out.scores"]).objects}
    metrics = []
    for true, object_id, query in zip(truth, ids, found[f"json:samples.{sample}.picked_query"], strict=True):
        shown, picked = (found[f"{prefix}out.fused"] == object_id).numpy(), masks[query].numpy()
        measured = scored[str(object_id)]
        metrics.append(
            {
                "id": object_id,
                "iou": near(jaccard(true, shown), few(true.size) / (true | shown).sum()),
                "shape_acc": near(measured.shape, SHAPE_SLACK),
                "existence": measured.existence,
                "location": near(measured.location, location_slack(true.shape)),
                "iou_unfused": near(jaccard(true, picked), few(true.size) / (true | picked).sum()),
            }
        )
    return metrics


def printed_totals(case: Case, found: Found) -> dict:
    """What the evaluation prints at its end, from the masks and scores of all its samples."""
    count = len(case.told["samples"])
    scores = [sample_score(case, n, found[f"s{n}.out.masks_packed"], found[f"s{n}.out.scores"]) for n in range(count)]
    total = totals({"take_0001": scores})
    slack = sum(few(truth_of(case, n).size) for n in range(count)) / sum(score.union for score in scores)
    return {
        "TOTAL IOU": near(total.iou, slack),
        "TOTAL LOCATION SCORE": near(total.location, max(location_slack(truth_of(case, n).shape[1:]) for n in range(count))),
        "TOTAL SHAPE ACC": near(total.shape, SHAPE_SLACK),
        "TOTAL EXISTENCE ACC": total.existence,
        "total frames": float(total.samples),
    }


def near(value: float, margin: float) -> Near:
    """A metric, and how far off a few pixels can take it."""
    return Near(float(value), float(margin), 10 * float(margin))


# -- the network ------------------------------------------------------------------------------------------------------


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

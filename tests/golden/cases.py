"""What our code finds for every recorded name of a case, from the case's inputs on; and the case of one image and one condition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from inputs import condition_of, fragile_names, padded_images, prompt_tensors, region_inputs, region_masks, text_of
from pairs import view_case
from psalm_stream.psalm.prompt import tokenize
from psalm_stream.psalm.segmenter import Segmenter
from psalm_stream.stream.types import Categories, Regions, Sentence
from results import category_results, referring_results, region_results
from traces import Question, trace
from training import train_case
from unit_cases import postprocess_case, preprocess_case
from video import video_case
from walk import Case, Found


def find(case: Case, model: Callable[[str], Segmenter]) -> tuple[Found, list[str]]:
    """Everything of a case, and the name patterns that lie behind a fragile layer. model: a fixture of conftest.py by name."""
    match case.told["task"].partition(" ")[0].partition("_")[0]:
        case "preprocess":
            return preprocess_case(case), []
        case "postprocess":
            return postprocess_case(case), []
        case "panoptic" | "semantic" | "instance" | "referring" | "region":
            return image_case(case, model("rounded_segmenter" if "rope_cos_first64" in case.tensors else "segmenter"))
        case "video":
            return video_case(case, model("segmenter"))
        case "egoexo" | "objectrelator":
            return view_case(case, model("segmenter"))
        case "train":
            return train_case(case, model("trainable_segmenter"))
        case task:
            raise AssertionError(f"{case.name}: task {task!r} is not known to the walk")


def image_case(case: Case, segmenter: Segmenter) -> tuple[Found, list[str]]:
    """Categories, sentences or regions of one picture."""
    regions = region_masks(case, "in.region_masks.0") if case.told["task"] == "region" else None
    condition = condition_of(case.told, 0 if regions is None else len(regions))
    prompt = tokenize(condition, segmenter.tokenizer)
    found = prompt_tensors([prompt]) | region_inputs(case, [regions] if regions is not None else [])
    found["json:prompt"] = text_of(condition)
    images, geometries, pictures = padded_images(case)
    question = Question(images[0], prompt, masks=regions, points=found.get("rng.region_points.0"))
    traced = trace(segmenter.network, [question])
    found |= pictures | traced.found
    final, where = traced.answer.predictions[-1].mask_logits[0], geometries[0]
    match condition:
        case Categories():
            found |= category_results(case, traced.logits[-1]["categories"][0].T, final, where)
        case Sentence():
            found |= referring_results(case, traced.logits[-1]["sentence"][0].T, final, where)
        case Regions():
            found |= region_results(case, traced.logits[-1]["regions"][0], final, where)
    if "rope_cos_first64" in case.tensors:
        found |= rope_tables(segmenter, len(case.tensors["rope_cos_first64"]))
    return found, fragile_names("", case.told, traced)


def rope_tables(segmenter: Segmenter, rows: int) -> Found:
    """Cosines and sines of the first positions."""
    cos, sin = segmenter.network.phi.rotary_emb(torch.zeros(1), torch.arange(rows)[None])
    return {"rope_cos_first64": cos[0], "rope_sin_first64": sin[0]}

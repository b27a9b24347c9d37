"""One run of the network with everything it computes on the way, under the recorded names.

Answers are the model's own return values; what it does not return is read by forward hooks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from psalm_stream.psalm.model import Answer, ImageFeatures, Psalm, Sample
from psalm_stream.psalm.pixel_decoder import LEVELS
from psalm_stream.psalm.prompt import TokenizedPrompt
from psalm_stream.psalm.regions import pool_points
from torch import Tensor
from torch.nn import functional as F
from walk import FLOAT, FRAGILE, Found, Near, Rows

KINDS = {"categories": "class_logits", "sentence": "SEG_logits", "regions": "region_logits"}
HOOKED = ("seg_query_projector", "class_name_projector", "SEG_token_projector", "region_projector", "pixel_decoder")


@dataclass(frozen=True)
class Question:
    """What one sample is asked. image: padded uint8 [S, S, 3]; vp_image: where the regions lie, None for the image itself.

    masks: bool [K, S, S]; points: [K, P, 2], where each region is pooled; order: of the classes in the prompt, see `in.random_idx`.
    """

    image: Tensor
    prompt: TokenizedPrompt
    vp_image: Tensor | None = None
    masks: Tensor | None = None
    points: Tensor | None = None
    order: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """found: by recorded name, for samples of one kind; logits: per level, by kind, a tensor per sample."""

    found: Found
    answer: Answer
    logits: list[dict[str, list[Tensor]]]


def trace(network: Psalm, questions: list[Question]) -> Trace:
    """Answer a batch of questions and name everything."""
    with hooks(network) as calls:
        features = network.encode(_stacked(q.image for q in questions))
        behind = features
        if questions[0].vp_image is not None:
            behind = network.encode(_stacked(q.vp_image for q in questions))
        regions = [_regions(network, f, q) for f, q in zip(behind, questions, strict=True)]
        answer = network([Sample(f, q.prompt, r) for f, q, r in zip(features, questions, regions, strict=True)])
    lengths = tuple(len(network.assemble(Sample(f, q.prompt, r)).embeds) for f, q, r in zip(features, questions, regions, strict=True))
    found: Found = {f"mid.swin0.res{i + 2}": torch.cat([f.maps[i] for f in features]) for i in range(4)}
    for i, encoded in enumerate((features,) if behind is features else (features, behind)):
        found[f"mid.projector{i}"] = torch.stack([f.tokens for f in encoded])
        found[f"mid.projector_conv{i}"] = calls["projector.layer1"][i][1]
    found |= _language(network, calls, lengths) | _read_out(calls, regions)
    maps, found["mid.mask_features"] = calls["pixel_decoder"][0][1]
    found |= {f"mid.multi_scale{i}": m for i, m in enumerate(maps)}
    logits = [_logits(network, answer, level, questions) for level in range(len(answer.predictions))]
    for level, prediction in enumerate(answer.predictions):
        found |= {f"dec.l{level}.query": prediction.query, f"dec.l{level}.mask_logits": prediction.mask_logits}
        for kind, per_sample in logits[level].items():
            found |= _named_logits(f"dec.l{level}.{KINDS[kind]}", kind, per_sample)
    found["json:attn_mask_margin"] = margins(answer, maps)
    return Trace(found, answer, logits)


def margins(answer: Answer, maps: list[Tensor]) -> list[Near]:
    """The smallest |mask logit| that each layer's attention mask is thresholded at; recorded to three digits."""
    found = []
    for i, prediction in enumerate(answer.predictions[:-1]):
        size_hw = maps[i % LEVELS].shape[-2:]
        logits = F.interpolate(prediction.mask_logits.detach(), size=size_hw, mode="bilinear", align_corners=False).abs()
        least = logits.min().item()
        found.append(Near(least, 0.005 * least + FLOAT * logits.max().item(), FRAGILE * logits.max().item()))
    return found


@contextmanager
def hooks(network: Psalm) -> Iterator[dict[str, list[tuple[object, object]]]]:
    """Collect (input, output) of every call, by module name; the language model's input is its keyword arguments."""
    calls: dict[str, list[tuple[object, object]]] = defaultdict(list)
    layers = [f"phi.layers.{i}" for i in range(len(network.phi.layers))]
    handles = []
    for name in (*HOOKED, *layers, "projector.layer1", "phi.final_layernorm", "phi"):

        def keep(_: object, args: tuple, kwargs: dict, output: object, name: str = name) -> None:
            calls[name].append((args[0] if args else kwargs, output))

        handles.append(network.get_submodule(name).register_forward_hook(keep, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _language(network: Psalm, calls: dict, lengths: tuple[int, ...]) -> Found:
    asked = calls["phi"][0][0]
    found: Found = {
        "mid.inputs_embeds": Rows(asked["inputs_embeds"], lengths),
        "mid.llm_attention_mask": Rows(asked["attention_mask"], lengths),
        "mid.llm_last_hidden": Rows(calls["phi.final_layernorm"][0][1], lengths),
    }
    for i in range(len(network.phi.layers)):
        output = calls[f"phi.layers.{i}"][0][1]
        found[f"mid.llm_layer{i}"] = Rows(output[0] if isinstance(output, tuple) else output, lengths)
    return found


def _read_out(calls: dict, regions: list[Tensor | None]) -> Found:
    """Projector inputs and outputs: recorded for the batch at once, but for regions sample by sample."""
    found: Found = {}
    for end, name in enumerate(("in", "out")):
        found[f"mid.seg_query_projector_{name}.0"] = calls["seg_query_projector"][0][end]
        for projector in ("class_name_projector", "SEG_token_projector"):
            if calls[projector]:
                found[f"mid.{projector}_{name}.0"] = torch.stack([call[end] for call in calls[projector]])
        found |= {f"mid.region_projector_{name}.{b}": call[end] for b, call in enumerate(calls["region_projector"])}
    return found | {f"mid.region_features.{b}": r[:, None] for b, r in enumerate(regions) if r is not None}


def _logits(network: Psalm, answer: Answer, level: int, questions: list[Question]) -> dict[str, list[Tensor]]:
    """Logits [T, Q] of each sample by kind, classes in their canonical order."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for sample, (question, kinds) in enumerate(zip(questions, answer.conditions, strict=True)):
        for kind in kinds:
            logits = network.logits(answer, level, sample, kind)
            found[kind].append(logits if question.order is None or kind != "categories" else logits[question.order])
    return found


def _named_logits(name: str, kind: str, per_sample: list[Tensor]) -> Found:
    if kind == "regions":
        return {f"{name}.{b}": logits for b, logits in enumerate(per_sample)}
    return {name: torch.stack([logits.T for logits in per_sample])}


def _regions(network: Psalm, features: ImageFeatures, question: Question) -> Tensor | None:
    if question.masks is None:
        return None
    return network.region_tokens(features, question.masks, lambda feature_map, _: pool_points(feature_map, question.points))


def _stacked(images: Iterator[Tensor]) -> Tensor:
    return torch.stack([image.permute(2, 0, 1) for image in images])

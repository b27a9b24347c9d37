"""From what a case was asked to what the network reads: pictures in their squares, prompts as ids, regions and where they are pooled.

Also here: which names lie behind a fragile layer (spec section 22).
"""

from __future__ import annotations

import numpy as np
import torch
from psalm_stream.psalm import preprocess
from psalm_stream.psalm.prompt import CLS, REFER, TokenizedPrompt, category_prompt, referring_prompt, region_prompt
from psalm_stream.psalm.regions import points_from_indices
from psalm_stream.psalm.visual_prompts import POINT_RADIUS_PX, SCRIBBLE_RADIUS_PX, grow
from psalm_stream.stream.types import Categories, Condition, Regions, Sentence
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from traces import Trace
from walk import FRAGILE_MARGIN, Case, Found, pixels, sizes

RADII = {"point": POINT_RADIUS_PX, "scribble": SCRIBBLE_RADIUS_PX}


def condition_of(told: dict, regions: int = 0) -> Condition:
    """The condition a JSON entry tells of; regions are counted only."""
    if "class_names" in told:
        return Categories(tuple(told["class_names"][:-1]))
    sentences = tuple(told.get("sentences", ()))
    return Regions((None,) * regions, sentences) if regions else Sentence(sentences)


def text_of(condition: Condition) -> str:
    """The prompt text of a condition."""
    match condition:
        case Categories(names):
            return category_prompt(len(names) + 1)
        case Sentence():
            return referring_prompt()
        case Regions(regions, sentences):
            return region_prompt(len(regions), instructed=bool(sentences))


def prompt_tensors(prompts: list[TokenizedPrompt]) -> Found:
    """What the collator makes of tokenised prompts."""
    special = sizes()["special"]
    ids = padded_rows([p.ids for p in prompts], special["pad_token_id"])
    found: Found = {
        "in.input_ids": ids,
        "in.attention_mask": (ids != special["pad_token_id"]).to(torch.uint8),
        "in.class_name_embedding_indices": (ids == CLS).long(),
        "in.refer_embedding_indices": (ids == REFER).long(),
        "in.class_name_ids": padded_rows([[i for ids in p.classes for i in ids] for p in prompts], -1),
        "in.cls_indices": padded_rows([[n for n, ids in enumerate(p.classes) for _ in ids] for p in prompts], -1),
    }
    return found | {f"in.token_refer_id.{b}": torch.tensor(p.refer) for b, p in enumerate(prompts)}


def padded_rows(rows: list[list[int]], fill: int) -> Tensor:
    """Lists of ids as one matrix, int64."""
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=fill)


def region_masks(case: Case, name: str) -> Tensor:
    """Padded region masks: from the prompts as drawn, or as recorded where those are not."""
    if "in.prompt_masks_original" not in case.tensors:
        return case.bits(name)
    radius = RADII.get(case.told["region_type"])
    drawn = case.bits("in.prompt_masks_original").numpy()
    return stacked_masks([grow(mask, radius) if radius else mask for mask in drawn])


def stacked_masks(masks: list[np.ndarray]) -> Tensor:
    """Masks of any size, padded: bool [K, S, S]."""
    return torch.stack([torch.from_numpy(preprocess.pad_mask(mask, sizes()["image_size"])) for mask in masks])


def region_inputs(case: Case, per_sample: list[Tensor], prefix: str = "", masks_name: str = "in.region_masks.{}") -> Found:
    """Region masks and the points that the recorded draws choose in the recorded masks."""
    found: Found = {}
    draws = list(case.tensors[f"{prefix}rng.region_point_index"].split([len(m) for m in per_sample])) if per_sample else []
    for b, (masks, rows) in enumerate(zip(per_sample, draws, strict=True)):
        name = prefix + masks_name.format(b)
        found[name] = masks
        found[f"{prefix}rng.region_points.{b}"] = points_from_indices(case.bits(name), rows)
    return found


def padded_images(case: Case) -> tuple[list[Tensor], list[preprocess.Geometry], Found]:
    """The pictures of a case in their squares, where they lie there, and both as results."""
    side, sources = sizes()["image_size"], [pixels(name) for name in case.told["images"]]
    padded = [preprocess.pad_image(source, side) for source in sources]
    geometries = [preprocess.geometry(source.shape[:2], side) for source in sources]
    found = picture(case, "in.image_padded_u8", padded) | {"json:valid_hw": [g.valid_hw for g in geometries]}
    return [torch.from_numpy(p) for p in padded], geometries, found


def picture(case: Case, name: str, ours: list[np.ndarray]) -> Found:
    """Our padded pictures beside the recorded ones, where there are any."""
    recorded = [pixels(file) for file in case.told["padded_images"].get(name, ())]
    return {f"picture:{name}": (np.stack(ours), np.stack(recorded))} if recorded else {}


def is_fragile(told: dict, margins: list[float]) -> bool:
    """Whether a JSON entry, or how near its logits come to an attention mask's threshold, says that later layers may move."""
    return bool(told.get("fragile")) or min(margins, default=FRAGILE_MARGIN) < FRAGILE_MARGIN


def fragile_names(prefix: str, told: dict, traced: Trace) -> list[str]:
    """Patterns of everything behind the first attention mask that some |logit| is too near to; [] when none is."""
    margin = told.get("attn_mask_margin") or [near.value for near in traced.found["json:attn_mask_margin"]]
    if not is_fragile(told, margin):
        return []
    layer = next(i for i, m in enumerate(margin) if m < FRAGILE_MARGIN or m == min(margin))
    later = [f"{prefix}dec.l{level}.*" for level in range(layer + 1, len(margin) + 1)]
    return [*later, f"{prefix}dec.final.*", f"{prefix}out.*", *([] if prefix else ["json:*"])]


def fragile_json(name: str, told: dict, traced: Trace) -> list[str]:
    """The same for the figures of one JSON entry."""
    return [f"json:{name}.*"] if fragile_names("", told, traced) else []

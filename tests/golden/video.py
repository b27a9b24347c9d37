"""The official DAVIS loop with our tracker and our model in it: plan, segment, settle over every item, decisions compared exactly."""

from __future__ import annotations

from itertools import combinations, groupby

import numpy as np
import torch
from inputs import fragile_json, fragile_names
from pairs import pair_of_images
from psalm_stream.psalm import preprocess
from psalm_stream.psalm.official_policy import pick_distinct
from psalm_stream.psalm.overlap import pair_iou
from psalm_stream.psalm.regions import points_from_indices
from psalm_stream.psalm.segmenter import Segmenter
from psalm_stream.psalm.tracker import Rules, plan, prompted, settle
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, Mask, MaskFrame, ObjectPrompt, Prompt, Proposals, Request, TrackState
from torch import Tensor
from walk import GOLDEN, Case, Found, Near, few, sizes


def video_case(case: Case, segmenter: Segmenter) -> tuple[Found, list[str]]:
    """Every item of every video, in order; what is remembered is what we answered."""
    found: Found = {}
    loose: list[str] = []
    fragile: set[FrameKey] = set()
    replaying = Replaying(case, segmenter)
    for video, group in groupby(case.told["frames"], lambda item: item["video"]):
        items = list(group)
        label = case.tensors[f"video.{video}.first_frame_label"].numpy()
        first = frame_of(video, 0, items[0]["first_frame_image"], label.shape)
        rules = Rules("official", oracle={n: tuple(item["gt_ids_in_frame"]) for n, item in enumerate(items, start=1)})
        state = first_prompt(TrackState(video), first, label, rules, segmenter)
        for n, item in enumerate(items, start=1):
            frame = frame_of(video, n, item["image"], (item["height"], item["width"]))
            request = plan(state, frame, rules)
            values, item_loose = walked_request(case, segmenter, item, request)
            proposals = replaying.answer(item["index"], request)
            state, answer = settle(state, frame, request, proposals, rules, segmenter.digest)
            found |= values | decisions(item, request, proposals, answer)
            fragile |= {frame.key} if item_loose else set()
            loose += item_loose + ([f"f{item['index']}.in.vp_region_masks"] if request.condition.regions[0].frame.key in fragile else [])
    return found, loose


def first_prompt(state: TrackState, first: Frame, label: np.ndarray, rules: Rules, segmenter: Segmenter) -> TrackState:
    """The session once the objects of the first frame were named by their masks."""
    objects = tuple(ObjectPrompt(int(i), Mask(encode(label == i))) for i in np.unique(label) if i)
    state = prompted(state, Prompt(first.key, "first", objects))
    request = plan(state, first, rules)
    return settle(state, first, request, segmenter.segment([request])[0], rules, segmenter.digest)[0]


def frame_of(video: str, index: int, name: str, size_hw: tuple[int, int]) -> Frame:
    """A picture of the golden folder as it travels."""
    return Frame(FrameKey(video, "main", index), index, False, tuple(size_hw), (GOLDEN / name).read_bytes())


class Replaying(Segmenter):
    """The service's own answers, with regions pooled at recorded points; what it remembers, it remembers over the whole loop."""

    def __init__(self, case: Case, segmenter: Segmenter) -> None:
        super().__init__(segmenter.network, segmenter.tokenizer, segmenter.digest, lambda masks, seed: self.points.pop(0)[None])
        self.case, self.points = case, []

    def answer(self, index: int, request: Request) -> Proposals:
        """The answer to one item."""
        recorded = self.case.bits(f"f{index}.in.vp_region_masks")
        self.points = list(points_from_indices(recorded, self.case.tensors[f"f{index}.rng.region_point_index"]))
        return self.segment([request])[0]


def walked_request(case: Case, segmenter: Segmenter, item: dict, request: Request) -> tuple[Found, list[str]]:
    """Every intermediate of one request."""
    prefix, regions = f"f{item['index']}.", request.condition.regions
    side = sizes()["image_size"]
    masks = torch.stack([torch.from_numpy(preprocess.pad_mask(r.mask, side)) for r in regions])
    traced, found = pair_of_images(case, segmenter, prefix, item, (request.frame.pixels(), regions[0].frame.pixels(), masks))
    name = f"frames.{item['index']}"
    found[f"json:{name}.valid_hw"] = preprocess.geometry(request.frame.size_hw, side).valid_hw
    found[f"json:{name}.attn_mask_margin"] = traced.found["json:attn_mask_margin"]
    return found, fragile_names(prefix, item, traced) + fragile_json(name, item, traced)


def decisions(item: dict, request: Request, proposals: Proposals, answer: MaskFrame) -> Found:
    """What the loop decided on one item, and what it painted."""
    queries = proposals.scores.shape[1]
    masks = torch.from_numpy(proposals.masks(range(queries)))
    picks = pick_distinct(proposals.scores)
    overlap = pair_iou(masks[picks].numpy(), masks[picks].numpy())
    prefix, name = f"f{item['index']}.", f"json:frames.{item['index']}"
    return {
        f"{prefix}out.scores": torch.from_numpy(proposals.scores.T),
        f"{prefix}out.masks_packed": masks,
        f"{prefix}out.fused": painted(answer),
        f"{name}.vp_source": "first_frame" if {r.frame.key.index for r in request.condition.regions} == {0} else "memory",
        f"{name}.fill_numbers": [r.object_id for r in request.condition.regions],
        f"{name}.picked_query": picks,
        f"{name}.picked_score": [float(proposals.scores[k, q]) for k, q in enumerate(picks)],
        f"{name}.pair_iou": {
            f"{a},{b}": near_iou(masks[picks[a]], masks[picks[b]], overlap[a, b]) for a, b in combinations(range(len(picks)), 2)
        },
        f"{name}.memory_updated": answer.status == FrameStatus.OK,
        f"{name}.n_queries": queries,
    }


def near_iou(one: Tensor, other: Tensor, iou: float) -> Near:
    """An IoU that may move by as much as a few pixels make; NaN, as recorded, when both masks are empty."""
    union = int((one | other).sum())
    if not union:
        return Near(float("nan"), 0.0, 0.0)
    return Near(float(iou), few(one.numel()) / union, few(one.numel(), loose=True) / union)


def painted(answer: MaskFrame) -> Tensor:
    """The id map of an answer, uint8 [H, W]."""
    ids = np.zeros(answer.size_hw, np.uint8)
    for found in answer.objects:
        if found.rle is not None:
            ids[decode(found.rle)] = found.object_id
    return torch.from_numpy(ids)

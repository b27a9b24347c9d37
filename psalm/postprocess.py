"""From mask proposals and logits to answers: semantic, instance, panoptic, referring and region results at the source's size.

The sigmoid of a mask logit is a pixel's probability; masks are logits > 0. The way into the padded square is in preprocess.py; which
proposal becomes which tracked object is decided in tracker.py. Source of every rule: PSALM's post-processing, itself Mask2Former's.
Notation: Q queries, s x s mask logits, S padded side, H x W source pixels, C categories, T condition tokens. Wherever `geometry` is
None, mask logits already have source size. Queries are upsampled `CHUNK` at a time: full-size float maps of 100 of them at 1080p are
830 MB, of one 8 MB. One at a time is as fast on a CPU, whose cache it fits, as any other number, and leaves no holes in the heap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .preprocess import Geometry

CHUNK = 1
SUMMED = 8  # queries added to all categories at once: one by one, 133 categories at 1024 x 1024 take 30 times as long
PANOPTIC_SCORE = 0.8
PANOPTIC_OVERLAP = 0.8
GENERALIZED_SCORE = 0.6


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """n (query, category) pairs, unsorted. scores: float32 [n]; labels, queries: int64 [n]; masks: bool [n, H, W]."""

    scores: Tensor
    labels: Tensor
    queries: Tensor
    masks: Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map: its id there (from 1), its category and whether that is countable (a thing).

    score: probability of the category, of the first query where several became one.
    """

    id: int
    label: int
    is_thing: bool
    score: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class PanopticResult:
    """A partition of the picture. ids: int32 [H, W], 0 is void; segments: what the other ids are."""

    ids: Tensor
    segments: tuple[Segment, ...]


def upsample_masks(mask_logits: Tensor, geometry: Geometry | None) -> Tensor:
    """Bring mask logits [Q, s, s] to source size, float32 [Q, H, W]: bilinear to S x S, padding cut off, bilinear to (H, W)."""
    if geometry is None:
        return mask_logits.float()
    return _crop_and_resize(_to_padded(mask_logits, geometry), geometry)


def binary_masks(mask_logits: Tensor, geometry: Geometry | None, queries: Sequence[int] | Tensor) -> Tensor:
    """The masks of some queries at source size: bool [n, H, W]."""
    chosen = mask_logits[torch.as_tensor(queries, dtype=torch.int64, device=mask_logits.device)]
    return torch.cat([chunk > 0 for chunk in _chunks(chosen, geometry)])


def mask_scores(mask_logits: Tensor, geometry: Geometry | None) -> Tensor:
    """How certain each mask is of its own pixels: the mean probability inside it at source size, 0 when empty. float32 [Q]."""
    return torch.cat([_mask_score(chunk) for chunk in _chunks(mask_logits, geometry)])


def region_scores(region_logits: Tensor, mask_logits: Tensor, geometry: Geometry | None) -> Tensor:
    """Score of every query for every region, float32 [T, Q], from region logits [T, Q]. Masks are shared by all regions."""
    return region_logits.float().sigmoid() * mask_scores(mask_logits, geometry)


def referring_scores(refer_logits: Tensor, mask_logits: Tensor, geometry: Geometry | None) -> Tensor:
    """Score of every query for the one expression asked about, float32 [Q] in query order, from referring logits [Q, 1]."""
    return refer_logits[:, 0].float().sigmoid() * mask_scores(mask_logits, geometry)


def generalized_referring(
    scores: Tensor, mask_logits: Tensor, geometry: Geometry | None, fallback: Literal["empty", "official"] = "empty"
) -> Tensor:
    """The answer to an expression that may mean several objects or none: the union of all masks scoring above 0.6, bool [H, W].

    scores: [Q] as from `referring_scores`. When none is above: an empty mask, or with fallback 'official' the best one all the same,
    which is what PSALM's gRefCOCO evaluation does and why it can hardly answer "none".
    """
    queries = (scores > GENERALIZED_SCORE).nonzero()[:, 0]
    if len(queries) == 0 and fallback == "official":
        queries = scores.argmax()[None]
    if len(queries) == 0:
        return torch.zeros_like(upsample_masks(mask_logits[:1], geometry)[0], dtype=torch.bool)
    return binary_masks(mask_logits, geometry, queries).any(0)


def semantic(class_logits: Tensor, mask_logits: Tensor, geometry: Geometry | None, at: Literal["padded", "source"] = "padded") -> Tensor:
    """Weight of every category at every pixel, float32 [C, H, W]; the prediction is its argmax. Background cannot win.

    class_logits: [Q, C+1], background last. at: where queries are summed. 'padded': at S x S, the sums then cut and resized, the
    semantic task's way; 'source': at source size, the panoptic task's way.
    """
    weights = class_logits.float().softmax(-1)[:, :-1]
    padded = at == "padded" and geometry is not None
    total = None
    for weight, logits in zip(weights.split(SUMMED), mask_logits.split(SUMMED), strict=True):
        maps = torch.cat([m.sigmoid() for m in (_valid_parts(logits, geometry) if padded else _chunks(logits, geometry))])
        if total is None:
            total = maps.new_zeros(weights.shape[1], *maps.shape[1:])
        total.flatten(1).addmm_(weight.T, maps.flatten(1))
    return _resize(total, geometry.size_hw) if padded else total


def instance(class_logits: Tensor, mask_logits: Tensor, geometry: Geometry | None, things: Sequence[bool] | None = None) -> InstanceResult:
    """The Q most probable (query, category) pairs, scored by class probability times mask score; a query may appear several times.

    class_logits: [Q, C+1], background last. things: whether each category is countable; pairs of the others are dropped from the Q,
    not replaced (the panoptic task's way); None keeps all.
    """
    count, categories = len(class_logits), class_logits.shape[1] - 1
    probability, pair = class_logits.float().softmax(-1)[:, :-1].flatten().topk(min(count, count * categories), sorted=False)
    if things is not None:
        kept = torch.tensor(things, dtype=torch.bool, device=pair.device)[pair % categories]
        probability, pair = probability[kept], pair[kept]
    queries, scores, masks = pair // categories, [], []
    for chunk in _chunks(mask_logits, geometry):
        scores.append(_mask_score(chunk))
        masks.append(chunk > 0)
    return InstanceResult(probability * torch.cat(scores)[queries], pair % categories, queries, torch.cat(masks)[queries])


def panoptic(class_logits: Tensor, mask_logits: Tensor, geometry: Geometry | None, things: Sequence[bool]) -> PanopticResult:
    """Give each pixel to at most one segment.

    class_logits: [Q, C+1], background last; things: whether each category is countable. Queries surer than 0.8 of a category compete
    for pixels by score times probability. One that keeps less than 0.8 of its mask is dropped, its pixels stay void. Segments of the
    same uncountable category are one.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    kept = (labels < class_logits.shape[1] - 1) & (scores > PANOPTIC_SCORE)
    owner, masks = _compete(scores[kept], mask_logits[kept], geometry)
    ids = torch.zeros_like(owner, dtype=torch.int32)
    segments: list[Segment] = []
    stuff: dict[int, int] = {}
    for row, (label, score) in enumerate(zip(labels[kept].tolist(), scores[kept].tolist(), strict=True)):
        owned = owner == row
        visible = owned & masks[row]
        area, original, shown = (int(x.sum()) for x in (owned, masks[row], visible))
        if min(area, original, shown) == 0 or area / original < PANOPTIC_OVERLAP:
            continue
        known = stuff.get(label)
        if known is None:
            known = len(segments) + 1
            segments.append(Segment(known, label, bool(things[label]), score))
            if not things[label]:
                stuff[label] = known
        ids[visible] = known
    return PanopticResult(ids, tuple(segments))


def official_ground_truth(masks: Tensor, geometry: Geometry) -> Tensor:
    """The truth PSALM's region evaluation compares with: padded masks brought back bilinearly as uint8, so not the original ones.

    masks: bool [K, S, S]; returns bool [K, H, W]. Only for official numbers, and on the CPU: the CUDA operator rounds differently.
    """
    return _crop_and_resize(masks.cpu().to(torch.uint8), geometry).bool()


def _chunks(mask_logits: Tensor, geometry: Geometry | None) -> Iterator[Tensor]:
    """Mask logits at source size, float32 [<= CHUNK, H, W] at a time; one empty chunk when there are no queries."""
    return (upsample_masks(part, geometry) for part in mask_logits.split(CHUNK))


def _valid_parts(mask_logits: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """Mask logits at S x S without the padding, float32 [<= CHUNK, h, w] at a time."""
    height, width = geometry.valid_hw
    return (_to_padded(part, geometry)[:, :height, :width] for part in mask_logits.split(CHUNK))


def _to_padded(mask_logits: Tensor, geometry: Geometry) -> Tensor:
    return _resize(mask_logits.float(), (geometry.padded, geometry.padded))


def _crop_and_resize(maps: Tensor, geometry: Geometry) -> Tensor:
    height, width = geometry.valid_hw
    return _resize(maps[:, :height, :width], geometry.size_hw)


def _resize(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if len(maps) == 0:  # the operator refuses an empty batch
        return maps.new_zeros(0, *size_hw)
    return F.interpolate(maps[None], size_hw, mode="bilinear", align_corners=False)[0]


def _mask_score(logits: Tensor) -> Tensor:
    inside = logits > 0
    return torch.where(inside, logits.sigmoid(), 0).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)


def _compete(scores: Tensor, mask_logits: Tensor, geometry: Geometry | None) -> tuple[Tensor, Tensor]:
    """The row that owns each pixel by score times probability, int64 [H, W], -1 without rows; and the masks (probability >= 0.5)."""
    best, owner, masks, first = None, None, [], 0
    for part, chunk in zip(scores.split(CHUNK), _chunks(mask_logits, geometry), strict=True):
        probability = chunk.sigmoid()
        masks.append(probability >= 0.5)
        if best is None:
            best = torch.full(chunk.shape[1:], -1.0, device=chunk.device)
            owner = torch.full(chunk.shape[1:], -1, device=chunk.device)
        if len(chunk):
            value, row = (part[:, None, None] * probability).max(0)
            wins = value > best  # strict: of equals, the first query owns the pixel
            best, owner = torch.where(wins, value, best), torch.where(wins, row + first, owner)
        first += len(chunk)
    return owner, torch.cat(masks)

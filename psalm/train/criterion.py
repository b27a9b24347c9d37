"""What PSALM is trained on: mask, Dice and condition losses of every prediction level, after matching queries to targets.

One criterion serves all three tasks; a level's condition logits say which task it is. The assignment is in matcher.py,
data and optimiser are elsewhere. Notation: B samples, Q queries, M target masks of a sample, S padded side, P points,
n target masks in the batch (at least 1).
Source: PSALM's criterion, PointRend sampling as in Mask2Former (https://arxiv.org/abs/2112.01527).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .matcher import Draw, mask_cost, match, sample_points


@dataclass(frozen=True, slots=True)
class CriterionConfig:
    """Weights and sample sizes; the defaults are PSALM's. class_weight also weighs the referring and the region loss."""

    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1

    def weights(self) -> dict[str, float]:
        """The weight of each loss term, by the term's name."""
        condition = dict.fromkeys(("class", "refer", "region"), self.class_weight)
        return {"mask": self.mask_weight, "dice": self.dice_weight, **condition}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one decoder level predicts: masks, and the logits of whichever condition was asked.

    mask_logits: [B, Q, h, w]; class_logits: [B, Q, C+1], background last; refer_logits: [B, Q, 1]; region_logits: a [T, Q] per
    sample, row j belonging to target mask j; rows beyond the masks are regions that are not in this picture.
    """

    mask_logits: Tensor
    class_logits: Tensor | None = None
    refer_logits: Tensor | None = None
    region_logits: Sequence[Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The truth of one sample. masks: bool or float [M, S, S], M may be 0; classes: int64 [M], needed with class logits only."""

    masks: Tensor
    classes: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars to train on and to log. Lists have one entry a level, in the order of the predictions.

    total: weighted sum of everything; parts: weighted and summed over levels, by term; terms: unweighted, by term and level;
    matches: by level and sample, int64 [2, m] of (query, mask) pairs. Terms: mask, dice, and of class, refer, region what was asked.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    terms: Mapping[str, list[Tensor]]
    matches: list[list[Tensor]]


def losses(
    predictions: Sequence[Prediction],
    targets: Sequence[Target],
    config: CriterionConfig,
    draw: Draw,
    assignment: Sequence[Tensor] | None = None,
) -> Losses:
    """All losses of a batch, differentiable in the predictions.

    predictions: one a level, in decoder order, the final one last. draw(shape) gives uniform float32 in [0, 1), see `matcher.uniform`;
    it is called for the final level first, then for the others from the first on: per level (1, P, 2) a sample for the matching, then
    (N, 3P, 2) candidates and (N, P/4, 2) extra points for the N matched masks of the batch.
    assignment: int64 [2, m] of (query, mask) pairs per sample replaces the matching at every level, for queries that belong to known masks.
    Raises ValueError when a prediction is not finite.
    """
    last = len(predictions) - 1
    targets = [Target(target.masks.float(), target.classes) for target in targets]
    found: dict[int, tuple[dict[str, Tensor], list[Tensor]]] = {}
    with torch.autocast(predictions[last].mask_logits.device.type, enabled=False):
        for level in (last, *range(last)):
            prediction = predictions[level]
            pairs = assignment if assignment is not None else match_batch(prediction, targets, config, draw)
            found[level] = level_losses(prediction, targets, pairs, config, draw), list(pairs)
    weights = config.weights()
    terms = {name: [found[level][0][name] for level in range(last + 1)] for name in found[last][0]}
    parts = {name: weights[name] * torch.stack(values).sum() for name, values in terms.items()}
    return Losses(torch.stack(list(parts.values())).sum(), parts, terms, [found[level][1] for level in range(last + 1)])


@torch.no_grad()
def match_batch(prediction: Prediction, targets: Sequence[Target], config: CriterionConfig, draw: Draw) -> list[Tensor]:
    """Match one level: int64 [2, m] of (query, mask) pairs per sample. Referring and region logits have no say in it."""
    pairs = []
    for sample, target in enumerate(targets):
        points = draw((1, config.num_points, 2))
        entropy, dice = mask_cost(prediction.mask_logits[sample], target.masks, points)
        cost = config.mask_weight * entropy + config.dice_weight * dice
        if prediction.class_logits is not None:
            cost = cost - config.class_weight * prediction.class_logits[sample].float().softmax(-1)[:, target.classes.long()]
        pairs.append(match(cost))
    return pairs


def level_losses(
    prediction: Prediction, targets: Sequence[Target], pairs: Sequence[Tensor], config: CriterionConfig, draw: Draw
) -> dict[str, Tensor]:
    """The unweighted losses of one level under given (query, mask) pairs, by term."""
    count = max(sum(len(target.masks) for target in targets), 1)
    queries = torch.cat([queries for queries, _ in pairs])
    samples = torch.repeat_interleave(torch.tensor([len(q) for q, _ in pairs])).to(queries.device)
    logits = prediction.mask_logits[samples, queries].float()  # one gather: its backward zeroes all masks once, not once a sample
    masks = torch.cat([target.masks[rows] for target, (_, rows) in zip(targets, pairs, strict=True)]).float()
    terms = mask_losses(logits, masks, count, config, draw)
    if prediction.class_logits is not None:
        terms["class"] = class_loss(prediction.class_logits, targets, pairs, config.no_object_weight)
    if prediction.refer_logits is not None:
        terms["refer"] = presence_loss([each[:, 0][None] for each in prediction.refer_logits], [(q, q * 0) for q, _ in pairs], count)
    if prediction.region_logits is not None:
        terms["region"] = presence_loss(prediction.region_logits, pairs, count)
    return terms


def mask_losses(logits: Tensor, masks: Tensor, count: int, config: CriterionConfig, draw: Draw) -> dict[str, Tensor]:
    """Binary cross entropy (mean over points) and Dice of matched masks at the least certain points, each summed over masks / count.

    logits: [N, h, w]; masks: [N, S, S]. Zero, with a zero gradient, when nothing is matched.
    """
    if len(logits) == 0:
        return {"mask": logits.sum(), "dice": logits.sum()}
    points = uncertain_points(logits, config, draw)
    logits, targets = sample_points(logits, points), sample_points(masks, points)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum(1) + 1) / (probability.sum(1) + targets.sum(1) + 1)
    return {"mask": entropy.sum() / count, "dice": dice.sum() / count}


@torch.no_grad()
def uncertain_points(logits: Tensor, config: CriterionConfig, draw: Draw) -> Tensor:
    """Points to train logits [N, h, w] at: of many random ones those nearest the outline, then some anywhere. [N, P, 2].

    Source: PointRend (https://arxiv.org/abs/1912.08193), section 3.1, with |logit| as certainty.
    """
    chosen = int(config.importance_sample_ratio * config.num_points)
    candidates = draw((len(logits), int(config.oversample_ratio * config.num_points), 2)).to(logits.device)
    certainty = sample_points(logits, candidates).abs()
    nearest = certainty.topk(chosen, dim=1, largest=False, sorted=False).indices
    points = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
    anywhere = draw((len(logits), config.num_points - chosen, 2)) if chosen < config.num_points else points[:, :0]
    return torch.cat([points, anywhere.to(points.device)], dim=1)


def class_loss(logits: Tensor, targets: Sequence[Target], pairs: Sequence[Tensor], no_object_weight: float) -> Tensor:
    """Weighted mean cross entropy of all queries, unmatched ones being background, the last class. logits: [B, Q, C+1]."""
    background = logits.shape[-1] - 1
    labels = torch.full(logits.shape[:2], background, device=logits.device)
    for sample, (queries, rows) in enumerate(pairs):
        labels[sample, queries] = targets[sample].classes.long()[rows]
    weight = torch.ones(background + 1, device=logits.device)
    weight[background] = no_object_weight
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), weight)


def presence_loss(logits: Sequence[Tensor], pairs: Sequence[Tensor], count: int) -> Tensor:
    """Mean binary cross entropy over all (token, query) logits, true where a query matches the token's mask.

    logits: [T, Q] per sample; pairs: (query, token) index vectors per sample. A positive weighs (#logits - count) / count.
    """
    truths = [torch.zeros_like(each, dtype=torch.float32) for each in logits]
    for truth, (queries, tokens) in zip(truths, pairs, strict=True):
        truth[tokens, queries] = 1
    flat = torch.cat([each.flatten() for each in logits]).float()
    if flat.numel() == 0:
        return flat.sum()
    weight = torch.tensor((flat.numel() - count) / count, device=flat.device)
    return F.binary_cross_entropy_with_logits(flat, torch.cat([each.flatten() for each in truths]), pos_weight=weight)

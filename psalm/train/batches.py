"""Examples as the network takes them, and its answer as the criterion takes it. Tensors only; no data, no optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...stream.types import Categories, Regions, Sentence
from ..model import Answer, ImageFeatures, Psalm, Sample
from ..prior import Carried, colour_likeness, shrink
from ..prompt import Tokenizer, tokenize
from . import criterion
from .criterion import CriterionConfig, Prediction, Target
from .examples import Example
from .matcher import Draw

PRIOR_WEIGHT = 1.0
SCORE_WEIGHT = 4.0
NEAR_CELLS = 4
KINDS = {"video": "regions", "own": "regions", "sentence": "sentence", "categories": "categories"}


@dataclass(frozen=True, slots=True)
class StepLosses:
    """total: what is differentiated; parts: floats to log."""

    total: Tensor
    parts: dict[str, float]


def forward(network: Psalm, examples: list[Example], tokenizer: Tokenizer) -> Answer:
    """Answer a batch of one task; remembered frames pass the backbone without gradient, they only lend their tokens."""
    asked = network.encode(_images([e.images[0] for e in examples]))
    remembered = [image for example in examples for image in example.images[1:]]
    lent = iter(network.encode(_images(remembered), frozen=True) if remembered else ())
    samples = [
        _sample(network, example, [features, *(next(lent) for _ in example.images[1:])], tokenizer)
        for example, features in zip(examples, asked, strict=True)
    ]
    return network(samples)


def step_losses(network: Psalm, examples: list[Example], answer: Answer, config: CriterionConfig, draw: Draw) -> StepLosses:
    """PSALM's losses on the Q queries, and the same mask losses with a graded score on the prior queries."""
    queries, kind = network.config.mask.num_queries, KINDS[examples[0].task]
    targets = [Target(torch.from_numpy(e.targets[_present(e)]), torch.tensor(e.classes) if e.classes else None) for e in examples]
    levels = []
    for level, prediction in enumerate(answer.predictions):
        logits = [network.logits(answer, level, i, kind)[:, :queries] for i in range(len(examples))]
        levels.append(_prediction(kind, prediction.mask_logits[:, :queries], logits, examples))
    plain = (_each_alone if kind == "categories" else criterion.losses)(levels, targets, config, draw)
    parts = {name: float(value.detach()) for name, value in plain.parts.items()}
    total = plain.total
    if any(e.carried for e in examples):
        mask, dice, score = _prior_losses(network, examples, answer, config, draw)
        total = total + PRIOR_WEIGHT * (config.mask_weight * mask + config.dice_weight * dice) + SCORE_WEIGHT * score
        parts |= {"prior_mask": float(mask.detach()), "prior_dice": float(dice.detach()), "prior_score": float(score.detach())}
    return StepLosses(total, parts)


def _sample(network: Psalm, example: Example, frames: list[ImageFeatures], tokenizer: Tokenizer) -> Sample:
    match KINDS[example.task]:
        case "sentence":
            return Sample(frames[0], tokenize(Sentence((example.sentence,)), tokenizer))
        case "categories":
            return Sample(frames[0], tokenize(Categories(example.names), tokenizer))
    masks = [torch.from_numpy(mask) for _, _, mask in example.tokens]
    known = [frames[image] for image, _, _ in example.tokens]
    tokens = torch.cat([network.region_tokens(features, mask[None]) for features, mask in zip(known, masks, strict=True)])
    prompt = tokenize(Regions(tuple(example.tokens)), tokenizer)
    if not example.carried:
        return Sample(frames[0], prompt, tokens)
    rows = list(example.carried)
    carried = torch.from_numpy(np.stack(list(example.carried.values())))
    likeness = torch.stack([colour_likeness(frames[0].image, known[row].image, masks[row]) for row in rows])
    return Sample(frames[0], prompt, tokens, Carried(rows, carried, likeness))


def _prediction(kind: str, masks: Tensor, logits: list[Tensor], examples: list[Example]) -> Prediction:
    match kind:
        case "sentence":
            return Prediction(masks, refer_logits=torch.stack(logits).transpose(1, 2))
        case "categories":
            return Prediction(masks, class_logits=[each.T for each in logits])
    rows = [_row_of_each_object(e) for e in examples]
    return Prediction(masks, region_logits=[each[torch.tensor(r)] for each, r in zip(logits, rows, strict=True)])


def _row_of_each_object(example: Example) -> list[int]:
    """One token row an object: the mean over an object's tokens would let one of them sleep, so they take turns by mask size."""
    rows: dict[int, list[int]] = {}
    for row, (_, object_row, _) in enumerate(example.tokens):
        rows.setdefault(object_row, []).append(row)
    turn = int(example.targets.sum())
    return [rows[o][turn % len(rows[o])] for o in sorted(rows)]


def _each_alone(levels: list[Prediction], targets: list[Target], config: CriterionConfig, draw: Draw) -> Any:
    """Category questions differ in their number of classes, so each sample has its own criterion; the mean of all."""
    alone = [
        criterion.losses(
            [Prediction(p.mask_logits[i : i + 1], class_logits=p.class_logits[i][None]) for p in levels], [target], config, draw
        )
        for i, target in enumerate(targets)
    ]
    total = torch.stack([a.total for a in alone]).mean()
    parts = {name: torch.stack([a.parts[name] for a in alone]).mean() for name in alone[0].parts}
    return criterion.Losses(total, parts, {}, [])


def _prior_losses(
    network: Psalm, examples: list[Example], answer: Answer, config: CriterionConfig, draw: Draw
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask and Dice loss of every prior query, its own mask and the refined one, and its score against the IoU it reached."""
    queries = network.config.mask.num_queries
    targets = torch.cat([torch.from_numpy(e.targets[[e.tokens[row][1] for row in e.carried]]) for e in examples if e.carried])
    carried = torch.cat([torch.from_numpy(np.stack(list(e.carried.values()))) for e in examples if e.carried])
    own, refined = (
        torch.cat([answer.predictions[level].mask_logits[i, queries : queries + len(e.carried)] for i, e in enumerate(examples)])
        for level in (-2, -1)
    )
    terms = criterion.mask_losses(own, targets.float(), len(own), config, draw)
    truth, brought = shrink(targets), shrink(carried)
    mask, dice = _refinement_losses(refined, truth, brought)
    mask, dice = mask + terms["mask"], dice + terms["dice"]
    with torch.no_grad():
        true, found = truth > 0.5, refined > 0
        reached = ((true & found).sum((1, 2)) + 1e-6) / ((true | found).sum((1, 2)) + 1e-6) * true.any(-1).any(-1)
    scores, wanted, at = [], [], 0
    last = len(answer.predictions) - 1
    for i, example in enumerate(examples):
        rows = list(example.carried)
        logits = network.logits(answer, last, i, "regions")[:, queries:]
        objects = torch.tensor([token[1] for token in example.tokens])
        same = objects[:, None] == objects[rows][None]
        scores.append(logits.flatten())
        wanted.append((same * reached[at : at + len(rows)]).flatten())
        at += len(rows)
    return mask, dice, F.binary_cross_entropy_with_logits(torch.cat(scores), torch.cat(wanted))


def _refinement_losses(logits: Tensor, truth: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and Dice over whole maps [N, h, w], not at uncertain points: a carried mask is wrong with confidence."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    near = F.max_pool2d(torch.maximum(truth, carried)[None], 2 * NEAR_CELLS + 1, stride=1, padding=NEAR_CELLS)[0] > 0
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * truth).sum((1, 2)) + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    each = (entropy * near).sum((1, 2)) / near.sum((1, 2)).clamp(min=1)
    return (each + entropy.mean((1, 2))).mean(), dice.mean()


def _present(example: Example) -> np.ndarray:
    return example.targets.any((1, 2))


def _images(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

"""The training criterion alone, on recorded predictions: what fails here is not the network's doing (test_walk.py has both)."""

from __future__ import annotations

import pytest
import torch
from psalm_stream.psalm.train import criterion
from psalm_stream.psalm.train.criterion import CriterionConfig, Prediction
from psalm_stream.psalm.train.matcher import uniform
from torch import Tensor
from training import OFFICIAL, Replay, loss_figures, targets
from walk import FLOAT, Case, case_names, load_case, sizes, walk

RECORDED = {"class": "class_logits", "refer": "SEG_logits", "region": "region_logits.0"}
TRAINING = [name for name in case_names() if "out.match.0.0" in load_case(name).tensors]
EXACT = torch.float32  # masks recorded in float16 choose other points and matches
WITH_MASKS = [n for n in TRAINING if (m := load_case(n).tensors.get("dec.l0.mask_logits")) is not None and m.dtype == EXACT]
WITH_CONDITION = [(name, term) for name in TRAINING for term, key in RECORDED.items() if f"dec.l0.{key}" in load_case(name).tensors]


def levels(case: Case) -> int:
    return len(case.told["attn_mask_margin"]) + 1


def prediction(case: Case, level: int, mask_logits: Tensor | None = None) -> Prediction:
    def logits(name: str) -> Tensor | None:
        found = case.tensors.get(f"dec.l{level}.{name}")
        return None if found is None else found.float()

    regions = [logits(f"region_logits.{b}") for b in range(len(case.told["images"]))]
    masks = logits("mask_logits") if mask_logits is None else mask_logits
    return Prediction(masks, logits("class_logits"), logits("SEG_logits"), None if regions[0] is None else regions)


@pytest.mark.parametrize("name", WITH_MASKS)
def test_every_match_and_loss_is_the_official_one_when_its_draws_are_replayed(name: str) -> None:
    case = load_case(name)
    draw = Replay(case)
    predictions = [prediction(case, level) for level in range(levels(case))]
    found = loss_figures(case, criterion.losses(predictions, targets(case), CriterionConfig(**sizes()["train"]), draw))
    assert not draw.left
    told = {key.removeprefix("json:"): case.json_results()[key] for key in found if key.startswith("json:")}
    matches = {key: case.tensors[key] for key in found if key.startswith("out.match.")}
    report = walk(Case(name, told, matches), found)
    assert not report.problems, report.problems


@pytest.mark.parametrize(("name", "term"), WITH_CONDITION)
def test_the_condition_loss_is_the_official_one_under_the_recorded_matches(name: str, term: str) -> None:
    case = load_case(name)
    last, losses, recorded = levels(case) - 1, [], []
    for number, level in enumerate((last, *range(last))):
        blank = prediction(case, level, torch.zeros(*case.tensors[f"dec.l{level}.query"].shape[:2], 4, 4))
        pairs = [case.tensors[f"out.match.{number}.{b}"] for b in range(len(case.told["images"]))]
        draw = uniform(torch.Generator().manual_seed(0))
        result = criterion.losses([blank], targets(case), CriterionConfig(**sizes()["train"]), draw, assignment=pairs)
        losses.append(result.terms[term][0].item())
        recorded.append(case.told["loss_terms_unweighted"][OFFICIAL[term] + (f"_{level}" if number else "")])
    assert losses == pytest.approx(recorded, rel=FLOAT)

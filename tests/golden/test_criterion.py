"""The training criterion against recorded losses, matches and draws of the official one. Sizes come from the data set itself."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from psalm_stream.psalm.train import criterion
from psalm_stream.psalm.train.criterion import CriterionConfig, Prediction, Target
from psalm_stream.psalm.train.matcher import uniform
from safetensors.torch import load_file

GOLDEN = Path(os.environ.get("PSALM_GOLDEN") or Path(__file__).parents[3] / "shared/golden/psalm-tiny")
if not (GOLDEN / "config.json").exists():
    pytest.skip(f"no golden data at {GOLDEN}; set PSALM_GOLDEN", allow_module_level=True)

CONFIG = CriterionConfig(**json.loads((GOLDEN / "config.json").read_text())["train"])
CASES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("cases/train_*.json"))}
OFFICIAL = {
    "class": "loss_class_name_class",
    "refer": "loss_SEG_class",
    "region": "loss_region_class",
    "mask": "loss_mask",
    "dice": "loss_dice",
}
RECORDED = {"class": "class_logits", "refer": "SEG_logits", "region": "region_logits.0"}


class Replay:
    """Hands out recorded draws in order and insists that each is asked for with its recorded shape."""

    def __init__(self, case, tensors):
        self.left = [(tensors[name], tuple(shape)) for name, shape in case["rng_order"]]

    def __call__(self, shape):
        draw, recorded = self.left.pop(0)
        assert shape == recorded
        return draw


def load(name):
    case, tensors = CASES[name], load_file(GOLDEN / f"cases/{name}.safetensors")
    targets = []
    for sample in range(len(case["images"])):
        shape = case["bit_packed_shapes"][f"in.gt_masks.{sample}"]
        bits = np.unpackbits(tensors[f"in.gt_masks.{sample}"].numpy(), count=int(np.prod(shape)))
        targets.append(Target(torch.from_numpy(bits.reshape(shape)).bool(), tensors[f"in.gt_classes.{sample}"]))
    levels = 1 + max(int(key.split(".")[1][1:]) for key in tensors if key.startswith("dec.l"))
    return case, tensors, targets, levels


def official_order(values):
    """Reorder values of decoder levels as the recordings count them: final level first, then the others from the first on."""
    return [values[-1], *values[:-1]]


def recorded_terms(case, term, levels):
    return [case["loss_terms_unweighted"][OFFICIAL[term] + suffix] for suffix in ["", *(f"_{level}" for level in range(levels - 1))]]


def prediction(tensors, level, samples):
    def logits(name):
        found = tensors.get(f"dec.l{level}.{name}")
        return None if found is None else found.float()

    regions = [logits(f"region_logits.{sample}") for sample in range(samples)]
    return Prediction(logits("mask_logits"), logits("class_logits"), logits("SEG_logits"), None if regions[0] is None else regions)


WITH_MASKS = [name for name, case in CASES.items() if "dec.l0.mask_logits" in case["tensors"]]
WITH_CONDITION = [(n, term) for n, c in CASES.items() for term, key in RECORDED.items() if f"dec.l0.{key}" in c["tensors"]]


@pytest.mark.parametrize("name", WITH_MASKS)
def test_every_match_and_loss_is_the_official_one_when_its_draws_are_replayed(name):
    case, tensors, targets, levels = load(name)
    draw = Replay(case, tensors)
    predictions = [prediction(tensors, level, len(targets)) for level in range(levels)]
    tolerance = 1e-4 if tensors["dec.l0.mask_logits"].dtype == torch.float32 else 2e-3
    result = criterion.losses(predictions, targets, CONFIG, draw)
    assert not draw.left
    for number, matches in enumerate(official_order(result.matches)):
        for sample, pairs in enumerate(matches):
            assert torch.equal(pairs, tensors[f"out.match.{number}.{sample}"])
    for term, values in result.terms.items():
        recorded = recorded_terms(case, term, levels)
        assert [v.item() for v in official_order(values)] == pytest.approx(recorded, rel=tolerance)
        assert result.parts[term].item() == pytest.approx(case["loss_parts_weighted"][OFFICIAL[term]], rel=tolerance)
    assert result.total.item() == pytest.approx(case["loss"], rel=tolerance)


@pytest.mark.parametrize(("name", "term"), WITH_CONDITION)
def test_the_condition_loss_is_the_official_one_under_the_recorded_matches(name, term):
    case, tensors, targets, levels = load(name)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for number, level in enumerate(official_order(range(levels))):
        recorded = prediction(tensors, level, len(targets))
        queries = tensors[f"dec.l{level}.query"].shape[:2]
        blank = Prediction(torch.zeros(*queries, 4, 4), recorded.class_logits, recorded.refer_logits, recorded.region_logits)
        pairs = [tensors[f"out.match.{number}.{sample}"] for sample in range(len(targets))]
        losses.append(criterion.losses([blank], targets, CONFIG, uniform(generator), assignment=pairs).terms[term][0].item())
    assert losses == pytest.approx(recorded_terms(case, term, levels), rel=1e-4)

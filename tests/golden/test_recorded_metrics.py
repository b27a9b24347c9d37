"""The recorded ego-exo metrics from the recorded masks and scores: what eval/ computes of them, to the last digit that is recorded."""

from __future__ import annotations

import pytest
from pairs import object_metrics, sample_score
from psalm_stream.eval.egoexo.objectrelator import totals
from walk import Near, case_names, load_case, unpack

CASES = [name for name in case_names() if name.startswith("egoexo_")]
RUNS = [name for name in case_names() if name.startswith("objectrelator_eval_")]
EXACT = 1e-12
SINGLE = 1e-8  # the pooled IoU was divided in float32

if not CASES or not RUNS:
    pytest.skip("no golden ego-exo cases; set PSALM_GOLDEN", allow_module_level=True)


def recorded(case, sample):
    """The recorded masks, scores, picks and fused map of one sample, by the names the walk gives them."""
    told, prefix = case.told["samples"][sample], f"s{sample}."
    scores = case.tensors[f"{prefix}out.scores"]
    masks = unpack(case.tensors[f"{prefix}out.masks_packed"], (len(scores), told["height"], told["width"]))
    found = {f"{prefix}out.masks_packed": masks, f"{prefix}out.scores": scores}
    return found | {
        f"{prefix}out.fused": case.tensors.get(f"{prefix}out.fused"),
        f"json:samples.{sample}.picked_query": told["picked_query"],
    }


@pytest.mark.parametrize("name", CASES)
def test_the_metrics_of_every_object_are_the_recorded_ones(name):
    case = load_case(name)
    for n, sample in enumerate(case.told["samples"]):
        for ours, theirs in zip(object_metrics(case, n, recorded(case, n)), sample["metrics"], strict=True):
            assert {k: v.value if isinstance(v, Near) else v for k, v in ours.items()} == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize("name", RUNS)
def test_the_totals_of_an_evaluation_are_the_printed_ones(name):
    case = load_case(name)
    found = [recorded(case, n) for n in range(len(case.told["samples"]))]
    scores = [sample_score(case, n, f[f"s{n}.out.masks_packed"], f[f"s{n}.out.scores"]) for n, f in enumerate(found)]
    total, printed = totals({"take_0001": scores}), case.told["totals"]
    assert total.iou == pytest.approx(printed["TOTAL IOU"], abs=SINGLE)
    assert (total.location, total.shape, total.existence) == pytest.approx(
        (printed["TOTAL LOCATION SCORE"], printed["TOTAL SHAPE ACC"], printed["TOTAL EXISTENCE ACC"]), abs=EXACT
    )
    assert total.samples == printed["total frames"]

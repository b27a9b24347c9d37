"""Every tensor and every JSON result of every golden case: ours, computed from the case's inputs, or exempt with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import find
from psalm_stream.psalm import preprocess
from walk import Case, Near, Report, case_names, load_case, sizes, walk


@pytest.mark.parametrize("name", case_names())
@torch.no_grad()
def test_everything_recorded_of_a_case_is_ours_or_exempt(name: str, golden: Path, request: pytest.FixtureRequest, ledger: Report) -> None:
    case = load_case(name)
    found, loose = ({}, []) if name == "train_mmconv" else find(case, request.getfixturevalue)
    report = walk(case, found, loose)
    ledger.compared += report.compared
    ledger.results += report.results
    ledger.pictures += report.pictures
    ledger.exempt += report.exempt
    assert not report.problems, "\n".join(report.problems)


def a_case(**told: object) -> Case:
    return Case("region_x", told, {"mid.a": torch.tensor([1.0, -2.0]), "in.labels": torch.tensor([1])})


@pytest.mark.parametrize(
    ("ours", "problems"),
    [
        ([1.0, -2.0], 0),
        ([1.0001, -2.0], 0),
        ([1.0003, -2.0], 1),
        ([1.0], 1),
    ],
)
def test_a_tensor_that_is_off_is_a_problem(ours: list[float], problems: int) -> None:
    assert len(walk(a_case(), {"mid.a": torch.tensor(ours)}).problems) == problems


def test_a_recorded_name_that_is_neither_found_nor_exempt_is_a_problem() -> None:
    report = walk(a_case(surprise=1), {})
    assert [p.split(":")[0] for p in report.problems] == ["mid.a", "json"]
    assert report.exempt == {"inputs": 1}
    assert report.compared == 1


@pytest.mark.parametrize(("ours", "fits"), [(0.5, True), (0.51, False), (Near(0.51, 0.02, 0.02), True), ("0.5", False)])
def test_a_json_figure_is_compared(ours: object, fits: bool) -> None:
    report = walk(a_case(score=0.5), {"mid.a": torch.tensor([1.0, -2.0]), "json:score": ours})
    assert report.results == 1
    assert bool(report.problems) != fits


def test_behind_a_fragile_layer_more_is_allowed() -> None:
    found = {"mid.a": torch.tensor([1.01, -2.0])}
    assert walk(a_case(), found).problems
    assert not walk(a_case(), found, ["mid.*"]).problems


def test_a_folder_that_is_named_and_holds_no_golden_data_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walk.GOLDEN", tmp_path)
    monkeypatch.delenv("PSALM_GOLDEN", raising=False)
    assert case_names() == []
    monkeypatch.setenv("PSALM_GOLDEN", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"PSALM_GOLDEN is .*index\.json"):
        case_names()


def test_the_constants_of_preprocessing_are_the_recorded_ones(golden: Path) -> None:
    constants = [preprocess.PIXEL_MEAN, preprocess.PIXEL_STD, preprocess.PAD_VALUE]
    assert constants == [tuple(sizes()["pixel_mean"]), tuple(sizes()["pixel_std"]), sizes()["pad_value"]]

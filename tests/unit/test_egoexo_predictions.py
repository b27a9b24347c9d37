"""The official prediction file: what is written can be submitted, and whatever stops the official scorer is refused in words."""

from __future__ import annotations

import copy
import json

import pytest
from egoexo_takes import EGO, EXO, cup_take, predicted
from psalm_stream.eval.egoexo.predictions import (
    is_submission,
    misfits,
    no_answer,
    read_predictions,
    refuse_misfits,
    take_json,
    write_predictions,
)
from psalm_stream.stream.errors import BadInput

PAIR = f"{EGO}_{EXO}"
BOX = ((100, 150), (200, 280))


@pytest.fixture
def results():
    """A complete prediction of the cup, ego to exo."""
    take = cup_take()
    answers = {("cup_0", PAIR, frame): predicted(EXO, *BOX, 0.9) for frame in (0, 30, 60)}
    return {take.uid: take_json(take, "ego-exo", answers)}


def test_a_complete_prediction_has_every_object_pair_and_query_frame(results):
    assert list(misfits([cup_take()], results, "ego-exo")) == []
    masks = results["take-1"]["masks"]
    assert masks["knife_1"] == {}  # known to one camera alone
    assert list(masks["cup_0"][PAIR]) == ["0", "30", "60"]  # 60 is not scored, and expected
    assert results["take-1"]["subsample_idx"] == [0, 30, 60, 90]


def test_what_is_written_is_the_official_layout(results, tmp_path):
    write_predictions(tmp_path / "p.json", {"ego-exo": results})
    told = json.loads((tmp_path / "p.json").read_text())
    assert (told["ego-exo"]["version"], told["ego-exo"]["challenge"]) == ("xx", "xx")
    answer = told["ego-exo"]["results"]["take-1"]["masks"]["cup_0"][PAIR]["30"]
    assert (answer["pred_mask"]["size"], type(answer["pred_mask"]["counts"]), answer["confidence"]) == ([270, 480], str, 0.9)
    assert read_predictions(tmp_path / "p.json") == {"ego-exo": results}


@pytest.mark.parametrize(("directions", "complete"), [(["ego-exo", "exo-ego"], True), (["ego-exo"], False)])
def test_a_submission_has_both_directions(directions, complete):
    assert is_submission(directions) == complete


def test_an_answer_that_is_not_there_is_not_made_up():
    with pytest.raises(BadInput, match=r"cup_0 in .* has no answer on frame 60"):
        take_json(cup_take(), "ego-exo", {("cup_0", PAIR, frame): no_answer((270, 480)) for frame in (0, 30)})


def drop(path):
    def spoil(results):
        *parents, last = path
        for key in parents:
            results = results[key]
        del results[last]

    return spoil


def put(value, *path):
    def spoil(results):
        *parents, last = path
        for key in parents:
            results = results[key]
        results[last] = value

    return spoil


CUP = ("take-1", "masks", "cup_0")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (drop(["take-1"]), "0 takes, the truth has 1"),
        (put({"masks": {}, "subsample_idx": []}, "take-2"), "2 takes, the truth has 1"),
        (drop(["take-1", "masks"]), "take take-1 has no `masks` by object"),
        (drop(["take-1", "masks", "knife_1"]), r"1 objects, the truth has 2; one without a pair of cameras is there as \{\}"),
        (drop(CUP), "object cup_0 is missing"),
        (drop([*CUP, PAIR]), "cup_0 has no pair aria01_214-1_cam01; every ego x exo pair is expected"),
        (drop([*CUP, PAIR, "60"]), "has no frame 60; every frame with a query mask is expected, those that are not scored too"),
        (put(predicted(EGO, (0, 9), (0, 9), 0.5), *CUP, PAIR, "0"), r"pred_mask is 480 x 480, expected 270 x 480 \(height x width"),
        (put({"pred_mask": {"size": [270, 480], "counts": "bad"}, "confidence": 1}, *CUP, PAIR, "0"), "expected compressed counts"),
        (put({"pred_mask": {"size": [270, 480]}, "confidence": 1}, *CUP, PAIR, "0"), "no confidence or pred_mask with size and counts"),
        (put({"pred_mask": predicted(EXO, *BOX, 0)["pred_mask"]}, *CUP, PAIR, "0"), "no confidence or pred_mask"),
        (put(predicted(EXO, *BOX, float("nan")), *CUP, PAIR, "0"), "confidence is nan, expected a number"),
        (put(None, *CUP, PAIR, "30"), "has no frame 30"),
        (put([], *CUP, PAIR, "30"), "no confidence or pred_mask"),
        (put([], *CUP), "take take-1: cup_0 is a list, expected an object of pairs QUERY_TARGET"),
        (put(None, *CUP), "cup_0 is a NoneType, expected an object of pairs"),
        (put([1, 2], *CUP, PAIR), "cup_0 in aria01_214-1_cam01 is a list, expected an object of answers by frame"),
    ],
)
def test_what_stops_the_official_scorer_is_one_message(spoil, problem, results):
    spoilt = copy.deepcopy(results)
    spoil(spoilt)
    with pytest.raises(BadInput, match=problem):
        refuse_misfits([cup_take()], spoilt, "ego-exo")


def test_many_problems_are_counted_and_the_first_are_shown(results):
    takes = [cup_take(f"take-{n}") for n in range(20)]
    with pytest.raises(BadInput) as refused:
        refuse_misfits(takes, {}, "ego-exo")
    lines = str(refused.value).split("\n")
    assert "21 problems" in lines[0]
    assert (len(lines), lines[-1]) == (12, "  and 11 more")


@pytest.mark.parametrize("told", [{}, {"results": {}}, {"ego-exo": {"version": "xx"}}, {"exo-ego": {"results": []}}, {"ego-exo": []}])
def test_a_file_without_results_of_a_direction_is_refused(told, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"p\.json"):
        read_predictions(tmp_path / "p.json")

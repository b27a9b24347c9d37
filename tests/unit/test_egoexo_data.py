"""The files of Ego-Exo4D correspondence as they really are: two formats of masks, what null and missing mean, a tool's known mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from egoexo_takes import EGO, EXO, FULL, SCORING, cup_take, full_mask, raw, stored
from psalm_stream.eval.egoexo.data import Pair, is_ego, natural, open_root, pairs, read_processed, read_truth, scoring_size, stored_rle
from psalm_stream.eval.egoexo.score import score_take
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.rle import decode

BOX = ((100, 150), (200, 280))


def relations(**takes):
    """A relations file: per take its objects, per camera what is annotated and where somebody looked."""
    return {
        "version": "v2",
        "annotations": {uid: {"take_name": f"name_{uid}", "scenario": "Cooking", **take} for uid, take in takes.items()},
    }


def track(masks, looked_at):
    return {"annotation": masks, "annotated_frames": looked_at}


RAW_TAKE = {
    "object_names": {"annotation": ["cup_0"]},
    "object_masks": {
        "cup_0": {
            EGO: track({"0": raw(EGO, (100, 200), (100, 200)), "30": raw(EGO, (0, 90), (0, 90))}, [0, 30, 60]),
            EXO: track({"0": raw(EXO, *BOX)}, [0, 30]),
        }
    },
}


@pytest.fixture
def root(tmp_path):
    """A data root of one take without pictures."""
    (tmp_path / "relations_val.json").write_text(json.dumps(relations(a=RAW_TAKE)))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["t"], "val": ["a"], "test": []}))
    return tmp_path


def test_a_relations_file_gives_masks_and_where_somebody_looked(root):
    take = read_truth(root / "relations_val.json")["a"]
    assert (take.name, take.objects, take.cameras()) == ("name_a", ["cup_0"], [EGO, EXO])
    assert np.array_equal(decode(take.mask("cup_0", EXO, 0)), full_mask(EXO, *BOX))
    assert take.looked_at("cup_0", EXO) == {0, 30}


def test_a_scoring_truth_gives_the_same_take(root, tmp_path):
    raw_take = read_truth(root / "relations_val.json")["a"]
    masks = {"cup_0": {EGO: {"0": stored(EGO, (100, 200), (100, 200)), "30": stored(EGO, (0, 90), (0, 90))}, EXO: {"0": stored(EXO, *BOX)}}}
    truth = {"masks": masks, "subsample_idx": [0, 30, 60], "annotated_frames": {"cup_0": {EGO: [0, 30, 60], EXO: [0, 30]}}}
    (tmp_path / "gt.json").write_text(json.dumps({"version": "xx", "challenge": "xx", "annotations": {"a": truth}}))
    take = read_truth(tmp_path / "gt.json")["a"]
    assert take.annotated == raw_take.annotated
    assert all(take.mask("cup_0", c, f) == raw_take.mask("cup_0", c, f) for c in (EGO, EXO) for f in (0, 30))


def test_a_camera_is_the_worn_one_by_its_name():
    assert [is_ego(camera) for camera in ("aria01_214-1", "aria02_1201-1", "cam01", "gp03")] == [True, True, False, False]


def test_names_are_sorted_as_people_count():
    assert sorted(["cam10", "cam2", "cam1", "knife", "cup_10", "cup_9"], key=natural) == [
        "cam1",
        "cam2",
        "cam10",
        "cup_9",
        "cup_10",
        "knife",
    ]


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoilt", [None, {**raw(EXO, *BOX), "encodedMask": raw(EXO, *BOX)["encodedMask"][:-4]}, {**raw(EXO, *BOX), "height": 100}]
)
def test_a_mask_that_cannot_be_decoded_is_none(spoilt):
    assert stored_rle(spoilt) is None


def test_an_undecodable_mask_of_a_relations_file_and_null_of_a_processed_take_are_the_same(tmp_path):
    broken = {**raw(EXO, *BOX), "encodedMask": "zzzz"}
    (tmp_path / "r.json").write_text(json.dumps(relations(a={"object_masks": {"cup_0": {EXO: track({"0": broken}, [0])}}})))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "annotation.json").write_text(json.dumps({"masks": {"cup_0": {EXO: {"0": None}}}, "subsample_idx": [0]}))
    takes = read_truth(tmp_path / "r.json")["a"], read_processed(tmp_path / "a")
    assert [(0 in t.masks["cup_0"][EXO], t.mask("cup_0", EXO, 0)) for t in takes] == [(True, None)] * 2


def test_where_somebody_looked_and_drew_no_mask_the_object_is_not_visible():
    take = cup_take()
    answers = {"masks": {"cup_0": {f"{EGO}_{EXO}": {str(f): {"confidence": 0.0} for f in (0, 30, 60)}}}}
    take = type(take)(take.uid, {"cup_0": {EGO: take.masks["cup_0"][EGO], EXO: {}}}, (), take.annotated)
    assert [(s.frame, s.exists) for s in score_take(take, answers, "ego-exo")] == [(0, False), (30, False)]


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", FULL)
def test_masks_are_compared_with_their_long_side_at_480(camera):
    assert scoring_size(FULL[camera]) == SCORING[camera]


@pytest.mark.parametrize(
    ("full", "scoring"),
    [
        ((1408, 1408), (480, 480)),
        ((1080, 1920), (270, 480)),
        ((1520, 2704), (269, 480)),  # 269.8, truncated
        ((3840, 2160), (480, 270)),
        ((704, 704), (480, 480)),
    ],
)
def test_the_other_side_is_truncated(full, scoring):
    assert scoring_size(full) == scoring


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_every_object_is_paired_across_views_in_both_directions_and_one_of_a_single_view_is_not():
    assert list(pairs(cup_take(), "ego-exo")) == [Pair("cup_0", EGO, EXO)]
    assert [pair.key for pair in pairs(cup_take(), "exo-ego")] == [f"{EXO}_{EGO}"]


# -- a data root ------------------------------------------------------------------------------------------------------


def test_the_takes_of_a_split_are_found_with_their_relations(root):
    data = open_root(root, "val", None)
    assert ([take.uid for take in data.takes], data.scorable, data.notes) == (["a"], True, ())


def test_relations_are_also_looked_for_where_the_download_puts_them(root):
    (root / "annotations").mkdir()
    (root / "relations_val.json").rename(root / "annotations" / "relations_val.json")
    assert open_root(root, "val", None).scorable


def test_split_json_is_read_and_not_the_split_checking_json_of_the_official_tool(root):
    (root / "split_checking.json").write_text(json.dumps({"val": ["b", "c"]}))
    assert [take.uid for take in open_root(root, "val", None).takes] == ["a"]


def test_split_checking_json_alone_is_refused_with_what_is_wrong_about_it(root):
    (root / "split.json").rename(root / "split_checking.json")
    with pytest.raises(
        BadInput, match=r"split_checking\.json and no split\.json: the official process_annotations\.py reads the wrong one"
    ):
        open_root(root, "val", None)


def test_without_split_json_every_take_of_the_relations_is_meant(root):
    (root / "split.json").unlink()
    assert [take.uid for take in open_root(root, "val", None).takes] == ["a"]


def test_a_take_of_the_split_without_relations_is_left_out_and_said(root):
    (root / "split.json").write_text(json.dumps({"val": ["a", "b", "c"]}))
    data = open_root(root, "val", None)
    assert [take.uid for take in data.takes] == ["a"]
    assert data.notes == ("2 takes of val have no relations in relations_val.json, b the first; they are left out",)


def test_without_relations_the_processed_masks_can_be_asked_for_and_not_scored(root):
    (root / "relations_val.json").unlink()
    (root / "a").mkdir()
    (root / "a" / "annotation.json").write_text(json.dumps({"masks": {"cup_0": {EGO: {"0": None}}}, "subsample_idx": [0]}))
    data = open_root(root, "val", None)
    assert ([take.uid for take in data.takes], data.scorable) == (["a"], False)
    assert "cannot be scored" in data.notes[0]
    with pytest.raises(BadInput, match="no annotated_frames"):
        data.takes[0].looked_at("cup_0", EGO)


@pytest.mark.parametrize("name", ["a", "name_a"])
def test_takes_are_chosen_by_uid_or_by_name(name, root):
    assert [take.uid for take in open_root(root, "val", None, [name]).takes] == ["a"]


def test_a_limit_keeps_the_first_annotated_frames_of_every_camera(root):
    (take,) = open_root(root, "val", None, limit=1).takes
    assert {camera: sorted(frames) for camera, frames in take.masks["cup_0"].items()} == {EGO: [0], EXO: [0]}
    assert take.looked_at("cup_0", EGO) == {0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: open_root(root, "tset", None), "has no split 'tset', expected one of train, val, test"),
        (lambda root: open_root(root, "test", None), "holds no take of split 'test'"),
        (lambda root: open_root(root, "val", None, ["b"]), "take b is not among the 1 takes"),
        (lambda root: open_root(root, "val", root / "split.json"), "has no `annotations` by take"),
        (lambda root: open_root(root, "val", root / "nowhere.json"), r"nowhere\.json"),
    ],
)
def test_what_cannot_be_opened_is_said(call, message, root):
    with pytest.raises(BadInput, match=message):
        call(root)


@pytest.mark.parametrize(
    "take",
    [
        {"object_masks": {"cup_0": {EGO: {"annotation": {}}}}},
        {"masks": {"cup_0": {EGO: {"first": None}}}, "subsample_idx": []},
        {"masks": {"cup_0": {EGO: {}}}},
        {"masks": [], "subsample_idx": []},
        {"subsample_idx": []},
        {"masks": {"cup_0": {"aria01": {}, "aria02": {}}}, "subsample_idx": []},
    ],
)
def test_a_take_of_another_layout_is_refused_by_name(take, tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps({"annotations": {"a": take}}))
    with pytest.raises(BadInput, match="take a "):
        read_truth(tmp_path / "gt.json")

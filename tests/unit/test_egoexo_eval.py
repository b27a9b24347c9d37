"""The evaluation from drawn takes to its results folder; of a model that knows the geometry the right answer comes out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from psalm_stream.eval.egoexo.ask import questions
from psalm_stream.eval.egoexo.data import DIRECTIONS, open_root, stored_rle
from psalm_stream.eval.egoexo.objectrelator import CHOICES, totals
from psalm_stream.eval.egoexo.predictions import write_predictions
from psalm_stream.eval.egoexo.report import score_directions
from psalm_stream.eval.egoexo.run import (
    Job,
    open_results,
    predictions,
    refuse_missing,
    sample_scores,
    still_to_do,
    work,
)
from psalm_stream.eval.egoexo.scenes import CAMERAS, EGO, LEAST_SHARE, LOW, draw_scene, write_takes
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import to_official
from psalm_stream.stream.errors import BadConfig, BadInput
from psalm_stream.stream.rle import decode
from psalm_stream.stream.types import Proposals
from psalm_stream.workers.cli.app import app
from tiny_checkpoint import CONFIG, write
from typer.testing import CliRunner

SCENE = draw_scene(24, 3)
TRAPPED = draw_scene(10, 1, traps=True)


def camera_of(key):
    return next(camera for camera in (*CAMERAS, LOW) if camera.name == key.view)


class Knowing:
    """A model that knows the geometry: it proposes every thing's true mask, and recognises what a region shows by where it lies."""

    digest = "knowing"
    visible = {}  # noqa: RUF012 (of all of them: scenes do not change)

    class config:  # noqa: N801 (as a Segmenter has one)
        image_size = 1024

    def __init__(self, turns=0, scene=SCENE):
        self.turns, self.scene, self.asked = turns, scene, []

    def segment(self, requests):
        self.asked += [
            (r.condition.regions[0].frame.key.view, r.frame.key.view, r.frame.key.index) for r in requests if r.condition.regions
        ]
        return [self._one(request) for request in requests]

    def _one(self, request):
        labels = self._labels(request.frame)
        things = [n for n in self._visible(request.frame.key) if (labels == n).any()]
        masks = np.array([labels == n for n in things]).reshape(-1, *labels.shape)
        shown = [self._shown(region) for region in request.condition.regions]
        scores = np.array([[0.95 if n == thing else 0.05 for n in things] for thing in shown], np.float32).reshape(len(shown), len(things))
        return Proposals(scores, lambda queries: masks[list(queries)])

    def _shown(self, region):
        """The thing most of a region lies on."""
        return int(np.bincount(self._labels(region.frame)[region.mask], minlength=2)[1:].argmax()) + 1

    def _visible(self, key):
        """The things that are annotated there."""
        if key not in self.visible:
            camera = camera_of(key)
            pixels = np.bincount(self.scene.labels(camera, key.index, camera.full_hw).ravel(), minlength=2)[1:]
            self.visible[key] = [n for n, count in enumerate(pixels, start=1) if count >= LEAST_SHARE * np.prod(camera.full_hw)]
        return self.visible[key]

    def _labels(self, frame):
        camera = camera_of(frame.key)
        labels = self.scene.labels(camera, frame.key.index, camera.picture_hw)
        return np.rot90(labels, self.turns if frame.key.view == EGO else 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One drawn take of three seconds."""
    folder = tmp_path_factory.mktemp("takes")
    assert [scene.uid for scene in write_takes(folder, [SCENE])] == [SCENE.uid]
    return folder


@pytest.fixture(scope="module")
def trapped(tmp_path_factory):
    """One drawn take of one second, damaged as real data is."""
    folder = tmp_path_factory.mktemp("trapped")
    list(write_takes(folder, [TRAPPED], traps=True))
    return folder


def job_of(root, out, upright=None, directions=DIRECTIONS, batch_size=1, **method):
    return Job(open_root(root, "val", None), out, directions, batch_size, upright, {"weights_digest": "knowing", **method})


def run(job, model, protocols=("official",)):
    open_results(job, overwrite=False)
    for take in job.data.takes:
        list(work(job, take, protocols, model))
    return {d: {take.uid: predictions(job, take)[0][d] for take in job.data.takes} for d in job.directions}


# -- what is drawn ----------------------------------------------------------------------------------------------------


def test_a_drawn_take_has_the_official_layout(root):
    told = json.loads((root / "relations_val.json").read_text())["annotations"][SCENE.uid]
    tracks = told["object_masks"]
    assert list(tracks) == told["object_names"]["annotation"] == [thing.name for thing in SCENE.things]
    track = tracks[SCENE.things[0].name]["cam01"]
    assert set(track) == {"annotation", "annotated_frames"}
    assert set(next(iter(track["annotation"].values()))) == {"width", "height", "encodedMask"}
    assert {path.name for path in (root / SCENE.uid / "cam01").iterdir()} == {"0.jpg", "30.jpg", "60.jpg"}
    assert json.loads((root / SCENE.uid / "annotation.json").read_text())["subsample_idx"] == [0, 30, 60]


def test_drawn_masks_are_the_geometry_s_to_the_pixel_in_both_files(root):
    take = open_root(root, "val", None).takes[0]
    processed = json.loads((root / SCENE.uid / "annotation.json").read_text())["masks"]
    for number, thing in enumerate(SCENE.things, start=1):
        for camera in CAMERAS:
            for frame in take.masks[thing.name].get(camera.name, {}):
                expected = SCENE.labels(camera, frame, camera.full_hw) == number
                assert np.array_equal(decode(take.mask(thing.name, camera.name, frame)), expected)
                assert stored_rle(processed[thing.name][camera.name][str(frame)]) == take.mask(thing.name, camera.name, frame)


def test_a_drawn_take_has_objects_in_view_and_out_of_it_and_one_without_a_second_camera(root):
    take = open_root(root, "val", None).takes[0]
    visible = [len(stored) for cameras in take.masks.values() if len(cameras) > 1 for stored in cameras.values()]
    assert max(visible) == 3
    assert min(visible) < 3
    assert list(take.masks[SCENE.things[-1].name]) == [EGO]


# -- the right answer -------------------------------------------------------------------------------------------------


def test_a_model_that_knows_gets_everything_right_but_for_the_rounding_of_sizes(root, tmp_path):
    job = job_of(root, tmp_path)
    found = score_directions(job.data.takes, run(job, Knowing()), lambda: None)
    for direction in DIRECTIONS:
        overall = found[direction].overall
        assert 0 < overall.visible < overall.frames
        assert (overall.ba, overall.existence) == (1, 1)
        assert overall.iou > 0.93
        assert overall.ca > 0.99
        assert overall.le < 0.002


def test_confusing_two_objects_is_seen_in_every_measure(root, tmp_path):
    class Confused(Knowing):
        def _shown(self, region):
            return 3 - super()._shown(region) if super()._shown(region) in (1, 2) else super()._shown(region)

    job = job_of(root, tmp_path, directions=("ego-exo",))
    overall = score_directions(job.data.takes, run(job, Confused()), lambda: None)["ego-exo"].overall
    assert overall.iou < 0.8
    assert overall.ba < 1


@pytest.mark.parametrize(("upright", "turns"), [("cw", -1), ("ccw", 1)])
def test_upright_ego_pictures_give_the_same_answers_to_the_pixel_once_turned_back(upright, turns, root, tmp_path):
    plain = run(job_of(root, tmp_path / "plain"), Knowing())
    assert run(job_of(root, tmp_path / "turned", upright), Knowing(turns)) == plain


def test_objectrelator_s_evaluation_of_a_model_that_knows_is_nearly_perfect(root, tmp_path):
    job = job_of(root, tmp_path)
    open_results(job, overwrite=False)
    take = job.data.takes[0]
    assert sum(work(job, take, ("objectrelator",), Knowing())) > 3
    for direction in DIRECTIONS:
        total = totals({take.uid: sample_scores(job, take, direction)})
        assert (total.takes, total.vanished, total.existence) == (1, 0, 1)
        assert total.iou > 0.95
        assert total.location < 0.002
        assert total.shape > 0.99


# -- going on ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_evaluation_goes_on_and_asks_nothing_twice(root, tmp_path):
    whole = run(job_of(root, tmp_path / "whole"), Knowing())
    job, before = job_of(root, tmp_path / "cut"), Knowing()
    open_results(job, overwrite=False)
    take = job.data.takes[0]
    working = work(job, take, ("official",), before)
    for _ in range(4):
        next(working)
    working.close()
    kept = job.answers(take)
    kept.write_bytes(kept.read_bytes()[:-20])  # the power went while the fourth answer was written
    with pytest.raises(BadInput, match="questions have no answer yet; run the evaluation to its end"):
        predictions(job, take)
    after = Knowing()
    assert run(job, after) == whole
    assert len(before.asked) == 4
    assert set(before.asked) & set(after.asked) == {before.asked[3]}


def test_a_finished_evaluation_asks_nothing_again(root, tmp_path):
    run(job_of(root, tmp_path), Knowing())
    job = job_of(root, tmp_path)
    assert still_to_do(job, job.data.takes[0], ("official",)) == 0
    assert still_to_do(job, job.data.takes[0], ("objectrelator",)) > 0


def test_a_question_about_other_objects_than_before_is_asked_again(root, tmp_path):
    run(job_of(root, tmp_path / "out"), Knowing())
    job, fresh = job_of(root, tmp_path / "out"), job_of(root, tmp_path / "fresh")
    (take,) = job.data.takes
    left_out = questions(take, DIRECTIONS)[0].names[0]
    fewer = replace(take, masks={name: cameras for name, cameras in take.masks.items() if name != left_out})
    job, fresh = (replace(one, data=replace(one.data, takes=(fewer,))) for one in (job, fresh))
    assert still_to_do(job, fewer, ("official",)) > 0
    assert run(job, Knowing()) == run(fresh, Knowing())
    assert still_to_do(job, fewer, ("official",)) == 0


def test_batches_give_the_same_answers(root, tmp_path):
    assert run(job_of(root, tmp_path / "4", batch_size=4), Knowing()) == run(job_of(root, tmp_path / "1"), Knowing())


def test_another_way_of_answering_is_not_mixed_in(root, tmp_path):
    run(job_of(root, tmp_path, dtype="float32", upright_ego=None), Knowing())
    with pytest.raises(BadConfig, match="dtype is float32 there and bfloat16 here, upright_ego is None there and cw here"):
        open_results(job_of(root, tmp_path, dtype="bfloat16", upright_ego="cw"), overwrite=False)
    open_results(job_of(root, tmp_path, dtype="bfloat16", upright_ego="cw"), overwrite=True)
    assert not list((tmp_path / "answers").iterdir())


def test_a_folder_of_something_else_is_left_alone(root, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(BadConfig, match="is not empty"):
        open_results(job_of(root, tmp_path), overwrite=False)


# -- damaged data -----------------------------------------------------------------------------------------------------


def test_a_camera_that_the_official_tool_left_empty_is_refused_with_the_reason(trapped):
    data = open_root(trapped, "val", None)
    with pytest.raises(BadInput, match=r"camera cam03 has none at all: .* stops at the first frame lower than 1408 px.*--allow-missing"):
        refuse_missing(data, DIRECTIONS, allow=False)
    assert "answered with empty masks" in refuse_missing(data, DIRECTIONS, allow=True)


def test_allowed_missing_pictures_are_answered_empty_and_surely_absent(trapped, tmp_path):
    job = job_of(trapped, tmp_path)
    results = run(job, Knowing(scene=TRAPPED))
    take = job.data.takes[0]
    low = [
        answer
        for masks in results["ego-exo"][take.uid]["masks"].values()
        for pair, frames in masks.items()
        for answer in frames.values()
        if pair.endswith(LOW.name)
    ]
    assert low
    assert all((a["confidence"], decode(stored_rle(a["pred_mask"])).any(), a["pred_mask"]["size"]) == (0, False, [270, 480]) for a in low)
    found = score_directions(job.data.takes, results, lambda: None)
    assert found["ego-exo"].undecodable == 1
    assert sum(one.overall.frames for one in found.values()) > 0


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny checkpoint as ObjectRelator leaves them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    return write(folder, to_official(Psalm(CONFIG).state_dict(), CONFIG) | {"predictor.fuse_model.mix": torch.ones(())})


def command(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_evaluates_both_directions_with_their_remarks_and_the_scorer_agrees(root, weights, tmp_path):
    out = tmp_path / "out"
    shown = command("eval", "egoexo", root, "--out", out, "--protocol", "both", "--limit", 1, "--weights", weights)
    assert shown.exit_code == 0, shown.output
    told = json.loads((out / "results.json").read_text())
    assert set(told["official"]) == set(told["objectrelator"]) == set(DIRECTIONS)
    assert told["method"]["confidence"]["seen_at_score"] == 0.5
    assert told["remarks"] == ["fusion not used", *CHOICES, "only the first 1 annotated frames of each take: not comparable"]
    for said in (shown.output, (out / "report.html").read_text()):
        assert "fusion not used" in said
        assert "masks alone" in said
        assert "a list of 66" in said
    assert (out / "pairs.csv").read_text().count("\n") == 1 + sum(told["official"][d]["frames"] for d in DIRECTIONS)
    assert "data:image/jpeg" in (out / "report.html").read_text()
    scored = command("score", "egoexo", root / "relations_val.json", out / "predictions.json", "--limit", 1, "--out", tmp_path / "scored")
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "scored" / "results.json").read_text())["official"] == told["official"]

    (out / "report.html").unlink()
    (out / "report.html").mkdir()
    shown = command("eval", "egoexo", root, "--out", out, "--protocol", "both", "--limit", 1, "--weights", weights)
    assert (shown.exit_code, "cannot be written" in shown.output) == (2, True)


def test_without_relations_predictions_are_made_and_not_scored(trapped, weights, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "split.json").write_text((trapped / "split.json").read_text())
    for take in trapped.iterdir():
        if take.is_dir():
            (bare / take.name).symlink_to(take)
    out = tmp_path / "out"
    shown = command("eval", "egoexo", bare, "--out", out, "--allow-missing", "--direction", "ego-exo", "--weights", weights)
    assert shown.exit_code == 0, shown.output
    assert "cannot be scored" in shown.output
    assert set(json.loads((out / "predictions.json").read_text())) == {"ego-exo"}
    told = json.loads((out / "results.json").read_text())
    assert told["official"] == {}
    assert not any("ObjectRelator" in remark for remark in told["remarks"])

    (answers,) = (out / "answers").iterdir()
    answers.write_text(answers.read_text().replace('"size":[270,480]', '"size":[270,481]'))
    shown = command("eval", "egoexo", bare, "--out", out, "--allow-missing", "--direction", "ego-exo", "--weights", weights)
    assert (shown.exit_code, "stops the official scorer" in shown.output) == (2, True)


def test_predictions_of_others_are_refused_in_words_where_the_official_script_stops(root, tmp_path):
    write_predictions(tmp_path / "p.json", {"exo-ego": {}})
    shown = command("score", "egoexo", root / "relations_val.json", tmp_path / "p.json")
    assert shown.exit_code == 2
    assert "exo-ego: the predictions have 2 problems, any of which stops the official scorer" in shown.output
    assert "0 takes, the truth has 1" in shown.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--direction", "exo-exo"], "--direction is 'exo-exo', expected one of ego-exo, exo-ego or both"),
        (["--protocol", "paper"], "--protocol is 'paper', expected one of official, objectrelator or both"),
        (["--upright-ego", "left"], "--upright-ego is 'left', expected cw or ccw"),
        (["--upright-ego", "cw", "--protocol", "both"], "use it with --protocol official"),
        (["--takes", "kitchen"], "take kitchen is not among the 1 takes of this split"),
        (["--split", "tset"], "has no split 'tset'"),
    ],
)
def test_what_was_meant_otherwise_is_said_before_a_model_is_loaded(flags, message, root, tmp_path):
    shown = command("eval", "egoexo", root, "--out", tmp_path / "out", *flags)
    assert shown.exit_code == 2
    assert message in shown.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()

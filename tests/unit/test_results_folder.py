"""A results folder: masks that are scored from their files, the official CSVs, and results.json."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from davis_folder import davis_2016, davis_2017
from PIL import Image
from psalm_stream.eval.davis.evaluation import score_folder
from psalm_stream.eval.davis.layout import open_davis
from psalm_stream.eval.davis.metrics import average, score_object
from psalm_stream.eval.davis.plain_scorer import plain_scores
from psalm_stream.eval.davis.results import (
    Results,
    SequenceResult,
    SequenceRun,
    dataset_of,
    mask_path,
    read_results,
    score_masks,
    write_csvs,
    write_results,
)
from psalm_stream.eval.davis.scorer_bench import copy_first_masks, largest_difference
from psalm_stream.psalm.weights import FUSION_NOT_USED
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.sinks import write_label_map
from test_metrics import toy_run

DAVIS = Path(os.environ.get("PSALM_DAVIS", Path(__file__).parents[3] / "shared" / "davis"))


@pytest.fixture
def data(tmp_path):
    return open_davis(davis_2017(tmp_path / "davis"))


@pytest.fixture
def copies(data, tmp_path):
    """The first mask of each sequence on all its frames."""
    copy_first_masks(data, tmp_path / "copies")
    return tmp_path / "copies"


def write_toy_run(root):
    """The golden toy run as files: a DAVIS folder, and the answered masks."""
    for folder, maps in zip(("Annotations/480p/toy", "answers/toy"), toy_run(), strict=True):
        (root / folder).mkdir(parents=True)
        for index, labels in enumerate(maps):
            write_label_map(root / folder / f"{index:05d}.png", labels)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("toy\n")
    return open_davis(root), root / "answers"


# -- scoring ----------------------------------------------------------------------------------------------------------


def test_the_golden_toy_run_gives_the_official_figures_from_its_files(tmp_path):
    score = score_folder(*write_toy_run(tmp_path), lambda frames: None).score
    first, second = score.objects
    found = (first.j.mean, first.j.decay, first.f.mean, first.f.decay, second.j.mean, second.f.mean, score.jf)
    expected = (0.5889898951068366, 0.440286350331328, 0.4915, 0.3216666666666667, 1.0, 1.0, 0.7701224737767092)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["pair", "single"])
def test_scores_from_files_equal_the_rules_by_the_letter(data, tmp_path, name):
    sequence = next(s for s in data.sequences if s.name == name)
    random = np.random.default_rng(3)
    (tmp_path / "out" / name).mkdir(parents=True)
    for index, frame in enumerate(sequence.frames):
        labels = np.roll(sequence.true_map(index), random.integers(-6, 6, 2), (0, 1))
        labels[random.random(labels.shape) < 0.02] = 0
        write_label_map(mask_path(tmp_path / "out", name, frame), labels)
    ours = score_masks(tmp_path / "out", sequence)
    answers = [mask_path(tmp_path / "out", name, frame) for frame in sequence.frames]
    assert 0.1 < ours.jf < 0.9
    assert largest_difference(ours, plain_scores(sequence.labels, answers)) < 1e-9


def test_real_masks_score_as_by_the_letter_and_their_mean_as_the_official_code_has_it(tmp_path):
    if not (DAVIS / "ImageSets/2017/val.txt").is_file():
        pytest.skip(f"no DAVIS in {DAVIS}; set PSALM_DAVIS")
    davis = open_davis(DAVIS)
    copy_first_masks(davis, tmp_path)
    results = score_folder(davis, tmp_path, lambda frames: None)
    assert [round(100 * v, 1) for v in (results.score.j.mean, results.score.f.mean, results.score.jf)] == [28.7, 23.3, 26.0]
    shortest = min(davis.sequences, key=lambda s: len(s.labels))
    answers = [mask_path(tmp_path, shortest.name, frame) for frame in shortest.frames]
    (ours,) = [s.score for s in results.sequences if s.name == shortest.name]
    assert largest_difference(ours, plain_scores(shortest.labels, answers)) < 1e-9


def test_masks_of_the_first_and_the_last_frame_are_not_needed(data, copies):
    whole = score_folder(data, copies, lambda frames: None)
    for path in (*copies.glob("*/00000.png"), *copies.glob("*/00005.png")):
        path.unlink()
    assert score_folder(data, copies, lambda frames: None).score.jf == whole.score.jf


def test_masks_of_0_and_255_are_the_object_where_annotations_are(tmp_path):
    data = open_davis(davis_2016(tmp_path / "davis"))
    copy_first_masks(data, tmp_path / "out")
    before = score_folder(data, tmp_path / "out", lambda frames: None).score.jf
    for path in (tmp_path / "out").glob("*/*.png"):
        Image.fromarray((np.array(Image.open(path)) * 255).astype(np.uint8)).save(path)
    assert score_folder(data, tmp_path / "out", lambda frames: None).score.jf == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), r"pair/00002.png is missing, .*pair holds 5 PNGs; expected a label PNG for every annotated frame"),
        (lambda path: Image.new("P", (40, 30)).save(path), "pair/00002.png is 40x30, its annotation 96x72"),
        (
            lambda path: Image.new("L", (96, 72), 3).save(path),
            "pair/00002.png has object id 3, the first annotation of pair has ids up to 2",
        ),
        (lambda path: Image.new("RGB", (96, 72)).save(path), "pair/00002.png is a RGB picture"),
        (lambda path: path.write_bytes(b"no"), "pair/00002.png is no PNG"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_by_its_file(data, copies, damage, words):
    damage(copies / "pair/00002.png")
    with pytest.raises(BadInput, match=words):
        score_folder(data, copies, lambda frames: None)


def test_a_sequence_without_masks_is_refused_with_what_to_do(data, tmp_path):
    with pytest.raises(BadInput, match=r"pair/00001.png is missing, .*pair is no folder; .*leave sequences out with --sequences"):
        score_folder(data, tmp_path, lambda frames: None)


# -- the CSVs of the official scorer ----------------------------------------------------------------------------------


def test_the_csvs_have_the_official_names_columns_and_decimals(tmp_path):
    davis, answers = write_toy_run(tmp_path)
    write_csvs(answers, score_folder(davis, answers, lambda frames: None))
    assert (answers / "global_results-val.csv").read_text() == (
        "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay\n0.770,0.794,0.800,0.220,0.746,0.650,0.161\n"
    )
    objects = "toy_1,0.589,0.492\ntoy_2,1.000,1.000\n"  # 0.4915, as the double it is
    assert (answers / "per-sequence_results-val.csv").read_text() == f"Sequence,J-Mean,F-Mean\n{objects}"


def test_numbers_are_computed_anew_where_csvs_lie_already(data, copies):
    for name in ("global_results-val.csv", "per-sequence_results-val.csv"):
        (copies / name).write_text("Sequence,J-Mean,F-Mean\nstale,1.000,1.000\n")
    write_csvs(copies, score_folder(data, copies, lambda frames: None))
    assert "stale" not in (copies / "global_results-val.csv").read_text() + (copies / "per-sequence_results-val.csv").read_text()


def test_a_decay_that_is_no_number_stays_empty(data, tmp_path):
    found = score_object(1, [0.5] * 300, [0.5] * 300)  # the official edges wrap: the last quarter is empty
    results = Results(dataset_of(data), {}, (SequenceResult("long", ("",) * 302, average([found])),))
    write_csvs(tmp_path, results)
    assert (tmp_path / "global_results-val.csv").read_text().splitlines()[1] == "0.500,0.500,0.000,,0.500,0.000,"
    write_results(tmp_path, results)
    scores = json.loads((tmp_path / "results.json").read_text())["scores"]
    assert (scores["J-Decay"], scores["J-Decay-corrected"]) == (None, 0.0)


# -- results.json -----------------------------------------------------------------------------------------------------


def test_results_come_back_as_they_were_written(data, copies):
    run = SequenceRun(1.5, "ab", ("ok",) * 6, {1: ("seen",) * 5 + ("absent",)}, {"model": (1.25,) * 6})
    results = score_folder(data, copies, lambda frames: None)
    results = replace(results, method={"policy": "honest"}, sequences=(results.sequences[0], replace(results.sequences[1], run=run)))
    write_results(copies, results)
    found = read_results(copies)
    assert (found.dataset, found.method, found.remarks) == (results.dataset, results.method, results.remarks)
    for mine, theirs in zip(found.sequences, results.sequences, strict=True):
        assert (mine.name, mine.frames, mine.run) == (theirs.name, theirs.frames, theirs.run)
        assert [o.j_frames.tolist() for o in mine.score.objects] == [o.j_frames.tolist() for o in theirs.score.objects]
        assert (mine.score.j, mine.score.f) == (theirs.score.j, theirs.score.f)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "dataset": {}, "method": {}, "sequences": [{}]}'])
def test_a_results_json_that_is_not_ours_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(BadInput, match=r"results.json is not a result of `eval davis` or `score davis` .*name another folder, with --out"):
        read_results(tmp_path)


def test_a_folder_without_results_has_none(tmp_path):
    assert read_results(tmp_path) is None


ABOUT = {"root": "d", "layout": 2017, "set": "val", "listed": 1, "limit": None}


@pytest.mark.parametrize(
    ("dataset", "method", "frames", "words"),
    [
        ({"layout": 2016}, {"policy": "honest"}, 9, "Scored by the rules of the DAVIS-2017 evaluation"),
        ({}, {"policy": "official"}, 9, "oracle visibility"),
        ({"limit": 9}, {"policy": "honest"}, 9, "Only the first 9 frames"),
        ({"listed": 30}, {"policy": "honest"}, 9, "1 of the 30 sequences of set val"),
        ({}, {"policy": "honest", "weights": "nano"}, 9, "shipped for trying things out"),
        ({}, {"policy": "honest", "bus": "kafka://h:1"}, 9, "as these were started"),
        ({}, {"policy": "honest", "weights_digest": "1f-rounded-fusion-not-used"}, 9, FUSION_NOT_USED),
        ({}, {}, 9, "how they were made is not known"),
        ({}, {"policy": "honest"}, 259, "official decay keeps its quarter edges in 8 bits"),
    ],
)
def test_what_must_be_known_to_compare_the_numbers_is_said(dataset, method, frames, words):
    found = score_object(1, [0.5] * (frames - 2), [0.5] * (frames - 2))
    results = Results(ABOUT | dataset, method, (SequenceResult("a", ("",) * frames, average([found])),))
    (remark,) = results.remarks
    assert words in remark


def test_a_whole_honest_run_needs_no_remark():
    found = SequenceResult("a", ("",) * 258, average([score_object(1, [0.5] * 256, [0.5] * 256)]))
    assert Results(ABOUT, {"policy": "honest"}, (found,)).remarks == []

"""`psalm-stream score refcoco|grefcoco|interactive|panoptic|semantic|instance`: files in, the right figures out, clean refusals."""

import json

import numpy as np
import pytest
from PIL import Image
from psalm_stream.stream import rle
from psalm_stream.stream.coco import ids_to_rgb, rle_json, segments_info
from psalm_stream.workers.cli.app import app
from typer.testing import CliRunner

SIZE_HW = (4, 8)


@pytest.fixture
def score(tmp_path):
    """Run `score WHAT FILES...` in the test's folder; returns exit code and output."""

    def call(what, *arguments):
        result = CliRunner().invoke(app, ["score", what, *(str(tmp_path / a) if "." in a else a for a in arguments)])
        return result.exit_code, result.output

    return call


def block(columns):
    mask = np.zeros(SIZE_HW, bool)
    mask[:, slice(*columns)] = True
    return mask


def run_length(columns):
    return rle_json(rle.encode(block(columns)))


def write_lines(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def expressions(folder):
    """Three expressions: half found; nothing there and nothing answered; nothing there and something answered."""
    truth = [run_length((0, 4)), None, None]
    answers = [run_length((2, 4)), None, run_length((0, 1))]
    write_lines(folder / "gt.jsonl", *({"id": n, "size": SIZE_HW, "segmentation": s} for n, s in enumerate(truth)))
    write_lines(folder / "answers.jsonl", *({"id": n, "segmentation": s} for n, s in enumerate(answers)))


@pytest.mark.parametrize(
    ("what", "figures"),
    [
        ("refcoco", {"cIoU": "40.00", "gIoU": "50.00"}),
        ("grefcoco", {"cIoU": "40.00", "gIoU": "50.00", "N-acc.": "50.00", "T-acc.": "100.00"}),
    ],
)
def test_expressions_are_scored(tmp_path, score, what, figures):
    expressions(tmp_path)
    code, said = score(what, "gt.jsonl", "answers.jsonl")
    assert code == 0, said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.split() and line.split()[0] in figures}
    assert rows == {name: [figure, figure] for name, figure in figures.items()}
    assert "3 samples, 2 without a target" in said


def test_regions_are_scored_by_the_truth_of_the_padded_square(tmp_path, score):
    write_lines(tmp_path / "gt.jsonl", {"id": 1, "size": SIZE_HW, "segmentation": run_length((0, 3))})
    write_lines(tmp_path / "answers.jsonl", {"id": 1, "segmentation": run_length((0, 3))})
    code, said = score("interactive", "gt.jsonl", "answers.jsonl", "--json", "--side", "64")
    assert code == 0, said
    assert json.loads(said)["corrected"]["ciou"] == 1.0
    assert json.loads(said)["official"]["samples"] == 1


def panoptic(folder, name, ids, category_ids):
    (folder / name).mkdir()
    Image.fromarray(ids_to_rgb(np.array(ids, np.int32))).save(folder / name / "a.png")
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": segments_info(np.array(ids), category_ids)}
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
    document = {"images": [{"id": 1}], "annotations": [annotation], "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(document))
    return document


def test_panoptic_files_are_scored_by_things_and_stuff(tmp_path, score):
    panoptic(tmp_path, "gt", [[300, 300, 300, 300, 2, 2, 2, 2]], {300: 1, 2: 2})
    panoptic(tmp_path, "answers", [[7, 7, 7, 0, 9, 9, 9, 9]], {7: 1, 9: 2})
    code, said = score("panoptic", "gt.json", "answers.json", "--per-category")
    assert code == 0, said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.split()}
    assert rows["all"] == ["87.50", "87.50", "100.00", "2", "87.50"]
    assert rows["things"][:1] == ["75.00"]
    assert rows["stuff"][:1] == ["100.00"]
    assert rows["person"] == ["75.00", "75.00", "100.00", "1", "0", "0"]
    figures = json.loads(score("panoptic", "gt.json", "answers.json", "--json")[1])
    assert (figures["official"]["things"]["pq"], figures["pictures"]) == (0.75, 1)


def spoilt(document, spoil):
    spoil(document["annotations"][0])
    return document


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: a.update(image_id=5), "lacks 1 of 1 pictures, the first is 1"),
        (lambda a: a["segments_info"].pop(), "its PNG has id 9, which segments_info does not list"),
        (lambda a: a["segments_info"].append({"id": 8, "category_id": 1}), "lists id 8, which no pixel of its PNG has"),
        (lambda a: a["segments_info"][0].update(category_id=77), "segment 7 has the unknown category 77"),
        (lambda a: a["segments_info"][0].pop("id"), "expected segments_info with id and category_id"),
        (lambda a: a.update(file_name="b.png"), "b.png cannot be read"),
        (lambda a: a.pop("file_name"), "picture 1: file_name is None, expected the name of its PNG"),
        (lambda a: a.pop("image_id"), "no annotations with image_id"),
    ],
)
def test_panoptic_answers_that_do_not_fit_are_refused(tmp_path, score, spoil, said):
    panoptic(tmp_path, "gt", [[1, 1, 2, 2]], {1: 1, 2: 2})
    document = panoptic(tmp_path, "answers", [[7, 7, 9, 9]], {7: 1, 9: 2})
    (tmp_path / "answers.json").write_text(json.dumps(spoilt(document, spoil)))
    code, output = score("panoptic", "gt.json", "answers.json")
    assert code == 2
    assert said in " ".join(output.split())


def test_semantic_folders_are_scored(tmp_path, score):
    for name, values in (("gt.d", [[0, 0, 1, 255]]), ("answers.d", [[0, 1, 1, 0]])):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / name / "a.png")
    code, said = score("semantic", "gt.d", "answers.d", "--categories", "3", "--json")
    assert code == 0, said
    assert json.loads(said)["mIoU"] == 0.5
    assert "3 pixels, 2 of 3 categories" in score("semantic", "gt.d", "answers.d", "--categories", "3")[1]


def instances(folder, scores):
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 80}
    mask = np.zeros((40, 80), bool)
    mask[:, :40] = True
    truth = rle_json(rle.encode(mask))
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": truth, "area": 1600, "bbox": [0, 0, 40, 40], "iscrowd": 0}
    document = {"info": {}, "images": [image], "annotations": [annotation], "categories": [{"id": 3, "name": "cat"}]}
    (folder / "gt.json").write_text(json.dumps(document))
    mask[:, 36:40] = False  # an IoU of 0.9
    wrong = rle_json(rle.encode(~mask))
    results = [
        {"image_id": 1, "category_id": 3, "segmentation": s, "score": p}
        for s, p in zip((rle_json(rle.encode(mask)), wrong), scores, strict=True)
    ]
    (folder / "answers.json").write_text(json.dumps(results))


@pytest.mark.parametrize(("scores", "ap"), [((0.9, 0.1), 0.9), ((0.1, 0.9), 0.45)])
def test_instances_have_cocos_average_precision(tmp_path, score, scores, ap):
    instances(tmp_path, scores)
    code, said = score("instance", "gt.json", "answers.json", "--json")
    assert code == 0, said
    # right at the nine thresholds up to 0.90; as the second answer with a precision of 1/2
    assert json.loads(said)["AP"] == pytest.approx(ap, abs=1e-6)


def test_no_instance_at_all_is_zero(tmp_path, score):
    instances(tmp_path, (0.9, 0.1))
    (tmp_path / "answers.json").write_text("[]")
    assert json.loads(score("instance", "gt.json", "answers.json", "--json")[1])["AP"] == 0.0


@pytest.mark.parametrize(
    ("what", "arguments", "said"),
    [
        ("refcoco", ("gt.jsonl", "none.jsonl"), "none.jsonl cannot be read"),
        ("refcoco", ("none.json", "answers.jsonl"), "none.json does not exist"),
        ("panoptic", ("none.json", "none.json"), "none.json does not exist"),
        ("semantic", ("none.d", "none.d", "--categories", "2"), "holds no *.png"),
        ("instance", ("gt.jsonl", "none.json"), "none.json does not exist"),
    ],
)
def test_files_that_are_not_there_are_named(tmp_path, score, what, arguments, said):
    expressions(tmp_path)
    code, output = score(what, *arguments)
    assert code == 2
    assert said in " ".join(output.split())

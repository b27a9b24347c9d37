"""`psalm-stream eval refcoco|grefcoco|interactive`: a benchmark's questions asked, answered, resumed and scored."""

import json

import numpy as np
import pytest
from looker import ColourLooker
from psalm_stream.eval.pictures.asking import Asking, ask, askable, done_before
from psalm_stream.eval.pictures.drawn import EXPRESSIONS, PANOPTIC, PICTURES, SHAPES, draw_picture, prompts_of, write_benchmark
from psalm_stream.eval.pictures.panoptic_files import PanopticFiles, score_panoptic
from psalm_stream.eval.pictures.referring_files import Question, mask_of, read_questions
from psalm_stream.eval.pictures.table import main as print_table
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json
from psalm_stream.stream.errors import BadInput
from psalm_stream.workers.cli.app import app
from scene import SIZE_HW, picture
from scene import mask_of as object_mask
from typer.testing import CliRunner


@pytest.fixture
def pictures(tmp_path):
    """Two pictures: objects 1 and 2, and all three further right."""
    (tmp_path / "pictures").mkdir()
    for name, data in (("a.png", picture(0)), ("b.png", picture(3, (1, 2, 3)))):
        (tmp_path / "pictures" / name).write_bytes(data)
    return tmp_path / "pictures"


def question(name, image, sentences=(), **prompts):
    return Question(name, image, SIZE_HW, sentences, (), {kind: rle_json(rle.encode(mask)) for kind, mask in prompts.items()})


def answers(questions, asking, model=None):
    return {a.id: a.mask for a in ask(questions, asking, model or ColourLooker())}


def one_pixel(x, y):
    mask = np.zeros(SIZE_HW, bool)
    mask[y, x] = True
    return mask


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_sentence_is_answered_by_the_best_proposal_on_its_own_picture(pictures):
    found = answers([question("1", "a.png", ("the green one",)), question("2", "b.png", ("the blue one",))], Asking(pictures))
    assert np.array_equal(found["1"], object_mask(2, 0))
    assert np.array_equal(found["2"], object_mask(3, 3))


def test_all_sentences_of_a_question_are_asked_at_once(pictures):
    found = answers([question("1", "a.png", ("the red one", "the green one"))], Asking(pictures, generalized=True))
    assert np.array_equal(found["1"], object_mask(1, 0) | object_mask(2, 0))


@pytest.mark.parametrize(("official", "pixels"), [(False, 0), (True, 24 * 18)])
def test_where_nothing_is_sure_a_generalized_answer_is_nothing_unless_official(pictures, official, pixels):
    found = answers([question("1", "a.png", ("the purple one",))], Asking(pictures, generalized=True, official=official))
    assert found["1"].sum() == pixels


@pytest.mark.parametrize("kind", ["point", "scribble", "box", "mask"])
def test_a_drawn_shape_is_answered_by_what_is_under_it(pictures, kind):
    drawn = prompts_of(object_mask(2, 3))[kind]
    questions = [question("1", "b.png", **{kind: drawn}), question("2", "b.png", **{kind: prompts_of(object_mask(3, 3))[kind]})]
    found = answers(questions, Asking(pictures, kind))
    assert np.array_equal(found["1"], object_mask(2, 3))
    assert np.array_equal(found["2"], object_mask(3, 3))


def test_all_regions_of_a_picture_are_asked_together(pictures):
    model = ColourLooker()
    points = {"1": ("a.png", one_pixel(18, 13)), "2": ("a.png", one_pixel(18, 35)), "3": ("b.png", one_pixel(24, 13))}
    answers([question(name, image, point=mask) for name, (image, mask) in points.items()], Asking(pictures, "point"), model)
    assert model.asked == ["a.png", "b.png"]


def test_a_picture_is_asked_all_its_questions_at_once_in_their_order(pictures):
    questions = [
        question(name, image, ("the red one",))
        for name, image in zip("123456", ("b.png", "a.png", "b.png", "a.png", "a.png", "b.png"), strict=True)
    ]
    model = ColourLooker()
    ordered = askable(questions, Asking(pictures))
    assert [q.id for q in ordered] == ["1", "3", "6", "2", "4", "5"]
    found = answers(ordered, Asking(pictures), model)
    assert model.batches == [3, 3]
    assert np.array_equal(found["5"], object_mask(1, 0))


def test_regions_without_the_shape_are_left_out(pictures):
    questions = [
        question("1", "a.png", box=object_mask(1, 0)),
        question("2", "a.png", point=one_pixel(1, 1)),
        question("3", "a.png", box=one_pixel(1, 1) & False),
    ]
    assert [q.id for q in askable(questions, Asking(pictures, "box"))] == ["1"]


@pytest.mark.parametrize(
    ("questions", "asking", "said"),
    [
        ([question("1", "a.png", box=object_mask(1, 0))], {"prompt": "point"}, "none of 1 questions has a point prompt"),
        ([question("1", "a.png")], {}, "none of 1 questions has sentences"),
        ([question("1", "c.png", ("x",))], {}, "lacks 1 pictures that are asked about, the first is c.png"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(pictures, questions, asking, said):
    with pytest.raises(BadInput, match=said):
        askable(questions, Asking(pictures, **asking))


def test_a_question_about_a_picture_of_another_size_is_refused(pictures):
    with pytest.raises(BadInput, match=r"question 1 is about a picture of \(4, 4\)"):
        answers([Question("1", "a.png", (4, 4), ("the red one",))], Asking(pictures))


def test_a_picture_counts_as_done_when_all_of_its_questions_are_answered(tmp_path):
    questions = [question("1", "a.png"), question("2", "a.png"), question("3", "b.png")]
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id":"1","segmentation":null}\n{"id":"3","segmentation":null}\n{"id":"2","segm')
    assert done_before(path, questions) == {"3"}
    assert path.read_text() == '{"id":"3","segmentation":null}\n'
    assert done_before(tmp_path / "none.jsonl", questions) == set()


@pytest.mark.parametrize("garbage", ["no JSON", "[]", "7", '{"id":"2"}', '{"segmentation":null}', "\x00\x00", ""])
def test_a_line_that_is_no_answer_is_asked_again(garbage, tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(f'{{"id":"1","segmentation":null}}\n{garbage}\n')
    assert done_before(path, [question("1", "a.png"), question("2", "b.png")]) == {"1"}
    assert path.read_text() == '{"id":"1","segmentation":null}\n'


# -- the drawn benchmark -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Two drawn pictures and all that is true of them."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_benchmark(folder, 2)
    return folder


def test_a_picture_is_always_drawn_the_same():
    assert np.array_equal(draw_picture(4).image, draw_picture(4).image)


def test_every_drawn_shape_lies_on_its_object(benchmark):
    for asked in read_questions(benchmark / SHAPES):
        truth = mask_of(asked.segmentations[0], asked.size_hw)
        shapes = {kind: mask_of(prompt, asked.size_hw) for kind, prompt in asked.prompts.items()}
        assert shapes["point"].sum() == 1
        assert (shapes["point"] & ~truth).sum() == 0
        assert (shapes["scribble"] & truth).any()
        assert (truth & ~shapes["box"]).sum() == 0
        assert (shapes["mask"] & truth).sum() > truth.sum() / 2


def test_the_drawn_panoptic_truth_scores_full_marks_against_itself(benchmark):
    truth = PanopticFiles(benchmark / f"{PANOPTIC}.json")
    score = score_panoptic(truth, truth)
    assert score.quality().pq == 1.0
    assert sum(t.matched for t in score.official.values()) > 0


# -- the commands, with nano -------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(benchmark, tmp_path):
    """Run `eval WHAT` on the drawn benchmark; returns exit code, what it said, and the results folder."""

    def call(what, *arguments):
        truth = SHAPES if what == "interactive" else EXPRESSIONS
        result = CliRunner().invoke(
            app, ["eval", what, str(benchmark / truth), str(benchmark / PICTURES), "--out", str(tmp_path / "out"), *arguments]
        )
        return result.exit_code, " ".join(result.output.split()), tmp_path / "out"

    return call


@pytest.mark.parametrize(
    ("what", "arguments", "figures"),
    [
        ("refcoco", (), ("cIoU", "gIoU")),
        ("grefcoco", ("--policy", "official"), ("cIoU", "gIoU", "N-acc.", "T-acc. 100.00 100.00")),
        ("interactive", ("--prompt", "box"), ("cIoU", "gIoU")),
    ],
)
def test_the_commands_answer_and_score_every_question(evaluate, benchmark, what, arguments, figures):
    code, said, out = evaluate(what, *arguments)
    assert code == 0, said
    assert all(figure in said for figure in figures)
    questions = read_questions(benchmark / (SHAPES if what == "interactive" else EXPRESSIONS))
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [q.id for q in questions]
    assert json.loads((out / "scores.json").read_text())["corrected"]["samples"] == len(questions)


def test_the_record_of_an_evaluation_holds_no_password(evaluate, monkeypatch):
    monkeypatch.setenv("PSALM_REDIS", "redis://worker:hush-hush@localhost:6379/0")
    code, said, out = evaluate("refcoco", "--limit", "1")
    assert code == 0, said
    record = (out / "run.json").read_text()
    assert '"weights": "nano"' in record
    assert "hush-hush" not in record


def test_an_interrupted_evaluation_goes_on_to_the_same_answers(evaluate):
    _, whole, out = evaluate("interactive")
    predictions = (out / "predictions.jsonl").read_text()
    (out / "predictions.jsonl").write_text(predictions[: len(predictions) // 2])
    code, said, _ = evaluate("interactive")
    assert (code, (out / "predictions.jsonl").read_text()) == (0, predictions)
    assert said.split("gIoU")[1] == whole.split("gIoU")[1]


def test_a_folder_of_another_evaluation_is_refused(evaluate):
    evaluate("interactive", "--limit", "1")
    for arguments in (("--limit", "1", "--prompt", "box"), ("--limit", "2"), ("--limit", "1", "--policy", "official")):
        code, said, _ = evaluate("interactive", *arguments)
        assert (code, "was made with other" in said) == (2, True)


def test_the_table_of_the_model_card_has_a_row_for_every_way(capsys):
    print_table(pictures=1)
    said = capsys.readouterr().out
    assert all(way in said for way in ("point (", "scribble (", "box (", "mask (", "sentence (", "categories, PQ"))

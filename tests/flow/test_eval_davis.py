"""`psalm-stream eval davis`: the masks of `run`, an oracle for one policy alone, what an interrupted evaluation keeps, what it refuses."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from davis_folder import davis_2016, davis_2017
from PIL import Image
from psalm_stream.eval.davis.evaluation import Evaluation, clear, evaluate, finished, score_folder
from psalm_stream.eval.davis.layout import open_davis
from psalm_stream.eval.davis.page import write_report
from psalm_stream.eval.davis.results import dataset_of, read_results, write_results
from psalm_stream.eval.davis.tracking import embedded_tracker, method_of, rules_for
from psalm_stream.stream.errors import BadConfig, BadInput
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.settings import Settings
from scene import ColourSegmenter, mask_of
from typer.testing import CliRunner

HONEST, OFFICIAL = Settings(policy="honest"), Settings(policy="official")


@pytest.fixture
def root(tmp_path):
    return davis_2017(tmp_path / "davis")


def evaluation(root, out, settings=HONEST, model=None, **asked):
    model = model or ColourSegmenter()
    davis = open_davis(root, asked.get("set_name", "val"), asked.get("names", ()), asked.get("limit"))
    return Evaluation(davis, out, embedded_tracker(model, settings), method_of(settings, model.digest))


def run_whole(job, overwrite=False, advance=lambda frames: None):
    """All results of an evaluation, by sequence, and which of them were there before."""
    found = list(evaluate(job, finished(job.out, overwrite), advance))
    return {result.name: result for result, _ in found}, [result.name for result, kept in found if kept]


def masks(folder, name, frames=6):
    return np.array([np.array(Image.open(folder / name / f"{index:05d}.png")) for index in range(frames)])


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def said(result):
    return " ".join(result.stderr.split())


# -- the masks --------------------------------------------------------------------------------------------------------


def test_masks_scores_and_times_of_every_sequence_are_there(root, tmp_path):
    results, _ = run_whole(evaluation(root, tmp_path / "out"))
    np.testing.assert_array_equal(masks(tmp_path / "out", "pair")[0] == 2, mask_of(2, 0))
    with Image.open(tmp_path / "out/pair/00000.png") as first:
        assert first.mode == "P"
    assert min(result.score.jf for result in results.values()) > 0.95
    run = results["pair"].run
    assert run.statuses == ("ok",) * 6
    assert set(run.objects) == {1, 2}
    assert set(run.ms) == {"read", "decode", "plan", "model", "settle", "write"}
    assert all(len(times) == 6 for times in run.ms.values())


def test_the_command_gives_the_masks_of_run_to_the_pixel_and_every_answer_of_it(root, tmp_path):
    first, pictures = root / "Annotations/480p/pair/00000.png", root / "JPEGImages/480p/pair"
    evaluated = command("eval", "davis", root, "--out", tmp_path / "eval", "--sequences", "pair", "--quiet")
    ran = command("run", pictures, "--out", tmp_path / "run", "--mask", first, "--no-overlay", "--quiet")
    assert (evaluated.exit_code, ran.exit_code) == (0, 0)
    np.testing.assert_array_equal(masks(tmp_path / "eval", "pair"), masks(tmp_path / "run", "masks"))
    (sequence,) = json.loads((tmp_path / "eval/results.json").read_text())["sequences"]
    assert sequence["run"]["answers_sha256"] == json.loads((tmp_path / "run/run.json").read_text())["answers_sha256"]


def test_policy_honest_answers_alike_whatever_the_later_annotations_say(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "before"))
    for path in root.glob("Annotations/480p/*/*.png"):
        if path.stem != "00000":
            Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    run_whole(evaluation(root, tmp_path / "after"))
    for name in ("pair", "single"):
        np.testing.assert_array_equal(masks(tmp_path / "before", name), masks(tmp_path / "after", name))


def test_policy_official_answers_the_objects_that_the_annotations_show(root, tmp_path):
    for index in (3, 4):
        path = root / f"Annotations/480p/pair/{index:05d}.png"
        labels = np.array(Image.open(path))
        Image.fromarray(np.where(labels == 2, 0, labels).astype(np.uint8)).save(path)
    run_whole(evaluation(root, tmp_path / "out", OFFICIAL))
    answered = [set(np.unique(labels)) - {0} for labels in masks(tmp_path / "out", "pair")]
    assert answered == [{1, 2}, {1, 2}, {1, 2}, {1}, {1}, {1, 2}]


def test_an_oracle_is_made_for_policy_official_alone(root):
    sequence = open_davis(root).sequences[0]
    assert rules_for(sequence, HONEST).oracle is None
    assert rules_for(sequence, OFFICIAL).oracle == dict.fromkeys(range(6), (1, 2))


def test_two_objects_of_a_2016_annotation_are_followed_and_scored_as_one(tmp_path):
    results, _ = run_whole(evaluation(davis_2016(tmp_path / "davis"), tmp_path / "out"))
    assert [o.object_id for o in results["pair"].score.objects] == [1]
    np.testing.assert_array_equal(np.unique(masks(tmp_path / "out", "pair")), [0, 1])


def test_a_first_annotation_without_objects_is_refused(root, tmp_path):
    Image.new("L", (96, 72)).save(root / "Annotations/480p/pair/00000.png")
    with pytest.raises(BadInput, match=r"sequence pair: .*00000.png shows no object"):
        run_whole(evaluation(root, tmp_path / "out"))


# -- what an earlier call left ----------------------------------------------------------------------------------------


class Interrupted(ColourSegmenter):
    """Stopped by its user after some frames; a sequence has 6."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def segment(self, requests):
        if len(self.batches) == self.after:
            raise KeyboardInterrupt
        return super().segment(requests)


@pytest.mark.parametrize(("after", "done"), [(2, []), (8, ["pair"])])
def test_an_interrupted_evaluation_goes_on_with_what_is_not_finished(root, tmp_path, after, done):
    with pytest.raises(KeyboardInterrupt):
        run_whole(evaluation(root, tmp_path / "out", model=Interrupted(after)))
    assert [s.name for s in read_results(tmp_path / "out").sequences] == done
    again = ColourSegmenter()
    results, kept = run_whole(evaluation(root, tmp_path / "out", model=again))
    assert (kept, len(again.batches)) == (done, 12 - 6 * len(done))
    run_whole(evaluation(root, tmp_path / "undisturbed"))
    for name in ("pair", "single"):
        np.testing.assert_array_equal(masks(tmp_path / "out", name), masks(tmp_path / "undisturbed", name))
    assert results["pair"].run.answers_sha256 == read_results(tmp_path / "undisturbed").sequences[0].run.answers_sha256


def test_a_finished_sequence_that_lacks_a_mask_is_followed_again(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    (tmp_path / "out/single/00003.png").unlink()
    _, kept = run_whole(evaluation(root, tmp_path / "out"))
    assert kept == ["pair"]
    assert masks(tmp_path / "out", "single").any()


def test_a_finished_sequence_is_followed_again_when_other_objects_are_annotated(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    for path in root.glob("Annotations/480p/pair/*.png"):
        Image.fromarray((np.array(Image.open(path)) == 1).astype(np.uint8)).save(path)
    _, kept = run_whole(evaluation(root, tmp_path / "out"))
    assert kept == ["single"]
    np.testing.assert_array_equal(np.unique(masks(tmp_path / "out", "pair")), [0, 1])


def test_scores_of_earlier_masks_are_gone_while_new_ones_are_made(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    for name in ("report.html", "global_results-val.csv", "per-sequence_results-val.csv"):
        (tmp_path / "out" / name).write_text("")
    (tmp_path / "out/single/00003.png").unlink()
    with pytest.raises(KeyboardInterrupt):
        run_whole(evaluation(root, tmp_path / "out", model=Interrupted(2)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["pair", "results.json", "single"]


def test_what_is_kept_is_scored_anew(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    for path in (tmp_path / "out/single").glob("*.png"):
        Image.fromarray(np.zeros((72, 96), np.uint8)).save(path)
    results, _ = run_whole(evaluation(root, tmp_path / "out"))
    assert results["single"].score.j.mean == 0


class OtherWeights(ColourSegmenter):
    digest = "other"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"settings": OFFICIAL}, "policy is honest there and official here"),
        ({"settings": Settings(policy="honest", motion="off")}, "motion is on there and off here"),
        ({"model": OtherWeights()}, "weights_digest is colour there and other here"),
        ({"limit": 4}, "limit is None there and 4 here"),
    ],
)
def test_results_of_another_evaluation_are_never_mixed_in(root, tmp_path, other, words):
    run_whole(evaluation(root, tmp_path / "out"))
    with pytest.raises(BadConfig, match=rf"holds results of another evaluation: .*{words}.*--overwrite"):
        run_whole(evaluation(root, tmp_path / "out", **other))


def test_results_of_another_evaluation_are_replaced_when_asked(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    (tmp_path / "out/notes.txt").write_text("mine")
    job = evaluation(root, tmp_path / "out", OFFICIAL, names=["single"])
    clear(job.out, job.davis)
    run_whole(job, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["notes.txt", "pair", "results.json", "single"]
    assert not list((tmp_path / "out/pair").iterdir())
    assert [s.name for s in read_results(tmp_path / "out").sequences] == ["single"]


def test_a_folder_that_holds_something_else_is_left_alone(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(BadConfig, match="out is not empty; choose another folder"):
        finished(tmp_path / "out", overwrite=False)


def test_scores_of_masks_made_elsewhere_are_not_gone_on_with(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    foreign = replace(read_results(tmp_path / "out"), method={})
    write_results(tmp_path / "out", foreign)
    with pytest.raises(BadConfig, match="holds scores of masks that were made elsewhere"):
        run_whole(evaluation(root, tmp_path / "out"))


def test_an_answer_by_other_weights_ends_the_evaluation(root, tmp_path):
    job = evaluation(root, tmp_path / "out")

    def two_workers(sequence):
        for frame, answer in job.track(sequence):
            yield frame, replace(answer, model="others") if frame.key.index == 4 else answer

    with pytest.raises(BadConfig, match="sequence pair: frame 4 was answered by weights others, those before by colour"):
        run_whole(replace(job, track=two_workers))


def test_weights_that_are_not_known_beforehand_are_those_of_the_first_answer(root, tmp_path):
    def unknown(model, **asked):
        job = evaluation(root, tmp_path / "out", model=model, **asked)
        return replace(job, method={**job.method, "weights_digest": None})

    run_whole(unknown(ColourSegmenter(), names=["single"]))
    assert read_results(tmp_path / "out").method["weights_digest"] == "colour"
    with pytest.raises(BadConfig, match="sequence pair: frame 0 was answered by weights other, those before by colour"):
        run_whole(unknown(OtherWeights()))


def test_a_frame_without_an_answer_ends_the_evaluation(root, tmp_path):
    job = evaluation(root, tmp_path / "out")
    with pytest.raises(BadInput, match="sequence pair: 5 answers for 6 frames"):
        run_whole(replace(job, track=lambda sequence: list(job.track(sequence))[:5]))


def test_scoring_the_folder_again_keeps_what_is_known_of_its_making(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    before = read_results(tmp_path / "out")
    again = score_folder(open_davis(root), tmp_path / "out", lambda frames: None)
    assert again.method == before.method
    assert [s.run for s in again.sequences] == [s.run for s in before.sequences]


# -- the page ---------------------------------------------------------------------------------------------------------


def page_of(job, **changes):
    results, _ = run_whole(job)
    made = read_results(job.out)
    write_report(job.out, replace(made, sequences=tuple(results.values()), **changes), job.davis)
    return (job.out / "report.html").read_text()


def test_the_page_needs_no_other_file_and_shows_every_sequence(root, tmp_path):
    page = page_of(evaluation(root, tmp_path / "out"))
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [s for s in sources if not s.startswith(("data:image/jpeg;base64,", "#"))] == []
    assert "url(" not in page
    assert [page.count(f'id="{name}"') for name in ("pair", "single")] == [1, 1]
    assert page.count("<img ") == 6
    assert page.count('class="chart"') == 3  # one an object
    assert all(f"<td>{stage}</td>" in page for stage in ("read", "decode", "plan", "model", "settle", "write"))


@pytest.mark.parametrize(("settings", "said"), [(HONEST, False), (OFFICIAL, True)])
def test_the_page_says_when_an_oracle_was_asked(root, tmp_path, settings, said):
    assert ("oracle visibility" in page_of(evaluation(root, tmp_path / "out", settings))) == said


def test_the_page_of_2016_annotations_says_by_which_rules_they_were_scored(tmp_path):
    page = page_of(evaluation(davis_2016(tmp_path / "davis"), tmp_path / "out"))
    assert "Scored by the rules of the DAVIS-2017 evaluation" in page


def test_names_in_the_page_are_text_and_no_markup(root, tmp_path):
    job = evaluation(root, tmp_path / "out")
    page = page_of(job, method={**job.method, "weights": "<script>alert(1)</script>"})
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_masks_are_scored_and_shown_without_pictures(root, tmp_path):
    job = evaluation(root, tmp_path / "out")
    run_whole(job)
    for path in root.glob("JPEGImages/480p/*/*"):
        path.unlink()
    results = score_folder(job.davis, job.out, lambda frames: None)
    write_report(job.out, results, job.davis)
    assert (job.out / "report.html").read_text().count("<img ") == 6


# -- the commands -----------------------------------------------------------------------------------------------------


def test_masks_of_any_method_are_scored_by_one_command(root, tmp_path):
    job = evaluation(root, tmp_path / "out")
    run_whole(job)
    (tmp_path / "out/results.json").unlink()
    result = command("score", "davis", root, tmp_path / "out")
    assert result.exit_code == 0
    assert "how they were made is not known here" in " ".join(result.stdout.split())
    names = {"pair", "single", "results.json", "report.html", "global_results-val.csv", "per-sequence_results-val.csv"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert dataset_of(job.davis) == json.loads((tmp_path / "out/results.json").read_text())["dataset"]


def test_the_csvs_are_there_although_the_report_cannot_be_written(root, tmp_path):
    run_whole(evaluation(root, tmp_path / "out"))
    (tmp_path / "out/report.html").mkdir()
    result = command("score", "davis", root, tmp_path / "out")
    assert (result.exit_code, "cannot be written" in said(result)) == (2, True)
    assert (tmp_path / "out/per-sequence_results-val.csv").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["score", "davis", "ROOT", "nowhere"], "RESULTS nowhere is no folder"),
        (["score", "davis", "nowhere", "ROOT"], "nowhere is no folder; give the one that holds JPEGImages"),
        (["eval", "davis", "ROOT", "--out", "OUT", "--sequences", "pear"], "sequence pear is not in"),
        (["eval", "davis", "ROOT", "--out", "ROOT"], "is not empty; choose another folder"),
        (["eval", "davis", "ROOT", "--out", "OUT", "--policy", "official", "--motion", "only"], "choose policy 'honest' for motion alone"),
        (
            ["eval", "davis", "ROOT", "--out", "OUT", "--bus", "kafka://h:1", "--policy", "official"],
            "the annotations' oracle, which does not",
        ),
        (
            ["eval", "davis", "ROOT", "--out", "OUT", "--bus", "kafka://h:1", "--weights", "nano"],
            "--weights is decided by the workers behind",
        ),
        (["eval", "davis", "ROOT", "--out", "OUT", "--bus", "redis://h:1"], "--bus is 'redis://h:1', expected kafka://HOST:PORT"),
        (["eval", "davis", "ROOT", "--out", "OUT", "--bus", "kafka://h"], "Kafka broker is 'h', expected HOST:PORT"),
    ],
)
def test_what_cannot_work_is_said_in_words_before_anything_is_made(root, tmp_path, words, expected):
    result = command(*({"ROOT": root, "OUT": tmp_path / "out"}.get(word, word) for word in words))
    assert result.exit_code == 2
    assert expected in said(result)
    assert not (tmp_path / "out").exists()

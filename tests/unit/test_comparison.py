"""Two results folders side by side: what is compared, what is refused, and what the page and the table say."""

from dataclasses import replace

import pytest
from davis_folder import davis_2016, davis_2017
from psalm_stream.eval.davis.comparison import compare, comparison_table, write_comparison
from psalm_stream.eval.davis.evaluation import score_folder
from psalm_stream.eval.davis.layout import open_davis
from psalm_stream.eval.davis.metrics import average
from psalm_stream.eval.davis.results import mask_path, read_results, write_results
from psalm_stream.eval.davis.scorer_bench import copy_first_masks
from psalm_stream.eval.davis.tracking import method_of
from psalm_stream.stream.errors import BadInput
from psalm_stream.stream.sinks import write_label_map
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.settings import Settings
from rich.console import Console
from typer.testing import CliRunner


def scored(davis, folder, method):
    write_results(folder, replace(score_folder(davis, folder, lambda frames: None), method=method))
    return folder


@pytest.fixture
def root(tmp_path):
    return davis_2017(tmp_path / "davis")


@pytest.fixture
def copies(root, tmp_path):
    """The first masks, copied."""
    davis = open_davis(root)
    copy_first_masks(davis, tmp_path / "copies")
    return scored(davis, tmp_path / "copies", method_of(Settings(weights="a"), "sha256:0"))


@pytest.fixture
def exact(root, tmp_path):
    """The truth, but for `pair`, which is lost from frame 2 on."""
    davis = open_davis(root)
    for sequence in davis.sequences:
        (tmp_path / "exact" / sequence.name).mkdir(parents=True)
        for index, frame in enumerate(sequence.frames):
            there = sequence.name != "pair" or index < 2
            write_label_map(mask_path(tmp_path / "exact", sequence.name, frame), sequence.true_map(index) * there)
    return scored(davis, tmp_path / "exact", method_of(Settings(weights="b"), "sha256:0"))


def shown(found):
    console = Console(width=120)
    with console.capture() as caught:
        console.print(comparison_table(found))
    return [line.split() for line in caught.get().splitlines() if line.strip()]


def test_every_object_is_compared_and_the_mean_over_all(copies, exact):
    found = compare(copies, exact)
    before, after = found.scores
    lines = shown(found)
    assert ["single", "1", *(f"{100 * s.jf:.1f}" for s in (found.pairs[1].one.score, found.pairs[1].two.score))] == lines[-2][:4]
    assert lines[-1][-3:] == [f"{100 * before.jf:.1f}", f"{100 * after.jf:.1f}", f"{100 * (after.jf - before.jf):+.1f}"]
    assert found.higher == (2, 1)


def test_equal_results_are_higher_on_nothing(copies):
    assert compare(copies, copies).higher == (0, 0)


def test_the_frame_shown_is_the_one_on_which_they_are_farthest_apart(copies, exact):
    assert compare(copies, exact).pairs[0].farthest == 2


def test_what_was_set_otherwise_is_told(copies, exact):
    assert compare(copies, exact).settings == [("weights", "a", "b")]


def test_a_sequence_that_only_one_has_is_left_out_and_named(copies, exact):
    found = read_results(exact)
    write_results(exact, replace(found, sequences=found.sequences[:1]))
    found = compare(copies, exact)
    assert ([pair.name for pair in found.pairs], found.unshared) == (["pair"], ("single",))


def test_a_sequence_without_objects_is_left_out(copies, exact):
    for folder in (copies, exact):
        pair, single = read_results(folder).sequences
        write_results(folder, replace(read_results(folder), sequences=(pair, replace(single, score=average([])))))
    found = compare(copies, exact)
    write_comparison(found, exact / "page.html", None)
    assert [pair.name for pair in found.pairs] == ["pair"]


def test_the_page_shows_both_masks_of_each_sequence(root, copies, exact, tmp_path):
    write_comparison(compare(copies, exact), tmp_path / "page.html", root)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 4
    assert "farthest apart on frame 00002" in page


def test_the_page_does_without_pictures_when_the_data_set_is_gone(copies, exact, tmp_path):
    write_comparison(compare(copies, exact), tmp_path / "page.html", None)
    assert "<img " not in (tmp_path / "page.html").read_text()


def test_folders_of_the_same_name_are_told_apart_by_their_paths(copies, tmp_path):
    other = copies.rename(tmp_path / "kept")
    (tmp_path / "copies").mkdir()
    twin = other.rename(tmp_path / "copies" / "kept")
    (tmp_path / "kept").mkdir()
    write_results(tmp_path / "kept", read_results(twin))
    assert compare(twin, tmp_path / "kept").names == (str(twin), str(tmp_path / "kept"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: replace(r, dataset={**r.dataset, "set": "train"}), "is of set val, .* of set train; compare results of one data set"),
        (lambda r: replace(r, sequences=()), "share no sequence with an object: pair, single there"),
        (
            lambda r: replace(r, sequences=tuple(replace(s, frames=s.frames[:4]) for s in r.sequences)),
            "pair has 6 frames and 2 objects in .*copies, 4 frames and 2 objects in .*; .* the same --limit",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(copies, exact, change, words):
    write_results(exact, change(read_results(exact)))
    with pytest.raises(BadInput, match=words):
        compare(copies, exact)


def test_a_folder_that_was_not_scored_is_refused_with_the_command_that_does_it(copies, tmp_path):
    with pytest.raises(BadInput, match=r"holds no results.json; score its masks first: psalm-stream score davis ROOT"):
        compare(copies, tmp_path)


def test_results_of_the_two_layouts_are_not_compared(copies, tmp_path):
    davis = open_davis(davis_2016(tmp_path / "davis16"))
    copy_first_masks(davis, tmp_path / "of16")
    with pytest.raises(BadInput, match=r"is of layout 2017, .* of layout 2016"):
        compare(copies, scored(davis, tmp_path / "of16", {}))


def test_the_command_prints_the_table_and_writes_the_page_into_the_second_folder(copies, exact):
    result = CliRunner().invoke(app, ["eval", "compare", str(copies), str(exact)])
    assert result.exit_code == 0
    assert "mean over objects" in result.stdout
    assert "weights: a | b" in result.stdout
    assert (exact / "compared-with-copies.html").read_text().count("<img ") == 4

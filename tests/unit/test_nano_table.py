"""The table of what each part is worth, on a tiny DAVIS folder drawn here."""

import csv
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from psalm_stream.eval.davis.nano_table import chosen_rows, main, plain_weights, random_weights, trained_weights
from psalm_stream.psalm.config import NAMED_CONFIGS, Extras
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.train.shipping import save_checkpoint, train_tokenizer
from psalm_stream.stream.errors import BadInput

SIZE_HW, FRAMES = (72, 96), 6


@pytest.fixture
def davis(tmp_path):
    """Two sequences of a textured square: it stays in `still`, and moves 4 px a frame to the right in `moving`."""
    random = np.random.default_rng(0)
    backdrop = cv2.GaussianBlur(random.integers(0, 256, (*SIZE_HW, 3), np.uint8), (0, 0), 2)
    square = cv2.GaussianBlur(random.integers(0, 256, (30, 30, 3), np.uint8), (0, 0), 1)
    for name, step in (("still", 0), ("moving", 4)):
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder / "480p" / name).mkdir(parents=True)
        for i in range(FRAMES):
            image, labels, x = backdrop.copy(), np.zeros(SIZE_HW, np.uint8), 20 + step * i
            image[20:50, x : x + 30], labels[20:50, x : x + 30] = square, 1
            cv2.imwrite(str(tmp_path / "JPEGImages/480p" / name / f"{i:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
            cv2.imwrite(str(tmp_path / "Annotations/480p" / name / f"{i:05d}.png"), labels)
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("still\nmoving\n")
    return tmp_path


def checkpoint(folder, extras):
    """A checkpoint of nano's sizes with random weights."""
    config = NAMED_CONFIGS["nano"]
    train_tokenizer(folder, config.phi.vocab_size)
    save_checkpoint(Psalm(replace(config, extras=extras)), folder)
    return str(folder)


def run(monkeypatch, *arguments):
    """Run the command as `python -m` does; returns its exit status."""
    monkeypatch.setattr("sys.argv", ["nano_table", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main()
    return leaving.value.code


def test_rows_without_weights_are_scored_and_written(davis, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--davis", davis, "--only", "copy,motion", "--out", tmp_path / "out") == 0
    with (tmp_path / "out/scores.csv").open() as file:
        scores = {(line["method"], line["sequence"]): line for line in csv.DictReader(file)}
    assert set(scores) == {(m, s) for m in ("copy", "motion") for s in ("still", "moving")}
    assert float(scores["copy", "still"]["J&F"]) == 1.0
    assert float(scores["copy", "moving"]["J"]) == pytest.approx(np.mean([(30 - 4 * i) / (30 + 4 * i) for i in range(1, FRAMES - 1)]))
    assert float(scores["motion", "moving"]["J"]) > float(scores["copy", "moving"]["J"])
    assert int(scores["motion", "moving"]["carried"]) == FRAMES - 1
    printed = capsys.readouterr().out
    assert re.search(r"motion alone - copy first mask: \+.* points J&F, higher on 1 of 2 sequences", printed)
    assert "12 frames of still, moving" in printed


def test_every_frame_is_in_the_json(davis, tmp_path, monkeypatch):
    run(monkeypatch, "--davis", davis, "--only", "motion", "--sequences", "moving", "--limit", 5, "--out", tmp_path / "out")
    (result,) = json.loads((tmp_path / "out/scores.json").read_text())["results"]
    assert (result["sequence"], result["frames"], len(result["objects"][0]["J"])) == ("moving", 5, 3)


def test_an_unknown_sequence_ends_with_an_error_that_names_the_known_ones(davis, monkeypatch, capsys):
    assert run(monkeypatch, "--davis", davis, "--sequences", "moving,stil") == 2
    assert "sequence stil is not in" in " ".join(capsys.readouterr().err.split())


def test_rows_are_run_in_table_order_and_unknown_ones_refused():
    assert [row.name for row in chosen_rows("both, copy")] == ["copy", "both"]
    with pytest.raises(BadInput, match="row bth is unknown, expected some of copy,motion,"):
        chosen_rows("copy,bth")


def test_switching_the_extras_off_leaves_a_plain_psalm_with_the_same_weights(tmp_path):
    weights = checkpoint(tmp_path, Extras(mask_prior=True, detail_pooling=True))
    trained, plain = trained_weights(weights), plain_weights(weights)
    assert plain.config == replace(trained.config, extras=Extras())
    assert plain.digest != trained.digest
    theirs = trained.network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in plain.network.state_dict().items())


def test_a_plain_psalm_has_no_row_without_extras(tmp_path):
    assert plain_weights(checkpoint(tmp_path, Extras())) is None


def test_random_weights_have_the_same_sizes_and_the_same_values_each_time(tmp_path):
    weights = checkpoint(tmp_path, Extras())
    first, second = random_weights(weights), random_weights(weights)
    assert first.config == trained_weights(weights).config
    assert torch.equal(first.network.seg_query, second.network.seg_query)
    assert not torch.equal(first.network.seg_query, trained_weights(weights).network.seg_query)


def test_an_error_in_a_later_row_still_shows_the_rows_before_it(davis, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--davis", davis, "--only", "copy,model", "--weights", tmp_path / "nothing", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert "copy first mask" in printed.out
    assert "error: weights" in printed.err

"""ObjectRelator's checkpoints: PSALM's tensors in them are loaded, its fusion alone is left out, and that is said wherever it matters."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from psalm_stream.eval.pictures.drawn import PICTURES, SHAPES, write_benchmark
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import is_loaded, to_official
from psalm_stream.psalm.weights import inspect, load
from psalm_stream.stream.errors import BadWeights
from psalm_stream.workers.cli.app import app
from tiny_checkpoint import CONFIG, Tensors, random_state, write, write_bin_shards, write_single
from typer.testing import CliRunner

FUSION = {
    "predictor.fuse_model.attention.weight": torch.ones(32, 32),
    "predictor.fuse_model.attention.bias": torch.ones(32),
    "predictor.fuse_model.mix": torch.ones(()),
}


@pytest.fixture
def state() -> Tensors:
    """What is written of PSALM, under our names."""
    return random_state(CONFIG)


@pytest.mark.parametrize("layout", [write_single, write_bin_shards])
def test_the_psalm_part_is_loaded_and_the_fusion_is_not(layout, tmp_path, state):
    model = load(write(tmp_path, to_official(state, CONFIG) | FUSION, layout))
    loaded = {key: tensor for key, tensor in model.network.state_dict().items() if is_loaded(key)}
    assert loaded.keys() == state.keys()
    assert all(loaded[key].equal(tensor) for key, tensor in state.items())


def test_what_is_left_out_is_counted_in_one_line(caplog, tmp_path, state):
    folder = write(tmp_path, to_official(state, CONFIG) | FUSION)
    with caplog.at_level(logging.WARNING, "psalm_stream"):
        load(folder)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"{folder}: an ObjectRelator checkpoint; 3 tensors under predictor.fuse_model.* are left out: fusion not used"


@pytest.mark.parametrize(("more", "remarks"), [(FUSION, ("fusion not used",)), ({}, ())])
def test_the_model_remarks_it_for_whoever_scores_it(more, remarks, tmp_path, state):
    assert load(write(tmp_path, to_official(state, CONFIG) | more)).remarks == remarks


def test_the_digest_in_every_answer_and_record_says_it_too(tmp_path, state):
    folder = write(tmp_path, to_official(state, CONFIG) | FUSION)
    assert load(folder).digest == f"{inspect(folder).digest}-fusion-not-used"
    assert load(folder, official_rounding=True).digest == f"{inspect(folder).digest}-rounded-fusion-not-used"


@pytest.mark.parametrize(
    "name",
    ["predictor.fuse_model", "predictor.fuse_models.mix", "predictor.fusion.mix", "model.predictor.fuse_model.mix", "fuse_model.mix"],
)
def test_no_other_tensor_is_let_through_with_it(name, tmp_path, state):
    with pytest.raises(BadWeights, match="1 tensors do not fit") as refused:
        load(write(tmp_path, to_official(state, CONFIG) | FUSION | {name: torch.ones(2)}))
    assert str(refused.value).endswith(f"unexpected: {name} [2]")


def test_a_tensor_of_psalm_may_not_be_missing_from_it(tmp_path, state):
    official = to_official(state, CONFIG)
    del official["seg_query"]
    with pytest.raises(BadWeights, match=r"missing: seg_query \[4, 32\]"):
        load(write(tmp_path, official | FUSION))


def test_inspect_lists_the_fusion_and_lets_the_checkpoint_fit(tmp_path, state):
    told = inspect(write(tmp_path, to_official(state, CONFIG) | FUSION))
    assert (told.problems, told.unused, told.fusion) == ([], [], sorted(FUSION))


def test_the_command_counts_the_fusion(tmp_path, state):
    folder = write(tmp_path, to_official(state, CONFIG) | FUSION)
    shown = CliRunner().invoke(app, ["weights", "inspect", str(folder)])
    assert shown.exit_code == 0
    assert "ObjectRelator's fusion, predictor.fuse_model.* (3 tensors)" in shown.output
    assert "fits" in shown.output


@pytest.mark.parametrize(("more", "remarks"), [(FUSION, ["fusion not used"]), ({}, None)])
def test_the_scores_of_a_benchmark_of_pictures_remark_it(more, remarks, tmp_path):
    torch.manual_seed(0)
    weights = write(tmp_path, to_official(Psalm(CONFIG).state_dict(), CONFIG) | more)
    write_benchmark(tmp_path / "drawn", 1)
    asked = [tmp_path / "drawn" / SHAPES, tmp_path / "drawn" / PICTURES, "--out", tmp_path / "out", "--prompt", "box", "--weights", weights]
    shown = CliRunner().invoke(app, ["eval", "interactive", *map(str, asked), "--limit", "1"])
    assert shown.exit_code == 0, shown.output
    assert ("note fusion not used" in shown.output) == bool(remarks)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()).get("remarks") == remarks

"""The released size: every name and shape of the official state dict, both ways, on the meta device.

`psalm-state-dict.json` lists the 935 entries of the official class at that size (data of the specification, name -> [shape, dtype]).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from psalm_stream.eval.official_checkpoint import official_dtype, official_shapes
from psalm_stream.psalm.checkpoint import Checkpoint, Stored
from psalm_stream.psalm.config import NAMED_CONFIGS
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import unused_shapes
from psalm_stream.psalm.weights import RELEASED, config_of, fit_problems

STATE_DICT = Path(__file__).parents[1] / "golden" / "psalm-state-dict.json"
CONFIG = NAMED_CONFIGS[RELEASED]


@pytest.fixture(scope="module")
def official() -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) of the official state dict."""
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in json.loads(STATE_DICT.read_text()).items()}


@pytest.fixture(scope="module")
def network() -> Psalm:
    """The released network without storage."""
    with torch.device("meta"):
        return Psalm(CONFIG)


def stored(official: dict[str, tuple[tuple[int, ...], str]]) -> Checkpoint:
    tensors = {name: Stored(Path("shard"), shape, getattr(torch, dtype)) for name, (shape, dtype) in official.items()}
    return Checkpoint(Path("released"), (), tensors, {})


def test_our_tensors_and_the_unused_ones_are_the_935_official_entries(official):
    shapes = official_shapes(CONFIG)
    ours = {name: (shape, str(official_dtype(name, torch.float32)).removeprefix("torch.")) for name, shape in shapes.items()}
    assert len(official) == 935
    assert ours == official


def test_an_official_checkpoint_fits_with_nothing_missing_unexpected_or_wrongly_shaped(official, network):
    assert fit_problems(stored(official), network) == []


@pytest.mark.parametrize("name", sorted(set(json.loads(STATE_DICT.read_text())) - set(unused_shapes(CONFIG)))[::40])
def test_every_official_tensor_that_is_used_is_needed(name, official, network):
    left = {n: entry for n, entry in official.items() if n != name}
    assert [p.split(" ")[:2] for p in fit_problems(stored(left), network)] == [["missing:", name]]


def test_the_unused_tensors_may_all_be_left_out(official, network):
    left = {name: entry for name, entry in official.items() if name not in unused_shapes(CONFIG)}
    assert fit_problems(stored(left), network) == []


def test_a_config_without_our_key_has_the_released_sizes(official):
    assert config_of(stored(official)) == CONFIG


def test_the_used_parameters_are_the_official_ones_without_those_no_answer_depends_on(network):
    heads_never_used = 103_008_256 + 100 * 256 + 101 * 256  # lm_head, query_feat, SEG_query_embed
    assert sum(p.numel() for p in network.parameters()) == 1_587_057_208 - heads_never_used

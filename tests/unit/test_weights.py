"""Loading checkpoints: every layout and storage type gives the tensors that were written, and `inspect` says what they are."""

from __future__ import annotations

import gc
import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
from psalm_stream.eval.official_checkpoint import released_config
from psalm_stream.psalm.config import Extras, PsalmConfig
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import is_loaded, place, to_official, unused_shapes
from psalm_stream.psalm.weights import RELEASED, inspect, load
from psalm_stream.stream.errors import BadPrompt, BadWeights
from psalm_stream.stream.types import Categories, Frame, FrameKey, Request
from tiny_checkpoint import (
    CONFIG,
    EMBED,
    FUSED,
    LAYOUTS,
    OWN,
    SWIN_FUSED,
    Tensors,
    random_state,
    unused_tensors,
    write,
    write_bin,
    write_shards,
    write_single,
)


@pytest.fixture(scope="module")
def state() -> Tensors:
    """What is written, under our names."""
    return random_state(CONFIG)


@pytest.fixture
def official(state: Tensors) -> Tensors:
    """What is written, under official names."""
    return to_official(state, CONFIG)


def assert_loaded(folder: Path, expected: Tensors, **options: object) -> None:
    loaded = load(folder, **options).network.state_dict()
    assert {key for key in loaded if is_loaded(key)} == set(expected)
    different = [key for key, tensor in expected.items() if loaded[key].dtype != tensor.dtype or not loaded[key].equal(tensor)]
    assert different == []


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_layout_gives_the_tensors_that_were_written(layout, tmp_path, state, official):
    assert_loaded(write(tmp_path, official, layout), state)


@pytest.mark.parametrize("layout", [write_single, write_bin])
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_rounded_to_the_stored_type_and_then_to_the_running_one(dtype, storage, layout, tmp_path, state, official):
    folder = write(tmp_path, {n: t.to(storage) for n, t in official.items()}, layout)
    assert_loaded(folder, {key: t.to(storage).to(getattr(torch, dtype)) for key, t in state.items()}, dtype=dtype)


def test_split_language_attention_is_read_as_well_as_fused(tmp_path, state, official):
    split = {where.split_name: state[key] for key in state if (where := place(key, CONFIG)).split_name}
    assert len(split) == 2 * 3 * 2
    kept = {name: tensor for name, tensor in official.items() if "query_key_value" not in name}
    assert_loaded(write(tmp_path, kept | split), state)


@pytest.mark.parametrize("layout", [write_single, write_bin])
def test_fused_language_attention_holds_query_key_value_of_each_head_in_turn(layout, tmp_path, official):
    rows = torch.arange(96.0).repeat(32, 1).T.contiguous()  # 4 heads x (q, k, v) x 8 rows
    attention = load(write(tmp_path, official | {FUSED: rows}, layout)).network.phi.layers[1].self_attn
    heads = [[96 / 4 * head + part * 8 + row for head in range(4) for row in range(8)] for part in range(3)]
    assert [getattr(attention, f"{p}_proj").weight[:, 0].tolist() for p in "qkv"] == heads


def test_fused_image_attention_holds_query_key_value_as_thirds(tmp_path, official):
    folder = write(tmp_path, official | {SWIN_FUSED: torch.arange(24.0)})
    state = load(folder).network.state_dict()
    block = "swin.backbone.swin.encoder.layers.0.blocks.1.attention"
    assert [state[f"{block}.{p}_proj.bias"].tolist() for p in "qkv"] == [list(range(8 * i, 8 * i + 8)) for i in range(3)]


def test_official_rounding_gives_weights_through_half_precision(tmp_path, state, official):
    assert_loaded(write(tmp_path, official), {key: t.half().float() for key, t in state.items()}, official_rounding=True)


def test_official_rounding_rounds_the_rotary_tables(tmp_path, official):
    folder = write(tmp_path, official)
    hidden, positions = torch.zeros(1, 9, 32), torch.arange(9)[None]
    exact, rounded = (load(folder, official_rounding=r).network.phi.rotary_emb(hidden, positions) for r in (False, True))
    assert [t.half().float().equal(r) and not t.equal(r) for t, r in zip(exact, rounded, strict=True)] == [True, True]


def test_loading_gives_no_gradients_and_evaluation_mode(tmp_path, official):
    network = load(write(tmp_path, official)).network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_the_loaded_model_computes_what_a_built_one_does(tmp_path, state, official):
    built = Psalm(CONFIG).eval()
    built.load_state_dict(state, strict=False)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        for ours, theirs in zip(load(write(tmp_path, official)).network.encode(image)[0].maps, built.encode(image)[0].maps, strict=True):
            torch.testing.assert_close(ours, theirs)


# -- memory -----------------------------------------------------------------------------------------------------------


def mapped_at(folder: Path) -> list[range]:
    """Addresses at which files of this folder are mapped into this process."""
    gc.collect()
    lines = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    return [range(int(start, 16), int(end, 16)) for start, end in lines]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_of_the_running_type_stay_mapped_to_their_file_except_fused_ones(layout, tmp_path, state, official):
    network = load(write(tmp_path, official, layout)).network
    ranges = mapped_at(tmp_path)
    copied = {key for key, t in network.state_dict().items() if is_loaded(key) and not any(t.data_ptr() in r for r in ranges)}
    assert copied == {key for key in state if place(key, CONFIG).part is not None}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_converted_weights_leave_no_file_mapped(layout, tmp_path, official):
    model = load(write(tmp_path, {n: t.half() for n, t in official.items()}, layout))
    assert mapped_at(tmp_path) == []
    assert model.network.seg_query.dtype == torch.float32


# -- official tensors no answer depends on ----------------------------------------------------------------------------


def test_official_tensors_that_are_never_used_may_be_there(tmp_path, state, official):
    assert_loaded(write(tmp_path, official | unused_tensors()), state)


# -- vocabulary -------------------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture, folder: Path) -> tuple[int, list[str]]:
    """Vocabulary of the loaded model, and what was said while loading."""
    with caplog.at_level(logging.WARNING, "psalm_stream"):
        model = load(folder)
    assert model.network.phi.embed_tokens.weight.shape[0] == model.config.phi.vocab_size
    return model.config.phi.vocab_size, [record.getMessage() for record in caplog.records]


def test_an_agreeing_vocabulary_says_nothing(caplog, tmp_path, official):
    assert warnings_of(caplog, write(tmp_path, official)) == (300, [])


def test_the_rows_of_the_embedding_win_over_config_with_a_warning(caplog, tmp_path, official):
    rows, (said,) = warnings_of(caplog, write(tmp_path, official | {EMBED: torch.zeros(310, 32)}, tokenizer_size=310))
    assert rows == 310
    assert "config.json says 300 vocabulary rows, embed_tokens has 310" in said


def test_a_tokenizer_of_another_size_is_a_warning(caplog, tmp_path, official):
    rows, (said,) = warnings_of(caplog, write(tmp_path, official, tokenizer_size=280))
    assert rows == 300
    assert "tokenizer.json has 280 entries, embed_tokens has 300 rows" in said


def categories_request(*names: str) -> Request:
    data = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    return Request(Frame(FrameKey("s", "main", 0), 0, False, (30, 40), data), Categories(names))


def test_a_token_beyond_the_embedding_rows_is_a_bad_prompt(tmp_path, official):
    model = load(write(tmp_path, official, tokenizer_size=301))  # [SEG] is the last entry, id 300
    with pytest.raises(BadPrompt, match="id 300, the model has 300 vocabulary rows"):
        model.segment([categories_request("cup")])


# -- hub ids ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and no network, as HF_HUB_CACHE and HF_HUB_OFFLINE=1 would set them at start."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["nobody/no-such-psalm", "with space/psalm", "-bad/na..me"])
def test_a_hub_id_that_cannot_be_had_is_named(name, offline_hub):
    with pytest.raises(BadWeights, match=f"weights {name}: cannot be downloaded"):
        load(name)


def test_a_hub_id_is_taken_from_the_hub_cache(offline_hub, state, official):
    repository = offline_hub / "models--owner--psalm"
    snapshot = repository / "snapshots" / "c0ffee"
    (repository / "refs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    write(snapshot, official, write_shards)
    assert_loaded("owner/psalm", state)


# -- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_describes_a_checkpoint_that_fits(tmp_path, state, official):
    write(tmp_path, {n: t.half() for n, t in official.items()} | unused_tensors(), write_shards)
    told = inspect(tmp_path)
    assert (told.kind, told.problems, told.extras, told.notes) == ("custom sizes", [], [], [])
    assert told.dtypes == {"float16": len(official), "float32": len(unused_shapes(CONFIG))}
    assert told.unused == sorted(unused_shapes(CONFIG))
    assert told.parameters == sum(t.numel() for key, t in state.items() if "running_" not in key)
    assert told.digest == load(tmp_path).digest


def test_inspect_lists_every_problem_and_the_tokenizer_among_them(tmp_path, official):
    del official["seg_query"]
    (write(tmp_path, official) / "tokenizer.json").unlink()
    missing, tokenizer = inspect(tmp_path).problems
    assert missing == "missing: seg_query [4, 32]"
    assert "no tokenizer.json" in tokenizer


@pytest.mark.parametrize(
    ("config", "note"),
    [(OWN, "config.json says 300 vocabulary rows, embed_tokens has 310"), (released_config(PsalmConfig()), "config.json says 50297")],
)
def test_inspect_notes_a_disagreeing_vocabulary(config, note, tmp_path, official):
    told = inspect(write(tmp_path, official | {EMBED: torch.zeros(310, 32)}, config=config, tokenizer_size=280))
    assert told.notes[0].startswith(note)
    assert told.notes[1].startswith("tokenizer.json has 280 entries, embed_tokens has 310 rows")


def test_inspect_takes_the_released_sizes_for_a_config_without_our_key_whatever_the_vocabulary(tmp_path, official):
    told = inspect(write(tmp_path, official, config=released_config(PsalmConfig())))
    assert (told.kind, told.config.phi.vocab_size) == (RELEASED, 300)
    assert "wrong shape: seg_query is [4, 32], expected [100, 2048]" in told.problems


def test_inspect_names_the_inputs_psalm_lacks(tmp_path):
    config = replace(CONFIG, extras=Extras(mask_prior=True, detail_pooling=True))
    official = to_official(random_state(config), config)
    told = inspect(write(tmp_path, official, config={"psalm_stream": config.to_json()}))
    assert told.problems == []
    assert told.extras == sorted(n for n in official if n.startswith(("mask_prior.", "ring_detail.")))
    assert {name.split(".")[0] for name in told.extras} == {"mask_prior", "ring_detail"}


def test_extra_inputs_that_the_config_has_off_are_unexpected(tmp_path):
    config = replace(CONFIG, extras=Extras(mask_prior=True))
    told = inspect(write(tmp_path, to_official(random_state(config), config)))
    assert told.extras
    assert [problem.split(" ")[:2] for problem in told.problems] == [["unexpected:", name] for name in told.extras]


def test_the_digest_tells_weights_configs_and_roundings_apart(tmp_path, official):
    write(tmp_path, official)
    first, rounded = load(tmp_path).digest, load(tmp_path, official_rounding=True).digest
    (tmp_path / "config.json").write_text(json.dumps({"psalm_stream": CONFIG.to_json() | {"image_size": 128}}))
    wider = load(tmp_path).digest
    official["seg_query"] = official["seg_query"].clone()
    official["seg_query"][3, 31] += 1
    assert len({first, rounded, wider, load(write(tmp_path, official)).digest}) == 4
    assert rounded == f"{first}-rounded"

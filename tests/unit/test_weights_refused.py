"""Checkpoints that do not fit, are damaged or unsafe: each is a BadWeights that says what and where, and none is accepted in silence."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from psalm_stream.psalm.names import to_official
from psalm_stream.psalm.weights import load, resolve
from psalm_stream.stream.errors import BadWeights
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CONFIG, FUSED, SWIN_FUSED, Tensors, random_state, unused_tensors, write, write_bin, write_shards, write_single


@pytest.fixture
def official() -> Tensors:
    """What is written, under official names."""
    return to_official(random_state(CONFIG), CONFIG)


def test_missing_unexpected_misshapen_and_mistyped_tensors_are_all_listed_at_once(tmp_path, official):
    del official["seg_query"], official[SWIN_FUSED]
    official["model.layers.1.mlp.fc1.weight"] = torch.zeros(32, 16)
    official["model.layers.2.mlp.fc1.weight"] = torch.zeros(16, 32)
    official["predictor.mask_embed.layers.0.bias"] = torch.zeros(32, dtype=torch.int64)
    with pytest.raises(BadWeights) as refused:
        load(write(tmp_path, official))
    assert str(refused.value).split("\n  ") == [
        f"{tmp_path}: 5 tensors do not fit the model:",
        f"missing: {SWIN_FUSED} [24]",
        "missing: seg_query [4, 32]",
        "unexpected: model.layers.2.mlp.fc1.weight [16, 32]",
        "wrong shape: model.layers.1.mlp.fc1.weight is [32, 16], expected [16, 32]",
        "wrong type: predictor.mask_embed.layers.0.bias is torch.int64, expected float32, float16 or bfloat16",
    ]


def test_split_attention_beside_the_fused_one_is_refused(tmp_path, official):
    names = [f"model.layers.1.self_attn.{p}_proj.weight" for p in "qkv"]
    with pytest.raises(BadWeights, match="1 tensors do not fit") as refused:
        load(write(tmp_path, official | {name: torch.zeros(32, 32) for name in names}))
    assert f"unexpected: {FUSED}" in str(refused.value)


def test_a_fused_tensor_with_one_third_split_off_lacks_the_others(tmp_path, official):
    del official[FUSED]
    with pytest.raises(BadWeights, match=f"missing: {FUSED}"):
        load(write(tmp_path, official | {"model.layers.1.self_attn.q_proj.weight": torch.zeros(32, 32)}))


def test_a_tensor_in_two_shards_is_refused(tmp_path, official):
    write(tmp_path, official, write_shards)
    for file in tmp_path.glob("*.safetensors"):
        save_file(load_file(file) | {"seg_query": official["seg_query"]}, file)
    with pytest.raises(BadWeights, match=r"seg_query is in model-00001-of-00002\.safetensors and again in model-00002"):
        load(tmp_path)


def test_a_shard_that_the_index_names_must_be_there(tmp_path, official):
    write(tmp_path, official, write_shards)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadWeights, match=r"names model-00002-of-00002\.safetensors, which is not there; download all 2 shards"):
        load(tmp_path)


@pytest.mark.parametrize("layout", [write_single, write_bin])
@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(left, layout, tmp_path, official):
    write(tmp_path, official, layout)
    file = next(f for f in tmp_path.iterdir() if f.suffix in {".safetensors", ".bin"})
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(BadWeights, match=file.name):
        load(tmp_path)


class WritesFile:
    """A pickle of this runs code when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.file, "was run")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(zipped, tmp_path, official):
    write(tmp_path, official, write_bin)
    trace, file = tmp_path / "trace", tmp_path / "pytorch_model.bin"
    if zipped:
        torch.save(official | {"code": WritesFile(trace)}, file)
    else:
        file.write_bytes(pickle.dumps(WritesFile(trace)))
    with pytest.raises(BadWeights, match="weights_only"):
        load(tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"step": 3}, {"state_dict": {"seg_query": torch.zeros(4, 32)}}])
def test_a_bin_file_that_is_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadWeights, match="expected a plain state dict"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"psalm_stream": 3}'),
        ("config.json", '{"psalm_stream": {"phi": 3}}'),
        ("config.json", '{"psalm_stream": {"image_size": "large"}}'),
        ("model.safetensors.index.json", "3"),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
    ],
)
def test_damaged_json_is_refused_by_name(name, text, tmp_path, official):
    (write(tmp_path, official) / name).write_text(text)
    with pytest.raises(BadWeights, match=name):
        load(tmp_path)


@pytest.mark.parametrize(("gone", "expected"), [("tokenizer.json", "no tokenizer.json"), ("model.safetensors", "no weights found")])
def test_a_folder_without_weights_or_tokenizer_is_refused(gone, expected, tmp_path, official):
    (write(tmp_path, official) / gone).unlink()
    with pytest.raises(BadWeights, match=expected):
        load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "predictor.query_feat.weight",
        "predictor.SEG_query_embed.weight",
        "model.vision_tower.layers.0.blocks.1.attn.relative_position_index",
        "model.mm_projector.layer1.0.bn1.num_batches_tracked",
    ],
)
def test_unused_tensors_are_still_checked_for_their_shape(name, tmp_path, official):
    with pytest.raises(BadWeights, match=f"wrong shape: {name} is \\[7\\], expected"):
        load(write(tmp_path, official | unused_tensors() | {name: torch.zeros(7)}))


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "owner/", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(BadWeights, match="no such folder, and no hub id"):
        resolve(name)


def test_a_file_is_refused_with_its_folder_as_the_remedy(tmp_path, official):
    write(tmp_path, official)
    with pytest.raises(BadWeights, match=f"is a file, expected the folder .* {tmp_path}$"):
        resolve(tmp_path / "model.safetensors")

"""The golden folder: recorded inputs, intermediates and outputs of the official implementation (its README says what and how exact).

`PSALM_GOLDEN` names it, `../shared/golden/psalm-tiny` is the default; without the default every test here skips and says so, without a
folder that was named collecting the tests fails.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from psalm_stream.psalm import weights
from psalm_stream.psalm.config import MaskConfig, PhiConfig, PsalmConfig, SwinConfig
from walk import GOLDEN, Report, has_golden

LEDGER = pytest.StashKey[Report]()


def golden_config(values: dict) -> PsalmConfig:
    """Our configuration of the sizes in a golden config.json."""
    swin, phi, mask = values["swin"], values["llm"], values["mask"]
    return PsalmConfig(
        image_size=values["image_size"],
        projector_planes=values["projector"]["planes"],
        swin=SwinConfig(swin["embed_dim"], tuple(swin["depths"]), tuple(swin["num_heads"]), swin["window_size"], swin["mlp_ratio"]),
        phi=PhiConfig(
            vocab_size=phi["vocab_size"],
            hidden_size=phi["hidden_size"],
            intermediate_size=phi["intermediate_size"],
            num_hidden_layers=phi["num_hidden_layers"],
            num_attention_heads=phi["num_attention_heads"],
            partial_rotary_factor=phi["partial_rotary_factor"],
            rope_theta=phi["rope_theta"],
            layer_norm_eps=phi["layer_norm_eps"],
            max_position_embeddings=phi["max_position_embeddings"],
        ),
        mask=MaskConfig(
            hidden_dim=mask["hidden_dim"],
            num_queries=mask["num_queries"],
            num_heads=mask["nheads"],
            encoder_layers=mask["pixel_encoder_layers"],
            encoder_ffn=mask["pixel_encoder_ffn"],
            encoder_points=mask["pixel_encoder_points"],
            decoder_layers=mask["decoder_layers"],
            decoder_ffn=mask["dim_feedforward"],
        ),
    )


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden folder."""
    if not has_golden():
        pytest.skip(f"no golden data at {GOLDEN}; set PSALM_GOLDEN to a folder that has it")
    return GOLDEN


@pytest.fixture(scope="session")
def checkpoint_folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights laid out as a checkpoint folder, with our configuration in config.json."""
    folder = tmp_path_factory.mktemp("golden-checkpoint")
    values = json.loads((golden / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"psalm_stream": golden_config(values).to_json()}))
    (folder / "model.safetensors").symlink_to((golden / "weights.safetensors").resolve())
    (folder / "tokenizer.json").symlink_to((golden / "tokenizer" / "tokenizer.json").resolve())
    return folder


@pytest.fixture(scope="session")
def segmenter(checkpoint_folder: Path) -> weights.Segmenter:
    """The golden model, ready to answer."""
    torch.set_num_threads(1)
    return weights.load(checkpoint_folder)


@pytest.fixture(scope="session")
def rounded_segmenter(checkpoint_folder: Path) -> weights.Segmenter:
    """The golden model in the official rounding."""
    return weights.load(checkpoint_folder, official_rounding=True)


@pytest.fixture
def trainable_segmenter(checkpoint_folder: Path) -> weights.Segmenter:
    """A copy of the golden model of its own, for gradients."""
    return weights.load(checkpoint_folder)


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Report:
    """What all walks of the session came to."""
    return pytestconfig.stash.setdefault(LEDGER, Report())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how much was compared."""
    report = config.stash.get(LEDGER, None)
    if report is not None:
        groups = ", ".join(f"{group} {count}" for group, count in report.exempt.most_common() if count)
        told = f"golden: {report.compared} tensors compared, {report.exempt.total()} exempt ({groups}); "
        terminalreporter.write_line(f"{told}{report.results} JSON results and {report.pictures} padded pictures compared")

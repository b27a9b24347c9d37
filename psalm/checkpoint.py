"""Checkpoint files on disk: which there are, what tensors they hold, and reading those through mmap.

safetensors with or without an index, and `.bin` shards through torch.load(weights_only). Knows nothing of the model; names.py and
weights.py do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..stream.errors import BadWeights

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "F64": torch.float64, "I32": torch.int32}
STORAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a checkpoint: the file that holds it, its shape and storage dtype."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder: its files, tensors by name, and config.json ({} when there is none)."""

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Stored]
    config: Mapping[str, object]

    def digest(self) -> str:
        """16 hex digits over the bytes of all weight files and the model part of config.json."""
        total = hashlib.sha256(json.dumps(self.config.get("psalm_stream"), sort_keys=True).encode())
        for file in self.files:
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()[:16]


def open_checkpoint(folder: Path) -> Checkpoint:
    """Find weight files and list their tensors. Raises BadWeights naming the folder and what was looked for."""
    files = _weight_files(folder)
    tensors: dict[str, Stored] = {}
    for file in files:
        for name, stored in _list_tensors(file):
            if name in tensors:
                raise BadWeights(
                    f"{folder}: tensor {name} is in {tensors[name].file.name} and again in {file.name}; remove one of the files"
                )
            tensors[name] = stored
    config_file = folder / "config.json"
    return Checkpoint(folder, tuple(files), tensors, _read_json(config_file) if config_file.exists() else {})


@contextmanager
def reading(file: Path) -> Iterator[Mapping[str, Tensor]]:
    """Tensors of one file by name, mapped, not copied; pages that were touched are given back when nothing refers to them any more."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as handle:
            yield _Lazy(handle)
    else:
        yield _load_bin(file)


class _Lazy(Mapping[str, Tensor]):
    def __init__(self, handle: safe_open) -> None:
        self.handle = handle

    def __getitem__(self, name: str) -> Tensor:
        return self.handle.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.handle.keys())

    def __len__(self) -> int:
        return len(self.handle.keys())


def _weight_files(folder: Path) -> list[Path]:
    for index in INDEXES:
        if (folder / index).exists():
            names = sorted(set(_read_json(folder / index).get("weight_map", {}).values()))
            if missing := [n for n in names if not (folder / n).exists()]:
                raise BadWeights(f"{folder / index} names {missing[0]}, which is not there; download all {len(names)} shards")
            return [folder / n for n in names]
    for single in SINGLES:
        if (folder / single).exists():
            return [folder / single]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    raise BadWeights(
        f"{folder}: no weights found, expected one of {', '.join(INDEXES + SINGLES)}; give the folder that holds them, or a hub id"
    )


def _list_tensors(file: Path) -> Iterator[tuple[str, Stored]]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
                    part = handle.get_slice(name)
                    yield name, Stored(file, tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), torch.uint8))
        except SafetensorError as error:
            raise BadWeights(f"{file}: not a readable safetensors file ({error}); download it again") from error
    else:
        for name, tensor in _load_bin(file).items():
            yield name, Stored(file, tuple(tensor.shape), tensor.dtype)


def _load_bin(file: Path) -> Mapping[str, Tensor]:
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe pickle
        raise BadWeights(f"{file}: torch.load(weights_only=True) refuses it ({error}); expected a plain state dict") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise BadWeights(f"{file}: holds more than tensors by name, expected a plain state dict; save only the model's state_dict()")
    return tensors


def _read_json(file: Path) -> dict[str, object]:
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise BadWeights(f"{file}: not JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise BadWeights(f"{file}: holds a {type(values).__name__}, expected a JSON object; download it again")
    return values

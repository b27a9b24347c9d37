"""From a checkpoint to a ready Segmenter: strict, mapped, in the storage type it comes in.

Every missing, unexpected or wrongly shaped tensor is an error that lists them all; what ObjectRelator's checkpoints add to PSALM's, and
that alone, is left out with a remark. A tensor that needs no conversion stays mapped to its file; one that does is copied alone and its
pages given back, so loading needs little more memory than the weights in the running type.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..stream.errors import BadWeights
from .checkpoint import STORAGE_DTYPES, Checkpoint, open_checkpoint, reading
from .config import NAMED_CONFIGS, PsalmConfig, SwinConfig
from .model import Psalm
from .names import FUSION, Place, cut, is_loaded, place, unused_shapes
from .phi import HalfRoundedRotary, build_phi
from .regions import sampled_points
from .segmenter import Segmenter
from .swin import Swin
from .tokenizer import FolderTokenizer

log = logging.getLogger(__name__)

NANO = Path(__file__).parent / "nano"
RELEASED = "psalm-swinb-phi1.5"
EXTRA_PREFIXES = ("mask_prior.", "ring_detail.")
HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*.txt"]
FUSION_NOT_USED = "fusion not used"
POSITION_TABLE = "relative_position_index"
GROUP_BYTES = 256 * 2**20  # converted tensors share one mapping up to this size, then their pages are given back


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint is.

    problems: why it does not fit ([] when it does); extras: tensors PSALM lacks; fusion: ObjectRelator's, which are left out; notes: what
    is worth knowing.
    """

    folder: Path
    kind: str
    config: PsalmConfig
    files: tuple[Path, ...]
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    digest: str
    problems: list[str]
    extras: list[str]
    unused: list[str]
    fusion: list[str]
    notes: list[str] = field(default_factory=list)


def resolve(name: str | Path) -> Path:
    """A checkpoint folder from `nano`, a folder, or a hub id such as `EnmingZhang/PSALM` (downloaded with a progress bar, cached)."""
    if str(name) == "nano":
        return NANO
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise BadWeights(f"{path} is a file, expected the folder that holds weights, config.json and tokenizer.json: {path.parent}")
    parts = str(name).split("/")
    if len(parts) != 2 or not all(parts):
        raise BadWeights(f"weights {str(name)!r}: no such folder, and no hub id (owner/name); give either, or `nano` for the shipped model")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadWeights(f"weights {name}: cannot be downloaded ({error}); check the id and the network, or give a local folder") from error


def load(
    name: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    official_rounding: bool = False,
    device: str = "cpu",
    sampled_regions: bool = False,
) -> Segmenter:
    """Load a checkpoint for inference.

    name: see `resolve`; dtype: running type; official_rounding: round weights and rotary tables to float16 as the official evaluation
    does (spec section 2.1); sampled_regions: PSALM's 256 seeded points a region instead of the mean over its mask.
    Of an ObjectRelator checkpoint the PSALM part is loaded; the Segmenter remarks it, and so does its digest, in whatever it answers.
    Raises BadWeights listing every tensor that is missing, unexpected or wrongly shaped.
    """
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    checkpoint = open_checkpoint(resolve(name))
    with torch.device("meta"):
        network = Psalm(config_of(checkpoint))
    tokenizer = FolderTokenizer(checkpoint.folder)
    for note in _vocabulary_notes(checkpoint, tokenizer):
        log.warning("%s: %s", checkpoint.folder, note)
    if problems := fit_problems(checkpoint, network):
        listed = "\n  ".join(problems)
        raise BadWeights(f"{checkpoint.folder}: {len(problems)} tensors do not fit the model:\n  {listed}")
    fill(network, checkpoint, dtype, official_rounding)
    if fusion := fusion_tensors(checkpoint):
        log.warning("%s: an ObjectRelator checkpoint; %d tensors under %s* are left out: %s", name, len(fusion), FUSION, FUSION_NOT_USED)
    remarks = (FUSION_NOT_USED,) if fusion else ()
    digest = "-".join([checkpoint.digest(), *(["rounded"] if official_rounding else []), *(r.replace(" ", "-") for r in remarks)])
    network = network.to(device).eval().requires_grad_(False)
    return Segmenter(network, tokenizer, digest, sampled_points if sampled_regions else None, remarks)


def inspect(name: str | Path) -> Inspection:
    """Describe a checkpoint and say whether it fits, without loading it."""
    checkpoint = open_checkpoint(resolve(name))
    config = config_of(checkpoint)
    with torch.device("meta"):
        network = Psalm(config)
    problems, notes = fit_problems(checkpoint, network), []
    try:
        notes = _vocabulary_notes(checkpoint, FolderTokenizer(checkpoint.folder))
    except BadWeights as error:
        problems.append(str(error))
    dtypes = Counter(str(stored.dtype).removeprefix("torch.") for stored in checkpoint.tensors.values())
    return Inspection(
        checkpoint.folder,
        _kind(config),
        config,
        checkpoint.files,
        len(checkpoint.tensors),
        sum(p.numel() for p in network.parameters()),
        dict(dtypes),
        checkpoint.digest(),
        problems,
        sorted(n for n in checkpoint.tensors if n.startswith(EXTRA_PREFIXES)),
        sorted(set(unused_shapes(config)) & set(checkpoint.tensors)),
        fusion_tensors(checkpoint),
        notes,
    )


def config_of(checkpoint: Checkpoint) -> PsalmConfig:
    """Our dataclass from config.json's `psalm_stream`, else the released sizes; the vocabulary is what embed_tokens has rows.

    Raises BadConfig for a field that is unknown or out of range, BadWeights for one that is no number or list where one belongs.
    """
    own = checkpoint.config.get("psalm_stream")
    try:
        config = NAMED_CONFIGS[RELEASED] if own is None else PsalmConfig.from_json(own)
    except (TypeError, AttributeError) as error:
        raise BadWeights(f"{checkpoint.folder / 'config.json'}: psalm_stream holds a value that does not fit ({error})") from error
    return _with_vocabulary(config, _embedding_rows(checkpoint) or config.phi.vocab_size)


def fit_problems(checkpoint: Checkpoint, network: Psalm) -> list[str]:
    """One line for every tensor that is missing, unexpected, wrongly shaped or of a type we do not read; [] when all fit.

    A tensor of ObjectRelator's fusion is not unexpected.
    """
    problems = []
    expected = set()
    for key, tensor in network.state_dict().items():
        if not is_loaded(key):
            continue
        where = _stored_place(place(key, network.config), checkpoint)
        expected.add(where.name)
        stored = checkpoint.tensors.get(where.name)
        shape = tuple(tensor.shape) if where.part is None else (3 * tensor.shape[0], *tensor.shape[1:])
        if stored is None:
            problems.append(f"missing: {where.name} {list(shape)}")
        elif stored.shape != shape:
            problems.append(f"wrong shape: {where.name} is {list(stored.shape)}, expected {list(shape)}")
        elif stored.dtype not in STORAGE_DTYPES:
            problems.append(f"wrong type: {where.name} is {stored.dtype}, expected float32, float16 or bfloat16")
    unused = unused_shapes(network.config)
    for name, stored in checkpoint.tensors.items():
        if name in unused and stored.shape != unused[name]:
            problems.append(f"wrong shape: {name} is {list(stored.shape)}, expected {list(unused[name])}")
        elif name not in unused and name not in expected and not name.startswith(FUSION):
            problems.append(f"unexpected: {name} {list(stored.shape)}")
    return sorted(set(problems))


def fusion_tensors(checkpoint: Checkpoint) -> list[str]:
    """The tensors that make a checkpoint ObjectRelator's, by name; [] for every other."""
    return sorted(name for name in checkpoint.tensors if name.startswith(FUSION))


def fill(network: Psalm, checkpoint: Checkpoint, dtype: torch.dtype, official_rounding: bool = False) -> None:
    """Give a meta network its weights in `dtype`, and rebuild the tables no checkpoint holds."""
    keys = [key for key in network.state_dict() if is_loaded(key)]
    by_file: dict[Path, list[tuple[str, Place]]] = defaultdict(list)
    for key in keys:
        where = _stored_place(place(key, network.config), checkpoint)
        by_file[checkpoint.tensors[where.name].file].append((key, where))
    for file, wanted in by_file.items():
        as_is = [w for w in wanted if w[1].part is None and checkpoint.tensors[w[1].name].dtype == dtype and not official_rounding]
        converted = [w for w in wanted if w not in as_is]
        for group in (as_is, *_groups(converted, checkpoint)):
            with reading(file) as tensors:
                for key, where in group:
                    tensor = tensors[where.name] if where.part is None else cut(tensors[where.name], where)
                    _assign(network, key, tensor if group is as_is else _copied(tensor, dtype, official_rounding))
    _rebuild_tables(network, official_rounding)


def _copied(tensor: Tensor, dtype: torch.dtype, rounded: bool) -> Tensor:
    """A copy in `dtype`, made in one step: a temporary between the copies tears holes in the heap that cost 0.8 GB at the released size."""
    if rounded:
        tensor = tensor.to(torch.float16)
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)


def _groups(wanted: list[tuple[str, Place]], checkpoint: Checkpoint) -> list[list[tuple[str, Place]]]:
    groups: list[list[tuple[str, Place]]] = [[]]
    size = 0
    for key, where in wanted:
        stored = checkpoint.tensors[where.name]
        if size > GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append((key, where))
        size += stored.dtype.itemsize * torch.Size(stored.shape).numel()
    return groups


def _stored_place(where: Place, checkpoint: Checkpoint) -> Place:
    if where.split_name and where.split_name in checkpoint.tensors:
        return Place(where.split_name)
    return where


def _assign(network: nn.Module, key: str, tensor: Tensor) -> None:
    owner_name, _, name = key.rpartition(".")
    owner = network.get_submodule(owner_name)
    if name in owner._parameters:
        owner._parameters[name] = nn.Parameter(tensor.view(owner._parameters[name].shape), requires_grad=False)
    else:
        owner._buffers[name] = tensor


def _rebuild_tables(network: Psalm, official_rounding: bool) -> None:
    """Position tables are in no checkpoint and were made on the meta device: take them from tiny modules with the same geometry."""
    config = network.config
    network.phi.rotary_emb = build_phi(replace(config.phi, vocab_size=1, num_hidden_layers=0)).rotary_emb
    if official_rounding:
        network.phi.rotary_emb = HalfRoundedRotary(network.phi.rotary_emb, config.phi.max_position_embeddings)
    tiny = Swin(SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=config.swin.window_size))
    table = next(buffer for name, buffer in tiny.named_buffers() if name.endswith(POSITION_TABLE))
    for name, _ in list(network.named_buffers()):
        if name.endswith(POSITION_TABLE):
            _assign(network, name, table)
    for name, buffer in list(network.named_buffers()):
        if not is_loaded(name):
            _assign(network, name, torch.zeros_like(buffer, device="cpu"))
    if stale := [n for n, t in [*network.named_parameters(), *network.named_buffers()] if t.is_meta]:
        raise AssertionError(f"tensors left without values: {stale}")


def _kind(config: PsalmConfig) -> str:
    """The named configuration these sizes are, whatever the vocabulary."""
    same = (n for n, c in NAMED_CONFIGS.items() if _with_vocabulary(c, config.phi.vocab_size) == config)
    return next(same, "custom sizes")


def _with_vocabulary(config: PsalmConfig, rows: int) -> PsalmConfig:
    return replace(config, phi=replace(config.phi, vocab_size=rows))


def _embedding_rows(checkpoint: Checkpoint) -> int | None:
    embed = checkpoint.tensors.get("model.embed_tokens.weight")
    return embed.shape[0] if embed is not None and embed.shape else None


def _vocabulary_notes(checkpoint: Checkpoint, tokenizer: FolderTokenizer) -> list[str]:
    """Where config.json and tokenizer.json disagree with the rows of embed_tokens, which are believed."""
    own: dict | None = checkpoint.config.get("psalm_stream")
    told = checkpoint.config.get("vocab_size") if own is None else own.get("phi", {}).get("vocab_size")
    rows, notes = _embedding_rows(checkpoint), []
    if rows is not None and told not in (None, rows):
        notes.append(f"config.json says {told} vocabulary rows, embed_tokens has {rows}; the tensor is believed")
    if rows is not None and tokenizer.size != rows:
        notes.append(f"tokenizer.json has {tokenizer.size} entries, embed_tokens has {rows} rows; a token id beyond the rows is an error")
    return notes

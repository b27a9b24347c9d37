"""The golden folder walked tensor by tensor: each recorded value is compared with ours, or listed in EXEMPT with a reason.

Reading cases, tolerances and the table are here; traces.py runs the network, results.py and cases.py say what each name means.
A name that is neither found nor exempt is a failure, so nothing recorded can be forgotten. JSON results are walked likewise, as `json:`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from math import isnan, prod
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("PSALM_GOLDEN") or ROOT / "../shared/golden/psalm-tiny")

FLOAT, HALF, SCORE, GRADIENT = 1e-4, 2e-3, 2e-4, 1e-3  # relative to the greatest value
PIXELS = 3e-5  # share of mask and label pixels
FRAGILE_MARGIN = 5e-5  # of |mask logit|: below, another order of summation may flip an attention key ...
FRAGILE, FRAGILE_PIXELS = 2e-2, 5e-3  # ... and every later layer moves

EXEMPT = (  # case/name, group, reason
    ("train_mmconv/*", "conversation", "a language-model loss; nothing of it is asked of this model"),
    ("*/*in.labels", "inputs", "language-model targets; no mask depends on them"),
    ("*/*rng.region_point_index", "inputs", "draws, fed to the pooling"),
    ("*/rng.rand.*", "inputs", "draws, replayed in the criterion"),
    ("*/in.random_idx", "inputs", "the draw that shuffles class names"),
    ("train_*/in.class_name_ids", "inputs", "no class name is recorded, the ids are fed"),
    ("train_*/in.cls_indices", "inputs", "no class name is recorded, the ids are fed"),
    ("train_*/in.token_refer_id.*", "inputs", "no sentence is recorded, the ids are fed"),
    ("train_*/in.region_masks.*", "inputs", "no original masks are recorded, the padded ones are fed"),
    ("region_box_fp16load/in.region_masks.*", "inputs", "no original masks are recorded, the padded ones are fed"),
    ("*/in.prompt_masks_original", "inputs", "prompts as drawn"),
    ("egoexo_*/*vp_mask_original.*", "inputs", "prompts as drawn"),
    ("video_*/video.*.first_frame_label", "inputs", "prompts as drawn"),
    ("preprocess/*.mask_packed", "inputs", "a random mask to pad"),
    ("postprocess/in.*", "inputs", "logits of the unit case"),
    ("*/in.gt_*", "inputs", "the truth, which the criterion and the metrics are given"),
    ("*/out.gt_mask_packed", "inputs", "the truth, which the metrics are given"),
    ("egoexo_*/*gt.*", "inputs", "the truth, which the metrics are given"),
    ("*/json:tensors", "the recording", "names and shapes of the tensors themselves"),
    ("*/json:padded_images", "the recording", "file names; the pictures are compared"),
    ("*/json:bit_packed_shapes", "the recording", "checked as the bits are unpacked"),
    ("*/json:out_masks_shape", "the recording", "checked as the bits are unpacked"),
    ("*/json:shapes", "the recording", "shapes of bits, whose number is checked"),
    ("*/json:*float64*", "the recording", "the official code against itself in float64"),
    ("*/json:sem_seg_argmax_margin_min", "the recording", "how near to a tie the official map is"),
    ("*/json:rope_cos_dtype_rounding", "the recording", "how far the official tables are from float32; the tables are compared"),
    ("*/out.topk_query_index", "the recording", "in which order an unsorted top-k names all queries; results are compared in it"),
    ("*/json:fragile", "the recording", "the worst of attn_mask_margin, which is compared"),
    ("*/json:note", "the recording", "a remark"),
    ("*/json:mode", "the recording", "a remark"),
    ("*/json:stdout", "the recording", "log text of the official loop; its decisions are compared"),
    *(
        (f"*/json:{key}", "inputs", "what was asked")
        for key in [
            "task",
            "image",
            "images",
            "height",
            "width",
            "sentences",
            "class_names",
            "is_thing",
            "region_type",
            "gt_polygons",
            "empty_mask_query",
            "resize",
            "topk",
            "rng_order",
            "num_points",
            "loss_weights",
            "dataset_type",
            "with_memory",
        ]
    ),
    *(
        (f"*/json:{entries}.*.{key}", "inputs", "what was asked")
        for entries, keys in {
            "items": "image height width",
            "frames": "index video image first_frame_image height width gt_ids_in_frame first_frame_ids",
            "samples": "take image vp_image height width ids sentences",
        }.items()
        for key in keys.split()
    ),
)
SHAPES = {"out.masks_packed": "out_masks_shape"}  # bits whose shape the JSON tells elsewhere
ENLARGED = 4  # pixels of the square that one pixel of a remembered mask may become
LABEL_MAPS = ("out.sem_seg_argmax", "out.panoptic_seg", "out.fused")


@dataclass(frozen=True)
class Rows:
    """Values [B, T, ...] of which only the first `lengths[b]` rows of each sample mean anything."""

    values: Tensor
    lengths: tuple[int, ...]

    def of(self, values: Tensor) -> Tensor:
        """The rows of `values` that mean anything, of all samples, one after the other."""
        return torch.cat([sample[:length] for sample, length in zip(values, self.lengths, strict=True)])


@dataclass(frozen=True)
class Near:
    """A JSON number, or list of numbers, that may be off by `margin`, or by `loose` behind a fragile layer."""

    value: object
    margin: float
    loose: float


Found = dict[str, object]  # our values by recorded name: Tensor, Rows, or for `json:` names plain values and Near


@dataclass(frozen=True)
class Case:
    """One case file. told: its JSON; tensors: loaded once."""

    name: str
    told: Mapping[str, object]
    tensors: Mapping[str, Tensor] = field(repr=False)

    def bits(self, name: str) -> Tensor:
        """A bit-packed tensor of known shape, bool."""
        return unpack(self.tensors[name], self.told["bit_packed_shapes"][name])

    @cached_property
    def entries(self) -> str | None:
        """The key of the JSON list whose entries are walked one by one."""
        return next((key for key in ("items", "frames", "samples") if key in self.told), None)

    def json_results(self) -> dict[str, object]:
        """Everything the JSON says, by name: `json:KEY`, or `json:frames.N.KEY` for lists of items."""
        flat = {f"json:{key}": value for key, value in self.told.items() if key != self.entries}
        for number, entry in enumerate(self.told.get(self.entries, ())):
            flat |= {f"json:{self.entries}.{number}.{key}": value for key, value in entry.items()}
        return flat


@dataclass
class Report:
    """What a walk came to: tensors, JSON results and padded pictures compared; exempt: tensors, by group; problems: one line each."""

    compared: int = 0
    results: int = 0
    pictures: int = 0
    exempt: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def has_golden() -> bool:
    """Whether the folder is there. Raises FileNotFoundError when PSALM_GOLDEN names one that is not: then no test may skip."""
    index = GOLDEN / "index.json"
    if os.environ.get("PSALM_GOLDEN") and not index.exists():
        raise FileNotFoundError(f"PSALM_GOLDEN is {GOLDEN}, expected a folder of golden data, with index.json; correct it, or unset it")
    return index.exists()


def case_names() -> list[str]:
    """Every case file; [] without a golden folder. Raises FileNotFoundError as `has_golden`."""
    if not has_golden():
        return []
    return sorted(file.stem for file in (GOLDEN / "cases").glob("*.json"))


@cache
def load_case(name: str) -> Case:
    """Read a case file."""
    return Case(name, json.loads((GOLDEN / f"cases/{name}.json").read_text()), load_file(GOLDEN / f"cases/{name}.safetensors"))


@cache
def sizes() -> dict[str, object]:
    """The golden config.json."""
    return json.loads((GOLDEN / "config.json").read_text())


def pixels(name: str) -> np.ndarray:
    """A picture of the golden folder, uint8 [H, W, 3]."""
    return np.asarray(Image.open(GOLDEN / name).convert("RGB"))


def unpack(packed: Tensor, shape: Iterable[int]) -> Tensor:
    """numpy.packbits undone: bool of this shape."""
    shape = tuple(shape)
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=prod(shape)).reshape(shape)).bool()


def few(elements: int, loose: bool = False) -> float:
    """How many pixels of so many may differ."""
    return max(1, (FRAGILE_PIXELS if loose else PIXELS) * elements)


def walk(case: Case, found: Found, loose: Iterable[str] = ()) -> Report:
    """Compare every recorded name of a case with ours. loose: patterns of names behind a fragile layer."""
    report, loose = Report(), tuple(loose)
    told = case.json_results()
    for name in [*case.tensors, *told]:
        group = next((group for pattern, group, _ in EXEMPT if fnmatchcase(f"{case.name}/{name}", pattern)), None)
        if group:
            report.exempt[group] += name not in told
            continue
        slack = any(fnmatchcase(name, pattern) for pattern in loose)
        report.results += name in told
        report.compared += name not in told
        if name not in found:
            report.problems.append(f"{name}: neither found by us nor in EXEMPT")
        elif problem := _figure(name, found[name], told[name], slack) if name in told else _tensor(case, name, found[name], slack):
            report.problems.append(f"{name}: {problem}")
    for name, (ours, recorded) in ((n, v) for n, v in found.items() if n.startswith("picture:")):
        report.pictures += 1
        report.problems += [] if np.array_equal(ours, recorded) else [f"{name}: padded picture differs"]
    return report


def _tensor(case: Case, name: str, ours: Tensor | Rows, loose: bool) -> str | None:
    recorded = case.tensors[name]
    if isinstance(ours, Rows):
        ours, recorded = ours.of(ours.values), ours.of(recorded)
    ours = ours.detach()
    if ours.dtype == torch.bool:
        shape = case.told.get("bit_packed_shapes", {}).get(name) or case.told.get(SHAPES.get(name), ours.shape)
        if tuple(shape) != ours.shape or recorded.numel() != -(-ours.numel() // 8):
            return f"shape {tuple(ours.shape)}, recorded {tuple(shape)} in {recorded.numel()} bytes"
        recorded = unpack(recorded, shape)
    if ours.shape != recorded.shape:
        return f"shape {tuple(ours.shape)}, recorded {tuple(recorded.shape)}"
    if recorded.dtype.is_floating_point:
        return _floats(ours.float(), recorded.float(), _tolerance(name, recorded.dtype, loose))
    differing = int((ours != recorded).sum())
    return f"{differing} of {ours.numel()} differ" if differing > _differing(case, name, ours, loose) else None


def _differing(case: Case, name: str, ours: Tensor, loose: bool) -> float:
    """How many elements may differ: pixels of predicted masks and label maps; none of anything else."""
    if name.endswith("in.vp_region_masks"):
        remembered = "frames" in case.told and case.told["frames"][int(name[1:].split(".")[0])]["vp_source"] == "memory"
        return ENLARGED * few(ours.numel(), loose) if remembered else 0
    predicted = name.endswith(LABEL_MAPS) or name.endswith(("masks_packed", "pred_packed"))
    return few(ours.numel(), loose) if predicted else 0


def _tolerance(name: str, dtype: torch.dtype, loose: bool) -> float:
    if loose:
        return FRAGILE
    if dtype == torch.float16:
        return HALF
    return SCORE if name.endswith(".scores") else FLOAT


def _floats(ours: Tensor, recorded: Tensor, tolerance: float) -> str | None:
    if not recorded.numel():
        return None
    off, scale = (ours - recorded).abs().max().item(), recorded.abs().max().item()
    return None if off <= tolerance * scale else f"off by {off / scale if scale else off:.2g}, {tolerance:g} allowed"


def _figure(name: str, ours: object, recorded: object, loose: bool) -> str | None:
    tolerance = FRAGILE if loose else SCORE if "score" in name else FLOAT
    if isinstance(ours, dict) and isinstance(recorded, dict):  # name the entries that are off, not all
        keys = [key for key in ours.keys() | recorded.keys() if not _agree(ours.get(key), recorded.get(key), tolerance, loose)]
        ours, recorded = ({key: values.get(key) for key in sorted(keys)} for values in (ours, recorded))
    return None if _agree(ours, recorded, tolerance, loose) else f"ours {ours}, recorded {recorded}"


def _agree(ours: object, recorded: object, tolerance: float, loose: bool) -> bool:
    match ours, recorded:
        case Near(list(values)), list():
            return _agree([Near(v, ours.margin, ours.loose) for v in values], recorded, tolerance, loose)
        case dict(), dict():
            return set(ours) == set(recorded) and all(_agree(ours[key], recorded[key], tolerance, loose) for key in recorded)
        case ((list() | tuple()), list()):
            pairs = zip(ours, recorded, strict=False)
            return len(ours) == len(recorded) and all(_agree(a, b, tolerance, loose) for a, b in pairs)
        case Near(float(value)), float():
            return abs(value - recorded) <= (ours.loose if loose else ours.margin) or (isnan(value) and isnan(recorded))
        case float(), float():
            return abs(ours - recorded) <= tolerance * abs(recorded)
    return ours == recorded

"""COCO's layouts for pictures: categories, panoptic ids as colours, segments, run-lengths in JSON.

Values only; which files hold them is the business of who writes (workers/images.py) or scores (eval/).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput
from .types import Rle

VOID = 0  # the panoptic id of a pixel that belongs to no segment


@dataclass(frozen=True, slots=True)
class Category:
    """A category as COCO lists it. is_thing: countable, so that each of its objects is a segment of its own."""

    id: int
    name: str
    is_thing: bool


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises BadInput."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no JSON that can be read ({error}); write it again") from error


def categories_of(document: Any, where: str) -> tuple[Category, ...]:
    """The categories of a COCO document: a list of them, or an object that has one under `categories`; without isthing, all are things.

    where: names the document in errors. Raises BadInput.
    """
    listed = document.get("categories") if isinstance(document, Mapping) else document
    try:
        found = tuple(Category(int(c["id"]), str(c["name"]), bool(c.get("isthing", 1))) for c in listed)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(f"{where}: no list of categories with id and name in it ({error!r}), as COCO's annotation files have one") from error
    ids, names = {c.id for c in found}, {c.name for c in found}
    if not found or len(ids) < len(found) or len(names) < len(found):
        raise BadInput(f"{where}: {len(found)} categories, {len(ids)} ids, {len(names)} names; expected as many of each, and at least one")
    return found


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Panoptic ids as the colours of a panoptic PNG: int [H, W] below 256^3 -> uint8 [H, W, 3], id = R + 256 G + 256^2 B."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """The inverse of `ids_to_rgb`: uint8 [H, W, 3] -> int32 [H, W]."""
    return rgb.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)


def segments_info(ids: np.ndarray, category_ids: Mapping[int, int]) -> list[dict[str, Any]]:
    """A panoptic map's segments as COCO lists them: id, category_id, area in pixels, bbox x, y, width, height, iscrowd 0.

    ids: int [H, W], 0 is void; category_ids: of every other id. A segment without a pixel is left out.
    """
    segments = []
    for segment_id, category_id in category_ids.items():
        rows, columns = np.nonzero(ids == segment_id)
        if len(rows):
            x, y = int(columns.min()), int(rows.min())
            bbox = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
            segments.append({"id": segment_id, "category_id": category_id, "area": len(rows), "bbox": bbox, "iscrowd": 0})
    return segments


def rle_json(rle: Rle) -> dict[str, Any]:
    """A run-length as COCO's results write it: size [height, width] and counts as text."""
    return {"size": list(rle.size_hw), "counts": rle.counts.decode("ascii")}

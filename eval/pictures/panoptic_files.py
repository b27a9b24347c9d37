"""COCO's panoptic files, truth and answers, picture by picture through the panoptic metrics.

A JSON lists the segments of each picture, a folder of its name (without .json) holds the PNGs whose colours are their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...stream.coco import VOID, Category, categories_of, read_json, rgb_to_ids
from ...stream.errors import BadInput
from .panoptic_metrics import Quality, Tally, TruthSegment, add_picture, pixel_counts, quality


@dataclass(frozen=True, slots=True)
class PanopticFiles:
    """A JSON and its PNGs. folder: None for the one beside the JSON that has its name."""

    json: Path
    folder: Path | None = None

    def pictures(self) -> tuple[Any, dict[int, Mapping[str, Any]]]:
        """The document, and its annotations by picture id. Raises BadInput."""
        document = read_json(self.json)
        try:
            return document, {int(a["image_id"]): a for a in document["annotations"]}
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{self.json}: no annotations with image_id in it ({error!r}); expected COCO's panoptic format") from error

    def ids(self, annotation: Mapping[str, Any]) -> np.ndarray:
        """The id map of one picture, int32 [H, W]. Raises BadInput."""
        name = annotation.get("file_name")
        if not isinstance(name, str):
            raise BadInput(f"{self.json}, picture {annotation['image_id']}: file_name is {name!r}, expected the name of its PNG")
        path = (self.folder or self.json.with_suffix("")) / name
        try:
            with Image.open(path) as image:
                return rgb_to_ids(np.array(image.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            raise BadInput(f"panoptic picture {path} cannot be read ({error}); check the folder of {self.json}") from error


@dataclass(frozen=True, slots=True)
class PanopticScore:
    """Tallies by category over all pictures, by panopticapi and corrected (see panoptic_metrics.add_picture)."""

    pictures: int
    categories: tuple[Category, ...]
    official: Mapping[int, Tally]
    corrected: Mapping[int, Tally]

    def quality(self, is_thing: bool | None = None, corrected: bool = False) -> Quality:
        """PQ, SQ and RQ over all categories, or only over things or stuff."""
        tallies = self.corrected if corrected else self.official
        return quality(tallies[c.id] for c in self.categories if is_thing is None or c.is_thing == is_thing)


def score_panoptic(truth: PanopticFiles, answers: PanopticFiles, advance: Callable[[int], None] = lambda total: None) -> PanopticScore:
    """Score every picture of the truth; answers for others are passed over. advance(total) is called after each.

    Raises BadInput for a picture without answer, maps of different sizes, and answers whose PNG and JSON do not list the same segments or
    name an unknown category, as panopticapi does.
    """
    document, true_pictures = truth.pictures()
    categories = categories_of(document, str(truth.json))
    _, answered_pictures = answers.pictures()
    if missing := [i for i in true_pictures if i not in answered_pictures]:
        raise BadInput(f"{answers.json} lacks {len(missing)} of {len(true_pictures)} pictures, the first is {missing[0]}; answer them all")
    known = {c.id for c in categories}
    official, corrected = ({i: Tally() for i in known} for _ in range(2))
    for image_id, annotation in true_pictures.items():
        answered = answered_pictures[image_id]
        true_ids, answered_ids = truth.ids(annotation), answers.ids(answered)
        if true_ids.shape != answered_ids.shape:
            raise BadInput(f"picture {image_id}: the answer is {answered_ids.shape}, the truth {true_ids.shape}; answer at source size")
        counts = pixel_counts(true_ids, answered_ids)
        segments = _true_segments(annotation, known, truth.json)
        answer = _answered_segments(answered, known, {a for _, a in counts}, answers.json)
        add_picture(official, counts, segments, answer)
        add_picture(corrected, counts, segments, answer, corrected=True)
        advance(len(true_pictures))
    return PanopticScore(len(true_pictures), categories, official, corrected)


def _true_segments(annotation: Mapping[str, Any], known: set[int], where: Path) -> list[TruthSegment]:
    try:
        found = [
            TruthSegment(int(s["id"]), int(s["category_id"]), int(s["area"]), bool(s.get("iscrowd", 0)))
            for s in annotation["segments_info"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{where}, picture {annotation['image_id']}: {error!r}; expected segments_info with id, category_id, area"
        ) from error
    if strange := [s for s in found if s.category_id not in known]:
        raise BadInput(
            f"{where}, picture {annotation['image_id']}: segment {strange[0].id} has the unknown category {strange[0].category_id}"
        )
    return found


def _answered_segments(annotation: Mapping[str, Any], known: set[int], painted: set[int], where: Path) -> dict[int, int]:
    name = f"{where}, picture {annotation['image_id']}"
    try:
        found = {int(s["id"]): int(s["category_id"]) for s in annotation["segments_info"]}
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{name}: {error!r}; expected segments_info with id and category_id") from error
    if strange := [i for i, category in found.items() if category not in known]:
        raise BadInput(f"{name}: segment {strange[0]} has the unknown category {found[strange[0]]}; use the ids of the truth's categories")
    if unlisted := sorted(painted - found.keys() - {VOID}):
        raise BadInput(f"{name}: its PNG has id {unlisted[0]}, which segments_info does not list; paint 0 where there is no segment")
    if unpainted := sorted(found.keys() - painted):
        raise BadInput(f"{name}: segments_info lists id {unpainted[0]}, which no pixel of its PNG has; leave it out")
    return found

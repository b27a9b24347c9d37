"""Files of expressions and drawn shapes: what is asked and true, what was answered, and the truth's masks as PSALM's evaluation draws them.

Truth, either a line of JSON a question (`.jsonl`):
    {"id": "7", "image": "a.jpg", "size": [H, W], "sentences": ["the red cup"], "segmentation": S, "prompt": P}
or PSALM's own JSON files (`.json`; one question an item for referring, one a region for interactive). S is null (nothing answers to it), a
COCO run-length or a list of polygons; P, the drawn shape's run-length, and what only asking needs (image, sentences) may be left out.
Answers, a line of JSON each: {"id": "7", "segmentation": run-length or null}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco

from ...stream.coco import read_json
from ...stream.errors import BadInput
from ...stream.rle import decode
from ...stream.types import Rle

PROMPTS = ("point", "scribble", "box", "mask")  # of PSALM's interactive files, each as `<name>_visual_prompt_mask`


@dataclass(frozen=True, slots=True)
class Question:
    """One sample. segmentations: COCO's, their union is the truth, none for no target; prompts: drawn shapes by kind, run-lengths."""

    id: str
    image: str
    size_hw: tuple[int, int]
    sentences: tuple[str, ...] = ()
    segmentations: tuple[Any, ...] = field(default=(), repr=False)
    prompts: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_questions(path: Path, interactive: bool = False) -> list[Question]:
    """The questions of a file, in its order. interactive: of PSALM's JSON, a question is a region and not an item. Raises BadInput."""
    entries = list(_lines(path)) if path.suffix == ".jsonl" else _items(path, interactive)
    questions = []
    for number, entry in enumerate(entries, start=1):
        try:
            questions.append(_question(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path}, question {number}: {error!r}; expected id, size [height, width] and segmentation") from error
    if twice := len(questions) - len({q.id for q in questions}):
        raise BadInput(f"{path}: {twice} ids are there more than once; give each question its own")
    return questions


def read_answers(path: Path) -> dict[str, Any]:
    """The answered segmentations by question id, None for no pixel. Raises BadInput."""
    answers: dict[str, Any] = {}
    for number, entry in enumerate(_lines(path), start=1):
        try:
            name, answered = str(entry["id"]), entry["segmentation"]
        except (KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {number}: {error!r}; expected an object with id and segmentation") from error
        if name in answers:
            raise BadInput(f"{path}, line {number}: id {name} was answered before; answer every question once")
        answers[name] = answered
    return answers


def mask_of(segmentation: Any, size_hw: tuple[int, int], polygons: Literal["official", "coco"] = "official") -> np.ndarray:
    """The mask of a COCO segmentation, bool [H, W]: none of it for null, a run-length as it is, polygons drawn.

    polygons: 'official', as PSALM's referring evaluation draws them, with corners cut to whole pixels and both ends included; 'coco', by
    COCO's own rules. Raises BadInput.
    """
    if segmentation is None or segmentation == []:
        return np.zeros(size_hw, bool)
    try:
        if isinstance(segmentation, list) and polygons == "official":
            canvas = np.zeros(size_hw, np.uint8)
            for polygon in segmentation:
                cv2.fillPoly(canvas, [np.array(polygon, float).reshape(-1, 2).astype(np.int32)], 1)
            return canvas.astype(bool)
        if isinstance(segmentation, list):
            return draw_coco(segmentation, size_hw)
        size, counts = tuple(segmentation["size"]), segmentation["counts"]
        if isinstance(counts, list):
            counts = coco.frPyObjects(segmentation, *size)["counts"]
        mask = decode(Rle(size, counts.encode() if isinstance(counts, str) else counts))
    except (KeyError, TypeError, ValueError, IndexError, cv2.error) as error:
        raise BadInput(
            f"segmentation {str(segmentation)[:60]} cannot be read ({error!r}), expected polygons or a COCO run-length"
        ) from error
    if mask.shape != tuple(size_hw):
        raise BadInput(f"run-length is of {mask.shape}, its picture {tuple(size_hw)} (height, width); send it at source size")
    return mask


def draw_coco(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """All of several polygons by COCO's rules, bool [H, W]."""
    return decode(Rle(tuple(size_hw), coco.merge(coco.frPyObjects(polygons, *size_hw))["counts"]))


def union_of(segmentations: tuple[Any, ...], size_hw: tuple[int, int], polygons: Literal["official", "coco"] = "official") -> np.ndarray:
    """All of several segmentations, bool [H, W]; nothing of none. Raises BadInput."""
    total = np.zeros(size_hw, bool)
    for segmentation in segmentations:
        total |= mask_of(segmentation, size_hw, polygons)
    return total


def _question(entry: Mapping[str, Any]) -> Question:
    height, width = (int(side) for side in entry["size"])
    sentences = entry.get("sentences", ())
    segmentations = entry["segmentations"] if "segmentations" in entry else [entry["segmentation"]]
    prompts = entry.get("prompts") or ({"mask": entry["prompt"]} if entry.get("prompt") else {})
    return Question(
        str(entry["id"]),
        str(entry.get("image", "")),
        (height, width),
        (sentences,) if isinstance(sentences, str) else tuple(sentences),
        tuple(s for s in segmentations if s),
        prompts,
    )


def _items(path: Path, interactive: bool) -> Iterator[dict[str, Any]]:
    """The entries of PSALM's JSON in the layout of ours."""
    for item in read_json(path):
        try:
            info = item["image_info"]
            entry = {"image": info["file_name"], "size": [info["height"], info["width"]]}
            if not interactive:
                sentences = [said["sent"] for said in item["instruction"]]
                truth = [ann["segmentation"] for ann in item["anns"] or ()]
                yield {**entry, "id": item["new_img_id"], "sentences": sentences, "segmentations": truth}
                continue
            for number, ann in enumerate(item["anns"]):
                prompts = {kind: ann[f"{kind}_visual_prompt_mask"] for kind in PROMPTS if ann.get(f"{kind}_visual_prompt_mask")}
                name = f"{item['new_img_id']}/{ann.get('id', number)}"
                yield {**entry, "id": name, "segmentations": [ann["segmentation"]], "prompts": prompts}
        except (KeyError, TypeError) as error:
            raise BadInput(f"{path}: an item lacks {error}; expected PSALM's layout: image_info, anns, new_img_id, instruction") from error


def _lines(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise BadInput(f"{path}, line {number} is no JSON ({error}); expected an object a line") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error}); check the path") from error

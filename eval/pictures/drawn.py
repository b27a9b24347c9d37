"""A benchmark of drawn pictures with exact truth, in the layouts that `eval` and `score` read: expressions, drawn shapes, categories.

The scenes are those nano is trained on (psalm/train/scenes.py), of other seeds. For trying the commands out, and for nano's own figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ...psalm.train.clip import CATEGORIES, Clip, categories, sentences
from ...psalm.train.scenes import draw_clip
from ...stream import rle
from ...stream.coco import ids_to_rgb, rle_json, segments_info

SEED = 20_000  # first of a pair with the picture's number: none of training's, which are triples
SIDE = 512
SMALLEST_PX = 400  # an object's visible pixels, to be asked for
PICTURES, EXPRESSIONS, SHAPES, PANOPTIC = "pictures", "expressions.jsonl", "shapes.jsonl", "panoptic"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture, uint8 [H, W, 3] RGB; labels: uint8 [H, W], 0 or the object_id that is visible; clip: what is in it, last frame."""

    name: str
    image: np.ndarray
    labels: np.ndarray
    clip: Clip

    @property
    def objects(self) -> list[int]:
        """The ids of objects that are large enough to be asked for."""
        return [o.object_id for o in self.clip.objects if (self.labels == o.object_id).sum() >= SMALLEST_PX]


def draw_picture(number: int) -> Drawn:
    """The picture of a number; always the same."""
    clip = draw_clip(np.random.default_rng([SEED, number]), SIDE)
    height, width = clip.valid_hw
    image, labels = (np.ascontiguousarray(frames[-1][:height, :width]) for frames in (clip.images, clip.labels))
    return Drawn(f"{number + 1:05d}.png", image, labels, clip)


def write_benchmark(folder: Path, count: int, advance: Callable[[], None] = lambda: None) -> None:
    """Draw `count` pictures and write them with all that is true of them; advance() is called after each."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    (folder / PANOPTIC).mkdir(exist_ok=True)
    listed = [{"id": n, "name": name, "isthing": 1} for n, name in enumerate(CATEGORIES, start=1)]
    panoptic: dict[str, Any] = {"images": [], "annotations": [], "categories": listed}
    with (folder / EXPRESSIONS).open("w") as expressions, (folder / SHAPES).open("w") as shapes:
        for number in range(count):
            drawn = draw_picture(number)
            Image.fromarray(drawn.image).save(folder / PICTURES / drawn.name)
            expressions.writelines(json.dumps(entry) + "\n" for entry in _expressions(drawn))
            shapes.writelines(json.dumps(entry) + "\n" for entry in _shapes(drawn))
            _add_panoptic(panoptic, drawn, number + 1, folder)
            advance()
    (folder / f"{PANOPTIC}.json").write_text(json.dumps(panoptic))


def prompts_of(mask: np.ndarray) -> dict[str, np.ndarray]:
    """What a user might draw on an object, bool [H, W] each: its deepest pixel, a bent stroke through it, its box, its blurred mask.

    The rough mask is made as PSALM's training data were: a Gaussian blur of 2 px, cut at its own mean.
    """
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    point, box, stroke = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool), np.zeros(mask.shape, np.uint8)
    deepest = np.unravel_index(depth.argmax(), mask.shape)
    point[deepest] = True
    rows, columns = np.nonzero(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    inner = np.flatnonzero((depth >= 0.5 * depth.max()).ravel())
    ends = [divmod(int(inner[k * (len(inner) - 1) // 2]), mask.shape[1]) for k in (0, 1, 2)]
    cv2.polylines(stroke, [np.array([(x, y) for y, x in ends], np.int32)], isClosed=False, color=1)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)
    return {"point": point, "scribble": stroke.astype(bool), "box": box, "mask": soft > soft.mean()}


def _expressions(drawn: Drawn) -> list[dict[str, Any]]:
    """One sentence for every object that can be told from the others, the first that is true of it alone."""
    said: dict[int, str] = {}
    for sentence, object_id in sentences(drawn.clip, len(drawn.clip.images) - 1):
        said.setdefault(object_id, sentence)
    return [_question(drawn, i) | {"sentences": [said[i]]} for i in drawn.objects if i in said]


def _shapes(drawn: Drawn) -> list[dict[str, Any]]:
    found = []
    for object_id in drawn.objects:
        shapes = prompts_of(drawn.labels == object_id)
        found.append(_question(drawn, object_id) | {"prompts": {kind: rle_json(rle.encode(mask)) for kind, mask in shapes.items()}})
    return found


def _question(drawn: Drawn, object_id: int) -> dict[str, Any]:
    truth = rle_json(rle.encode(drawn.labels == object_id))
    return {"id": f"{Path(drawn.name).stem}/{object_id}", "image": drawn.name, "size": drawn.labels.shape, "segmentation": truth}


def _add_panoptic(document: dict[str, Any], drawn: Drawn, image_id: int, folder: Path) -> None:
    """Objects that have a category are segments, everything else is void."""
    known = {o.object_id: CATEGORIES.index(o.category) + 1 for o in drawn.clip.objects if o.category}
    named = np.isin(drawn.labels, list(known)) if categories(drawn.clip, len(drawn.clip.images) - 1) else np.zeros(drawn.labels.shape, bool)
    ids = np.where(named, drawn.labels, 0).astype(np.int32)
    Image.fromarray(ids_to_rgb(ids)).save(folder / PANOPTIC / drawn.name)
    height, width = ids.shape
    document["images"].append({"id": image_id, "file_name": drawn.name, "height": height, "width": width})
    document["annotations"].append({"image_id": image_id, "file_name": drawn.name, "segments_info": segments_info(ids, known)})

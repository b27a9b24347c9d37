"""The results folder of `psalm-stream segment`, written picture by picture, so that what is there is whole whenever a run stops.

    masks/NAME.png      indexed PNG, value = object id (of a segment, a sentence, a shape)      overlay/NAME.jpg     what people look at
    masks.jsonl         a line a picture: its objects with run-lengths and scores               run.json             what was run
    panoptic/NAME.png   COCO panoptic format, with panoptic.json                                semantic/NAME.png    value = category number
    instances.json      COCO results format

The last three are written for categories alone. masks.jsonl carries what panoptic.json and instances.json are put together from at the
end: a run that died can be resumed from it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from ..stream import rle
from ..stream.coco import ids_to_rgb, rle_json, segments_info
from ..stream.codec import mask_frame_json
from ..stream.errors import BadConfig
from ..stream.paint import PALETTE, label_map, overlay
from ..stream.sinks import write_label_map
from .images import ImageJob, Segmented
from .run import versions
from .settings import mask_settings

MASKS, OVERLAY, PANOPTIC, SEMANTIC = "masks", "overlay", "panoptic", "semantic"
LINES, PANOPTIC_JSON, INSTANCES_JSON, RECORD = "masks.jsonl", "panoptic.json", "instances.json", "run.json"
EVERYTHING = (MASKS, OVERLAY, PANOPTIC, SEMANTIC, LINES, PANOPTIC_JSON, INSTANCES_JSON, RECORD)
UNDECIDED = 255  # a category number no pixel of a semantic PNG has; more than 255 categories make it 16 bits deep
JPEG_QUALITY = 92


def image_ids(job: ImageJob) -> dict[str, int]:
    """COCO's id of every picture, by file name: from the COCO file the categories are from; else the number that is its name, as COCO's
    pictures are called; else counted from 1."""
    listed = job.naming.document.get("images", ()) if isinstance(job.naming.document, dict) else ()
    known = {Path(entry["file_name"]).stem: int(entry["id"]) for entry in listed}
    stems = [path.stem for path in job.images]
    if all(stem in known for stem in stems):
        ids = [known[stem] for stem in stems]
    elif all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        ids = [int(stem) for stem in stems]
    else:
        ids = list(range(1, len(stems) + 1))
    return dict(zip((path.name for path in job.images), ids, strict=True))


def record_of(job: ImageJob, digest: str) -> dict[str, object]:
    """What it takes to run the job again and get the same results, as plain values."""
    asked = {"task": job.task, "generalized": job.generalized, **job.naming.said()}
    return {"asked": asked, "settings": mask_settings(job.settings), "weights_digest": digest, "versions": versions()}


class PictureFiles:
    """The folder of one job. resume: go on after the pictures that are in it. A context manager: leaving it puts the COCO files together.

    Raises BadConfig for a folder that cannot be written, or holds results of another question.
    """

    def __init__(self, job: ImageJob, digest: str, resume: bool = False) -> None:
        self.job, self.ids = job, image_ids(job)
        record = record_of(job, digest)
        try:
            if resume:
                self.done = _resumed(job.out, record)
            else:
                _clear(job.out)
                self.done = frozenset()
            folders = (MASKS, *((OVERLAY,) if job.overlay else ()), *((PANOPTIC, SEMANTIC) if job.naming.categories else ()))
            for folder in folders:
                (job.out / folder).mkdir(parents=True, exist_ok=True)
            (job.out / RECORD).write_text(json.dumps(record, indent=2) + "\n")
            self._lines = open(job.out / LINES, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise BadConfig(f"--out {job.out} cannot be written ({error}); choose a folder that can") from error

    def __enter__(self) -> PictureFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        if self.job.naming.categories:
            _assemble(self.job)

    def write(self, found: Segmented) -> None:
        """Write everything of one picture; its line comes last, and says that the rest is there."""
        out, name = self.job.out, found.path.stem
        write_label_map(out / MASKS / f"{name}.png", label_map(found.masks))
        if self.job.overlay:
            picture = overlay(found.frame.pixels(), found.masks, found.frame.size_hw)
            _whole(out / OVERLAY / f"{name}.jpg", lambda part: Image.fromarray(picture).save(part, format="JPEG", quality=JPEG_QUALITY))
        line = {"image": found.path.name, **mask_frame_json(found.masks)}
        if self.job.naming.categories:
            line |= self._categories(found, name)
        self._lines.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _categories(self, found: Segmented, name: str) -> dict[str, Any]:
        out, image_id = self.job.out, self.ids[found.path.name]
        height, width = found.frame.size_hw
        line: dict[str, Any] = {"coco_image": {"id": image_id, "file_name": found.path.name, "height": height, "width": width}}
        if found.semantic is not None:
            _write_numbers(out / SEMANTIC / f"{name}.png", found.semantic, len(self.job.naming.categories))
        if found.panoptic is not None:
            _whole(out / PANOPTIC / f"{name}.png", lambda part: Image.fromarray(ids_to_rgb(found.panoptic)).save(part, format="PNG"))
            category_ids = {segment: self.job.naming.categories[label].id for segment, label in found.labels.items()}
            segments = segments_info(found.panoptic, category_ids)
            line["panoptic"] = {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments}
        if found.instances is not None:
            line["instances"] = self._instances(found, image_id)
        return line

    def _instances(self, found: Segmented, image_id: int) -> list[dict[str, Any]]:
        """COCO results of one picture, the best first; masks without a pixel are left out."""
        results = []
        for row in found.instances.scores.argsort(descending=True).tolist():
            mask = rle.encode(found.instances.masks[row].cpu().numpy())
            if rle.area(mask):
                category = self.job.naming.categories[int(found.instances.labels[row])]
                bbox = coco.toBbox({"size": list(mask.size_hw), "counts": mask.counts}).tolist()
                score = round(float(found.instances.scores[row]), 6)
                results.append(
                    {"image_id": image_id, "category_id": category.id, "segmentation": rle_json(mask), "score": score, "bbox": bbox}
                )
        return results


def _write_numbers(path: Path, numbers: np.ndarray, categories: int) -> None:
    """Category numbers as an indexed PNG, colours of the palette from its second on; as 16-bit grey where 8 bits are too few."""
    if categories > UNDECIDED:
        image = Image.fromarray(numbers.astype(np.uint16))
    else:
        image = Image.fromarray(numbers.astype(np.uint8))
        image.putpalette(np.roll(PALETTE, -1, axis=0).tobytes())
    _whole(path, lambda part: image.save(part, format="PNG"))


def _whole(path: Path, save: Callable[[Path], None]) -> None:
    """Write under another name first, so that a file of the final name is whole."""
    part = path.with_suffix(".part")
    save(part)
    os.replace(part, path)


def _clear(out: Path) -> None:
    """Make the folder, and take away what an earlier run wrote there; nothing else in it is touched."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / name for name in EVERYTHING):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _resumed(out: Path, record: dict[str, object]) -> frozenset[str]:
    """File names of the pictures that are done; a line that was cut off is taken away. Raises BadConfig for another question's folder."""
    if not (out / RECORD).exists():
        raise BadConfig(f"--resume: {out} holds no {RECORD} of an earlier run; leave --resume out")
    refuse_other_record(out / RECORD, record)
    lines = (out / LINES).read_text(encoding="utf-8").splitlines(keepends=True) if (out / LINES).exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    (out / LINES).write_text("".join(whole), encoding="utf-8")
    return frozenset(json.loads(line)["image"] for line in whole)


def refuse_other_record(path: Path, record: Mapping[str, object]) -> None:
    """Raise BadConfig where an earlier run's record says that it asked something else, or with other settings or weights."""
    before = json.loads(path.read_text(encoding="utf-8"))
    for name in ("asked", "settings", "weights_digest"):
        if before.get(name) != json.loads(json.dumps(record[name])):
            raise BadConfig(f"{path.parent} was made with other {name.replace('_', ' ')} ({path.name} says which); choose another folder")


def _assemble(job: ImageJob) -> None:
    """panoptic.json and instances.json from the lines, those of the task."""
    if job.task == "panoptic":
        images = [line["coco_image"] for line in _read_lines(job.out)]
        annotations = [line["panoptic"] for line in _read_lines(job.out)]
        document = {"images": images, "annotations": annotations, "categories": job.naming.said()["categories"]}
        (job.out / PANOPTIC_JSON).write_text(json.dumps(document) + "\n")
    if job.task in ("panoptic", "instance"):
        with open(job.out / INSTANCES_JSON, "w", encoding="utf-8") as file:
            file.writelines(_array(json.dumps(item) for line in _read_lines(job.out) for item in line["instances"]))


def _array(items: Iterable[str]) -> Iterator[str]:
    """The text of a JSON array, an item a line, without holding them all."""
    separator = "[\n"
    for item in items:
        yield separator + item
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _read_lines(out: Path) -> Iterator[dict[str, Any]]:
    with open(out / LINES, encoding="utf-8") as file:
        yield from map(json.loads, file)

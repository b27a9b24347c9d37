"""The questions of a referring or interactive benchmark, put to the model: pictures and questions in, a line of JSON an answer out.

A question is asked as `psalm-stream segment` asks (workers/images.py), and as PSALM's evaluation does: all sentences of a question at once,
all regions of a picture at once. Scoring is referring_scores.py's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from ...psalm.interactive import pick_shapes
from ...psalm.visual_prompts import POINT_RADIUS_PX, SCRIBBLE_RADIUS_PX, grow
from ...stream import rle
from ...stream.coco import rle_json
from ...stream.errors import BadInput
from ...stream.types import Box, Frame, Mask, Points, Region, Regions, Request, Scribble, Sentence, Shape
from ...workers.images import Looker, read_picture, referred
from .referring_files import Question, mask_of

PREDICTIONS = "predictions.jsonl"
TOGETHER = 8  # sentences about a picture in one batch: it is encoded once for them
Prompt = Literal["point", "scribble", "box", "mask"]


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are asked. prompt: which of a region's drawn shapes, None for sentences; generalized and official: see `referred` and
    `pick_shapes`."""

    images: Path
    prompt: Prompt | None = None
    generalized: bool = False
    official: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one question. mask: bool [H, W], without a pixel for nothing."""

    id: str
    score: float
    mask: np.ndarray

    def line(self) -> str:
        """The answer as predictions hold it."""
        segmentation = rle_json(rle.encode(self.mask)) if self.mask.any() else None
        return json.dumps({"id": self.id, "segmentation": segmentation, "score": round(self.score, 6)}, separators=(",", ":")) + "\n"


def askable(questions: Sequence[Question], asking: Asking) -> list[Question]:
    """The questions that can be asked so, a picture's together: PSALM's evaluation leaves out regions that nothing of the kind is drawn on.

    Raises BadInput.
    """
    kept = [q for q in questions if (q.sentences if asking.prompt is None else _has_pixels(q, asking.prompt))]
    first = {q.image: n for n, q in reversed(list(enumerate(kept)))}
    kept.sort(key=lambda q: first[q.image])
    if not kept:
        wanted = "sentences" if asking.prompt is None else f"a {asking.prompt} prompt"
        raise BadInput(f"none of {len(questions)} questions has {wanted}; choose another benchmark, or another --prompt")
    if missing := [q.image for q in kept if not (asking.images / q.image).is_file()]:
        raise BadInput(f"{asking.images} lacks {len(missing)} pictures that are asked about, the first is {missing[0]}; name their folder")
    return kept


def done_before(path: Path, questions: Sequence[Question]) -> set[str]:
    """The questions that an earlier run answered into this file, picture by picture; what is left of others is taken out of the file.

    A picture's regions are asked together, so they are answered together or not at all; the last line may have been cut off, and what is
    no answer is asked again.
    """
    if not path.exists():
        return set()
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [(_answered_id(line), line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    answered = {name for name, _ in lines}
    half = {q.image for q in questions if q.id not in answered}
    whole = {q.id for q in questions if q.image not in half}
    path.write_text("".join(line for name, line in lines if name in whole), encoding="utf-8")
    return whole


def _answered_id(line: str) -> str | None:
    """The question that a line answers; None for a line that is no answer, as a full disk or an editor leaves them."""
    try:
        entry = json.loads(line)
        return str(entry["id"]) if "segmentation" in entry else None
    except (ValueError, TypeError, KeyError):
        return None


def ask(questions: Sequence[Question], asking: Asking, model: Looker) -> Iterator[Answered]:
    """Answer every question, in order; a picture is opened once for all neighbouring questions about it. Raises SourceFailed, BadInput."""
    for index, (image, group) in enumerate(groupby(questions, key=lambda q: q.image)):
        frame, about = read_picture(asking.images / image, index), list(group)
        if wrong := [q for q in about if q.size_hw != tuple(frame.size_hw)]:
            raise BadInput(f"question {wrong[0].id} is about a picture of {wrong[0].size_hw}, {image} is {frame.size_hw} (height, width)")
        if asking.prompt is None:
            for some in (about[start : start + TOGETHER] for start in range(0, len(about), TOGETHER)):
                for question, findings in zip(some, model.look([Request(frame, Sentence(q.sentences)) for q in some]), strict=True):
                    yield Answered(question.id, *referred(findings, asking.generalized, asking.official))
        else:
            yield from _regions(about, frame, asking, model)


def region_of(kind: Prompt, question: Question) -> np.ndarray:
    """What is drawn on a region, as the model is asked with it, bool [H, W]."""
    return _drawn(kind, mask_of(question.prompts[kind], question.size_hw))[1]


def _regions(about: Sequence[Question], frame: Frame, asking: Asking, model: Looker) -> Iterator[Answered]:
    drawn = [_drawn(asking.prompt, mask_of(question.prompts[asking.prompt], question.size_hw)) for question in about]
    regions = tuple(Region(n, frame, region) for n, (_, region) in enumerate(drawn, start=1))
    carried = {region.object_id: region.mask for region in regions}
    (findings,) = model.look([Request(frame, Regions(regions), carried, zlib.crc32(str(frame.key).encode()))])
    for question, pick in zip(about, pick_shapes(drawn, findings.proposals(), asking.official), strict=True):
        yield Answered(question.id, pick.score, pick.mask) if pick else Answered(question.id, 0.0, np.zeros(question.size_hw, bool))


def _drawn(kind: Prompt, marked: np.ndarray) -> tuple[Shape, np.ndarray]:
    """A drawn shape and the region it means: marked pixels of a point are grown by 10 px, of a scribble by 5, at source size."""
    rows, columns = np.nonzero(marked)
    xy = tuple(zip(columns.tolist(), rows.tolist(), strict=True))
    match kind:
        case "point":
            return Points(xy), grow(marked, POINT_RADIUS_PX)
        case "scribble":
            return Scribble(xy), grow(marked, SCRIBBLE_RADIUS_PX)
        case "box":
            return Box((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)), marked
        case "mask":
            return Mask(rle.encode(marked)), marked


def _has_pixels(question: Question, prompt: Prompt) -> bool:
    return prompt in question.prompts and bool(mask_of(question.prompts[prompt], question.size_hw).any())

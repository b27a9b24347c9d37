"""The DAVIS-2017 folder layout, and the causal loop over one of its sequences.

Reads what an evaluation needs: names, image folders, true label maps, the prompt that hands over the first mask. Scoring them is
metrics.py's, deciding what a mask is psalm/tracker.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..psalm.tracker import Rules
from ..stream import rle
from ..stream.errors import BadInput
from ..stream.types import Frame, FrameKey, Mask, MaskFrame, ObjectPrompt, Prompt, Proposals, Request
from ..workers.answering import Model
from ..workers.pipeline import Embedded
from ..workers.settings import Settings
from .metrics import VOID

IMAGE_SET = "ImageSets/2017/val.txt"


class NoModel:
    """A model that proposes nothing: for motion alone, which must run without weights."""

    digest = "none"

    def segment(self, requests: Sequence[Request]) -> list[Proposals]:
        """No condition token, no query, no mask, for every request."""
        return [Proposals(np.zeros((0, 0), np.float32), lambda _, size=r.frame.size_hw: np.zeros((0, *size), bool)) for r in requests]


@dataclass(frozen=True, slots=True)
class DavisSequence:
    """One sequence: its name, its image folder, and one label file a frame, the first `limit` frames when cut short."""

    name: str
    images: Path
    labels: tuple[Path, ...]

    def truth(self) -> list[np.ndarray]:
        """The true label maps, uint8 [H, W] each: 0 background, 1..n objects, 255 void."""
        return [np.array(Image.open(path)) for path in self.labels]


def davis_sequences(root: Path, names: Sequence[str] = (), limit: int | None = None) -> list[DavisSequence]:
    """The sequences of the validation list, or those named, in list order; only their first `limit` frames if given.

    Raises BadInput when the folder is no DAVIS folder, a name is not in its list, or a sequence has fewer than 3 frames left to score.
    """
    image_set = root / IMAGE_SET
    if not image_set.is_file():
        raise BadInput(f"{root} has no {IMAGE_SET}; expected a folder in DAVIS-2017 layout, name it with --davis DIR")
    listed = image_set.read_text().split()
    if unknown := sorted(set(names) - set(listed)):
        raise BadInput(f"sequence {unknown[0]} is not in {image_set}; expected one of {', '.join(listed)}")
    found = [_open(root, name, limit) for name in listed if not names or name in names]
    if short := [s for s in found if len(s.labels) < 3]:
        raise BadInput(
            f"sequence {short[0].name} has {len(short[0].labels)} frames; scoring drops the first and the last, so give at least 3"
        )
    return found


def _open(root: Path, name: str, limit: int | None) -> DavisSequence:
    labels = sorted((root / "Annotations/480p" / name).glob("*.png"))
    return DavisSequence(name, root / "JPEGImages/480p" / name, tuple(labels[:limit]))


def first_mask_prompt(labels: np.ndarray, session: str, view: str = "main") -> Prompt:
    """The prompt that gives every object of a label map, uint8 [H, W], as a mask on frame 0."""
    ids = [int(i) for i in np.unique(labels) if i not in (0, VOID)]
    objects = tuple(ObjectPrompt(i, Mask(rle.encode(labels == i))) for i in ids)
    return Prompt(FrameKey(session, view, 0), "first-mask", objects)


def track_sequence(frames: Iterable[Frame], prompt: Prompt, model: Model, rules: Rules) -> Iterator[MaskFrame]:
    """Follow the prompted objects through the frames of one view, causally, as `psalm-stream run` does: one answer a frame."""
    for _, answer in Embedded(model, rules, Settings()).answer(frames, [prompt]):
        yield answer

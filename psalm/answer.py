"""What a policy says of one object on one frame; tracker.py turns it into the next state and the published answer."""

from __future__ import annotations

from dataclasses import dataclass

from ..stream.types import ObjectStatus, Remembered, Rle


@dataclass(frozen=True, slots=True)
class Answer:
    """One object's answer. rle: None exactly when absent; memory: what is remembered from now on (None: nothing but the anchor)."""

    object_id: int
    status: ObjectStatus
    score: float
    rle: Rle | None
    memory: Remembered | None

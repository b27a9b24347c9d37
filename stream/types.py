"""Every noun of the service: frames, prompts, conditions, requests, proposals, track state, answers.

Values only: frozen, slotted dataclasses over numpy and the standard library. No socket, no clock, no tensor.
Notation: K objects, T condition tokens, Q mask queries, H x W source pixels. Coordinates are pixels of the displayed frame, origin
top left, x before y. Whatever turns these values into bytes lives in codec.py, whatever decides over them in psalm/tracker.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from .errors import BadPrompt, Undecodable
from .pictures import decode_rgb

MAX_OBJECT_ID = 255


@dataclass(frozen=True, slots=True, order=True)
class FrameKey:
    """Identity of a frame: the `index`-th frame (from 0) of one `view` of one `session`."""

    session: str
    view: str
    index: int

    def __str__(self) -> str:
        return f"{self.session}/{self.view}/{self.index}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture as it travels: JPEG or PNG bytes, untouched since the source.

    t_ns: capture clock in nanoseconds; live: whether the source waits for nobody; size_hw: (H, W) of the displayed picture.
    `pixels()` decodes on first use and keeps the array, so a frame is decoded at most once in a process.
    """

    key: FrameKey
    t_ns: int
    live: bool
    size_hw: tuple[int, int]
    data: bytes = field(repr=False)
    _decoded: list[np.ndarray] = field(default_factory=list, init=False, repr=False, compare=False)

    def pixels(self) -> np.ndarray:
        """The picture as a read-only RGB array, uint8 [H, W, 3]. Raises Undecodable."""
        if not self._decoded:
            try:
                self._decoded.append(decode_rgb(self.data, self.size_hw))
            except Undecodable as error:
                raise Undecodable(f"frame {self.key}: {error}") from error
        return self._decoded[0]

    def forget_pixels(self) -> None:
        """Let go of the array; whoever asks again decodes again."""
        self._decoded.clear()


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as a COCO compressed run-length (column-major): size_hw = (H, W), counts as pycocotools writes them."""

    size_hw: tuple[int, int]
    counts: bytes = field(repr=False)


# -- what a user says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Points:
    """One or more clicks on one object, each (x, y) in pixels."""

    xy: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A box (x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""

    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Scribble:
    """A stroke: a polyline of (x, y) pixels."""

    xy: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Mask:
    """The object itself: returned unchanged on its own frame."""

    rle: Rle


Shape = Points | Box | Scribble | Mask


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """What a user says of one object: its id (1-255, the user's, stable for the session) and a shape on the prompted frame."""

    object_id: int
    shape: Shape
    label: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.object_id <= MAX_OBJECT_ID:
            raise BadPrompt(f"object id is {self.object_id}, expected 1 to {MAX_OBJECT_ID}; 0 is the background of a mask file")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Objects named, corrected or removed. Travels in the topic of the frames and applies to the first of its view after it; one that
    brings the picture it was drawn on starts its objects there, however old that is, and they are followed from the next frame on.

    prompt_id: one that was applied before is not applied again. correct: the objects must be tracked already, in any view. remove: ids that
    are to be forgotten, in every view. The index of `key` says what the prompt was drawn on; order alone decides where it applies.
    drawn_on: that picture, of the same view; byte for byte a frame that is remembered, or any other (its t_ns 0 where that is not known).
    """

    key: FrameKey
    prompt_id: str
    objects: tuple[ObjectPrompt, ...] = ()
    correct: bool = False
    remove: tuple[int, ...] = ()
    drawn_on: Frame | None = None


# -- what the model is asked, and answers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Region:
    """One condition token: an object on a (remembered) frame. mask: bool [H, W] of that frame, not empty."""

    object_id: int
    frame: Frame
    mask: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Regions:
    """Condition of visual priors: one token a region; an object may have several (its anchor and its memory).

    sentences: an instruction beside the regions, as ObjectRelator's evaluation prompts it; empty for PSALM.
    """

    regions: tuple[Region, ...]
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sentence:
    """Condition of referring sentences, all of them about one object."""

    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Categories:
    """Condition of category names, without `background` (the model adds it last)."""

    names: tuple[str, ...]


Condition = Regions | Sentence | Categories


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a model answer may depend on.

    carried: bool [H, W] per object id, the previous masks brought to this frame by motion (as they were, with motion off), or what was
    drawn on it; only models whose config asks for a mask prior look at it. seed: for sampled region pooling, derived from the frame key.
    """

    frame: Frame
    condition: Condition
    carried: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Proposals:
    """The model's answer to one request.

    scores: float32 [T, Q] on the host, 0..1, one row a condition token (region, sentence, or category), in the condition's order.
    masks(queries) -> bool [n, H, W] at source size, upsampled only for the queries asked for. cell_px: side of a cell of the maps they
    were upsampled from, in source pixels: a mask does not know its outline better; 0 when it does.
    """

    scores: np.ndarray
    masks: Callable[[Sequence[int]], np.ndarray]
    cell_px: float = 0.0


# -- what is remembered of a session ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remembered:
    """An object as it looked on a frame."""

    frame: Frame
    rle: Rle


@dataclass(frozen=True, slots=True)
class ObjectState:
    """One tracked object of a view.

    anchor: as prompted, or as first found; memory: as last trusted; misses: frames since it was last seen; prompted: whether a user named
    it in this view, and it was not found here by how it looks in another.
    """

    object_id: int
    label: str
    anchor: Remembered
    memory: Remembered | None = None
    misses: int = 0
    prompted: bool = True


@dataclass(frozen=True, slots=True)
class ViewState:
    """What is remembered of one view.

    previous: the last frame; masks: what was answered on it, by object id (absent ones left out); pending: prompts that apply to the
    view's next frame.
    """

    objects: tuple[ObjectState, ...] = ()
    pending: tuple[ObjectPrompt, ...] = ()
    previous: Frame | None = None
    masks: Mapping[int, Rle] = field(default_factory=dict)

    def object(self, object_id: int) -> ObjectState | None:
        """The state of one object, or None when the view does not know it."""
        return next((o for o in self.objects if o.object_id == object_id), None)


@dataclass(frozen=True, slots=True)
class TrackState:
    """The state of a session, its views by name. An id is one object, in whichever views it is tracked.

    applied: log offset of the last record this state contains (-1: none); answered: frames so far; prompt_ids: of the prompts applied, the
    oldest first; lost: its memory is gone, and no frame can be answered before the next prompt.
    """

    session: str
    applied: int = -1
    views: Mapping[str, ViewState] = field(default_factory=dict)
    answered: int = 0
    prompt_ids: tuple[str, ...] = ()
    lost: bool = False


# -- what the service answers -----------------------------------------------------------------------------------------


class FrameStatus(StrEnum):
    """What became of a frame. distrusted: answered, but memory was kept as it was."""

    OK = "ok"
    DISTRUSTED = "distrusted"
    NO_PROMPT = "no_prompt"
    UNDECODABLE = "undecodable"
    LATE = "late"
    LOST_STATE = "lost_state"


class ObjectStatus(StrEnum):
    """How an object's mask came about. seen: the model's proposal (or the prompt itself); carried: motion alone; absent: no mask."""

    SEEN = "seen"
    CARRIED = "carried"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One object's answer on one frame. rle is None exactly when status is absent; score 0..1."""

    object_id: int
    label: str
    status: ObjectStatus
    score: float
    rle: Rle | None


@dataclass(frozen=True, slots=True)
class MaskFrame:
    """The answer to one frame.

    model: weights digest; message: what a user should know, a prompt that does not fit this frame for example; ms: milliseconds per stage,
    the only field that may differ between equal runs.
    """

    key: FrameKey
    t_ns: int
    size_hw: tuple[int, int]
    status: FrameStatus
    objects: tuple[ObjectMask, ...]
    model: str
    message: str = ""
    ms: Mapping[str, float] = field(default_factory=dict, compare=False)


class NoticeKind(StrEnum):
    """What a Notice says. The first three answer what was sent by someone, the others are a source's own news."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    ENDED = "ended"
    GAP = "gap"
    DROPPED = "dropped"
    SOURCE_GONE = "source_gone"


@dataclass(frozen=True, slots=True)
class Notice:
    """Everything that is not a mask and must not be silent.

    session: "" when the record named none; view: None for all of them; index: of the frame it is about, or None; message: in words; record:
    topic, partition and offset of the record it answers, None for a source's own.
    """

    kind: NoticeKind
    session: str
    view: str | None
    index: int | None
    message: str
    record: tuple[str, int, int] | None = None

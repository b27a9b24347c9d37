"""Asking the model across views: an object's mask in one camera is the condition for the frame of another camera at the same time.

From a take to questions, from a question to the request the tracker would make, from proposals to a mask and a confidence for every object.
Whether an object is there is decided by the tracker itself. Files of answers are run.py's.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ...psalm.honest_policy import DUPLICATE_IOU, TOP_QUERIES, TRUSTED_SCORE
from ...psalm.overlap import best_distinct, pair_iou, stack
from ...psalm.tracker import Rules, settle
from ...stream.errors import BadInput, Undecodable
from ...stream.pictures import displayed_size
from ...stream.rle import area, decode
from ...stream.types import Frame, FrameKey, Proposals, Region, Regions, Request, TrackState
from .data import DataRoot, Take, is_ego, pairs

FPS = 30  # of the frame-aligned videos that frame numbers count
EXISTS = 0.5  # confidence above which the official scorer takes an object to be there
CALIBRATION = {
    "rule": "confidence 0.5 is the tracker's border between seen and absent; linear in the condition score on both sides of it",
    "seen_at_score": TRUSTED_SCORE,
    "constant": "psalm.honest_policy.TRUSTED_SCORE",
    "data": "none: sigmoid(condition logit) x mean mask probability of 0.5, the model's own border between yes and no",
}
_JUST_SEEN = EXISTS + 1e-6  # above the border for every reader of six decimals
_LOOSEST = 0.02  # relative difference of the aspects of a camera's masks and pictures: rounding of odd sizes, not a turned picture
TURNS = {"cw": -1, "ccw": 1}  # to quarter turns of numpy.rot90


@dataclass(frozen=True, slots=True)
class Question:
    """One frame of camera `target`, asked for objects (by name) with their masks in camera `query` at the same time."""

    query: str
    target: str
    frame: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One object's answer: mask bool [H, W] at the picture's size, confidence 0..1, above 0.5 exactly when the tracker calls it seen."""

    mask: np.ndarray = field(repr=False)
    confidence: float


def questions(take: Take, directions: Sequence[str]) -> list[Question]:
    """Everything a prediction file must answer of a take: in order of frames, so that pictures are encoded together."""
    asked: dict[tuple[int, str, str], list[str]] = defaultdict(list)
    for direction in directions:
        for pair in pairs(take, direction):
            for frame in take.masks[pair.name][pair.query]:
                asked[frame, pair.query, pair.target].append(pair.name)
    return [Question(query, target, frame, tuple(names)) for (frame, query, target), names in sorted(asked.items())]


@dataclass(slots=True)
class Views:
    """The pictures and masks of one take as the model sees them.

    upright_ego: quarter turn by which the ego camera's pictures and masks are turned before the model, cw or ccw; None: as stored.
    Only the frames of the time at hand are kept.
    """

    data: DataRoot
    take: Take
    upright_ego: str | None = None
    _frames: dict[tuple[str, int], Frame] = field(default_factory=dict, repr=False)

    def request(self, question: Question) -> tuple[Request, tuple[str, ...]]:
        """What the model is asked, and the names of the objects in it, in the order of its regions; ids count all objects of the take.

        An object whose mask is null or empty is not asked for. Raises BadInput for a picture that is not there or does not fit its masks.
        """
        target, query = self.frame(question.target, question.frame), self.frame(question.query, question.frame)
        if (asked_hw := self.take.size_hw(question.target)) is not None:
            self._check_aspect(question.target, question.frame, asked_hw, self._stored_hw(target))
        ids = {name: number for number, name in enumerate(self.take.objects, start=1)}
        regions = []
        for name in question.names:
            found = self.take.mask(name, question.query, question.frame)
            if found is not None and area(found):
                stored_hw = self._stored_hw(query)
                self._check_aspect(question.query, question.frame, found.size_hw, stored_hw)
                regions.append((name, Region(ids[name], query, self._turned(question.query, shrunk(decode(found), stored_hw)))))
        seed = zlib.crc32(str(target.key).encode())
        return Request(target, Regions(tuple(region for _, region in regions)), seed=seed), tuple(name for name, _ in regions)

    def frame(self, camera: str, index: int) -> Frame:
        """A picture, turned if it is to be. Raises BadInput."""
        key = camera, index
        if key not in self._frames:
            self._frames = {k: frame for k, frame in self._frames.items() if k[1] == index}
            self._frames[key] = self._read(camera, index)
        return self._frames[key]

    def restored(self, camera: str, mask: np.ndarray) -> np.ndarray:
        """A mask of the model's picture as the camera stores it, bool [H, W]."""
        return np.ascontiguousarray(np.rot90(mask, -self._turns(camera)))

    def _turned(self, camera: str, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(array, self._turns(camera)))

    def _turns(self, camera: str) -> int:
        return TURNS[self.upright_ego] if self.upright_ego and is_ego(camera) else 0

    def _read(self, camera: str, index: int) -> Frame:
        path = self.data.picture(self.take.uid, camera, index)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}); process the take again, or use --allow-missing") from error
        try:
            frame = Frame(FrameKey(self.take.uid, camera, index), index * 1_000_000_000 // FPS, False, displayed_size(data), data)
            frame.pixels()  # kept for the model, and judged here, where its path is known
        except Undecodable as error:
            raise BadInput(
                f"{path} cannot be decoded ({error}); process the take again, or take it away and use --allow-missing"
            ) from error
        if not self._turns(camera):
            return frame
        pixels = self._turned(camera, frame.pixels())
        png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()  # lossless, so that a turn changes no pixel
        return Frame(frame.key, frame.t_ns, False, pixels.shape[:2], png)

    def _stored_hw(self, frame: Frame) -> tuple[int, int]:
        return frame.size_hw[::-1] if self._turns(frame.key.view) else frame.size_hw

    def _check_aspect(self, camera: str, index: int, mask_hw: tuple[int, int], picture_hw: tuple[int, int]) -> None:
        (height, width), (h, w) = mask_hw, picture_hw
        if abs(height * w - width * h) > _LOOSEST * width * h:
            raise BadInput(
                f"take {self.take.uid}: masks of {camera} are {width} x {height}, its picture {index} is {w} x {h}; "
                "both must be stored in the same orientation, process the take again"
            )


def shrunk(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A mask at another size by its nearest pixels; one that would vanish keeps the pixels it touches. bool [H, W], not empty."""
    small = resized(mask, size_hw)
    if not small.any():
        rows, columns = np.nonzero(mask)
        small[rows * size_hw[0] // mask.shape[0], columns * size_hw[1] // mask.shape[1]] = True
    return small


def resized(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A mask, bool [H, W], at another size by its nearest pixels, as OpenCV takes them."""
    if mask.shape == tuple(size_hw):
        return mask.copy()
    return cv2.resize(np.ascontiguousarray(mask).view(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST).view(bool)


def decide(request: Request, proposals: Proposals) -> list[Found]:
    """An answer for every region of a request, in order.

    Seen or absent, and the masks of what is seen, are the tracker's own decision about objects that only another view shows. An absent
    object still gets the best proposal that is nobody else's: masks are judged wherever the object is, whatever the confidence says.
    """
    regions = request.condition.regions
    _, answer = settle(TrackState(request.frame.key.session), request.frame, request, proposals, Rules(), "")
    seen = {o.object_id: Found(decode(o.rle), confidence(o.score, seen=True)) for o in answer.objects if o.rle is not None}
    rows = [row for row, region in enumerate(regions) if region.object_id not in seen]
    left = _best_left(proposals, rows, stack([found.mask for found in seen.values()], request.frame.size_hw))
    rest = dict(zip(rows, left, strict=True))
    return [rest.get(row) or seen[region.object_id] for row, region in enumerate(regions)]


def confidence(score: float, seen: bool) -> float:
    """How sure it is that an object is there, 0..1, by its proposal's condition score; above 0.5 exactly when `seen` (CALIBRATION)."""
    if seen:
        return max(EXISTS + (1 - EXISTS) * (score - TRUSTED_SCORE) / (1 - TRUSTED_SCORE), _JUST_SEEN)
    return min(EXISTS * score / TRUSTED_SCORE, EXISTS)


def _best_left(proposals: Proposals, rows: Sequence[int], taken: np.ndarray) -> list[Found]:
    """For every absent object's row a proposal of its own that is no duplicate of what is taken, bool [N, H, W]; empty if none is left."""
    scores = proposals.scores[list(rows)]
    queries = sorted({int(query) for row in scores for query in np.argsort(-row, kind="stable")[:TOP_QUERIES]})
    owned = taken.any(axis=0)
    whole = proposals.masks(queries) if queries else stack([], owned.shape)
    masks = whole & ~owned
    free = (pair_iou(whole, taken).max(axis=1, initial=0.0) <= DUPLICATE_IOU) & masks.any(axis=(1, 2))
    picks = best_distinct(scores[:, queries] * free)
    nothing = Found(np.zeros(owned.shape, bool), 0.0)
    return [
        nothing if pick is None else Found(masks[pick], confidence(float(scores[k, queries[pick]]), seen=False))
        for k, pick in enumerate(picks)
    ]


def missing_pictures(data: DataRoot, take: Take, directions: Sequence[str]) -> dict[str, list[int]]:
    """The frames of each camera that are to be asked with and have no picture, or an empty file for one."""
    wanted: Mapping[str, set[int]] = defaultdict(set)
    for question in questions(take, directions):
        wanted[question.query].add(question.frame)
        wanted[question.target].add(question.frame)
    lacking = {camera: sorted(f for f in frames if not data.has_picture(take.uid, camera, f)) for camera, frames in wanted.items()}
    return {camera: frames for camera, frames in lacking.items() if frames}

"""ObjectRelator's evaluation of Ego-Exo4D correspondence, so that its paper's numbers can be compared. They are not the official ones.

Its choice of frames, its measures and its averages, quirks included (specification, section 16.1): one exo camera a take; only objects
visible in both views; IoU of the best proposal, pooled over a take; the other measures from a fused label map, in which an object that has
no pixel left is skipped and not punished. For comparable numbers use score.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...psalm.official_policy import pick_distinct
from ...psalm.overlap import disjoint
from ...psalm.postprocess import official_ground_truth
from ...psalm.preprocess import geometry, pad_mask
from ...stream.errors import BadInput
from ...stream.rle import decode
from ...stream.types import Proposals
from ..davis.metrics import boundary_f
from .ask import Question, resized
from .data import DataRoot, Take, is_ego, natural
from .metrics import midpoint_distance

EGO_SHRINK, EXO_SHRINK = 2, 4  # how much smaller pictures are than masks
CHOICES = (
    "objectrelator: objects are asked for by their masks alone; ObjectRelator's script also says a sentence about each",
    "objectrelator: all takes of the split are asked; ObjectRelator's script leaves out a list of 66",
)


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """The measures of one object that the fused map shows: location, box middles over the frame's diagonal; shape, the boundary measure."""

    name: str
    location: float
    shape: float
    existence: bool


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One pair of frames. Pixels of intersection and union are summed over its objects; vanished: objects the fused map does not show."""

    intersection: int
    union: int
    objects: tuple[ObjectScore, ...]
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """The scores of one direction. Each is taken over a take and then averaged over takes; the `_objects` ones over all objects alike.

    vanished: objects that were left out because the fused map does not show them. NaN where there is nothing.
    """

    iou: float
    location: float
    shape: float
    existence: float
    location_objects: float
    shape_objects: float
    takes: int
    samples: int
    objects: int
    vanished: int


def samples(data: DataRoot, take: Take, direction: str) -> list[Question]:
    """The frames of a take that are evaluated, each with the objects that both views show; [] for a take without such.

    The frames are those of the object that is annotated most often in the query view, where the other view has a picture.
    """
    cameras = _cameras(take)
    if cameras is None:
        return []
    query, target = cameras if direction == "ego-exo" else cameras[::-1]
    shared = [name for name in take.objects if query in take.masks[name] and target in take.masks[name]]
    reference = max(shared, key=lambda name: len(take.masks[name][query]))
    frames = sorted(frame for frame in take.masks[reference][query] if data.has_picture(take.uid, target, frame))
    asked = [(frame, tuple(n for n in shared if _shown(take, n, query, frame) and _shown(take, n, target, frame))) for frame in frames]
    return [Question(query, target, frame, names) for frame, names in asked if names]


def _cameras(take: Take) -> tuple[str, str] | None:
    """The ego camera, and the exo camera that shares most objects with it; None when none shares any."""
    egos = [camera for camera in take.cameras() if is_ego(camera)]
    if not egos:
        return None
    shares = {c: sum(egos[0] in cs and c in cs for cs in take.masks.values()) for c in take.cameras() if not is_ego(c)}
    exo = max(shares, key=shares.__getitem__, default=None)
    return (egos[0], exo) if exo is not None and shares[exo] else None


def _shown(take: Take, name: str, camera: str, frame: int) -> bool:
    mask = stored_mask(take, name, camera, frame)
    return mask is not None and bool(mask.any())


def stored_mask(take: Take, name: str, camera: str, frame: int) -> np.ndarray | None:
    """A mask as ObjectRelator's tool stores it: shrunk to its pictures' size by nearest pixels, bool [H, W]; None where there is none."""
    found = take.mask(name, camera, frame)
    shrink = EGO_SHRINK if is_ego(camera) else EXO_SHRINK
    return None if found is None else resized(decode(found), (found.size_hw[0] // shrink, found.size_hw[1] // shrink))


def refuse_other_size(take: Take, question: Question, picture_hw: tuple[int, int]) -> None:
    """Raise BadInput when the asked picture is not as much smaller than its masks as ObjectRelator's tool makes it."""
    stored_hw = stored_mask(take, question.names[0], question.target, question.frame).shape
    if stored_hw != tuple(picture_hw):
        (height, width), (h, w) = stored_hw, picture_hw
        raise BadInput(
            f"take {take.uid}: picture {question.frame} of {question.target} is {w} x {h}, ObjectRelator's evaluation expects {width} x "
            f"{height}, 1/{EGO_SHRINK} of an ego camera's masks and 1/{EXO_SHRINK} of others; process the take again by its tool, or use "
            "--protocol official"
        )


def score_question(take: Take, question: Question, proposals: Proposals, side: int) -> SampleScore:
    """Score one pair of frames. side: of the network's padded square."""
    names = sorted(question.names, key=natural)
    stored = np.stack([stored_mask(take, name, question.target, question.frame) for name in names])
    full = [decode(take.mask(name, question.target, question.frame)) for name in names]
    return score_sample(names, proposals, evaluated_truth(stored, side), [resized(mask, stored.shape[1:]) for mask in full])


def evaluated_truth(stored: np.ndarray, side: int) -> np.ndarray:
    """The truth of the IoU, from masks bool [K, H, W]: padded, and brought back bilinearly as uint8, so not quite the original ones."""
    padded = torch.stack([torch.from_numpy(pad_mask(mask, side)) for mask in stored])
    return official_ground_truth(padded, geometry(stored.shape[1:], side)).numpy()


def score_sample(names: Sequence[str], proposals: Proposals, iou_truth: np.ndarray, truth: Sequence[np.ndarray]) -> SampleScore:
    """Score the proposals for objects in their order of ids.

    iou_truth: bool [K, H, W], of the IoU; truth: bool [H, W] each, of the other measures. The IoU's masks are each object's best proposal;
    the others' are distinct ones, painted one over the other.
    """
    best = [int(query) for query in proposals.scores.argmax(axis=1)]
    chosen = proposals.masks(best)
    intersection, union = int((chosen & iou_truth).sum()), int((chosen | iou_truth).sum())
    picked = proposals.masks(pick_distinct(proposals.scores))
    painted = disjoint(list(picked), range(len(names)))  # later objects overwrite earlier ones
    shown = [(name, mask, true) for name, mask, true in zip(names, painted, truth, strict=True) if mask.any()]
    objects = tuple(ObjectScore(name, _location(true, mask), boundary_f(true, mask), bool(true.any())) for name, mask, true in shown)
    vanished = tuple(name for name, mask in zip(names, painted, strict=True) if not mask.any())
    return SampleScore(intersection, union, objects, vanished)


def _location(truth: np.ndarray, answer: np.ndarray) -> float:
    return midpoint_distance(truth, answer) / math.hypot(*truth.shape)


def totals(by_take: Mapping[str, Sequence[SampleScore]]) -> Totals:
    """Average the samples of all takes; a take without any is left out."""
    takes = [list(samples) for samples in by_take.values() if samples]
    per_take = [[o for sample in samples for o in sample.objects] for samples in takes]
    everyone = [o for objects in per_take for o in objects]

    def over_takes(measure: str) -> float:
        return _mean([_mean([getattr(o, measure) for o in objects]) for objects in per_take if objects])

    unions = [(sum(s.intersection for s in samples), sum(s.union for s in samples)) for samples in takes]
    return Totals(
        iou=_mean([shared / either if either else 1.0 for shared, either in unions]),
        location=over_takes("location"),
        shape=over_takes("shape"),
        existence=over_takes("existence"),
        location_objects=_mean([o.location for o in everyone]),
        shape_objects=_mean([o.shape for o in everyone]),
        takes=len(takes),
        samples=sum(map(len, takes)),
        objects=len(everyone),
        vanished=sum(len(sample.vanished) for samples in takes for sample in samples),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan

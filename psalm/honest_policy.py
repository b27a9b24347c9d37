"""The honest policy: what each object is on a frame, decided from predictions alone.

Two witnesses speak for every object. The condition score says how much a proposal looks like it; motion says where it must be.
As long as motion carries a mask, a proposal replaces it only where both agree: nets damage good masks (on DAVIS dev a small one
returned IoU 34-50 for a true previous mask, carrying it kept 86), and random proposals rarely agree by chance. The condition alone
decides where motion has nothing to say, or has gone unconfirmed for too long about an object the model had found before. So it does for
an object that is looked for by how it looks in another view (cross_view.py): it is taken to be found when it is trusted, and else absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..stream.rle import area, decode, encode
from ..stream.types import ObjectState, ObjectStatus, Proposals, Region, Remembered, Request, Shape, ViewState
from .answer import Answer
from .cross_view import looked_for
from .overlap import best_distinct, corrected, disjoint, outlined_by, pair_iou, stack
from .visual_prompts import meets

# Scores are sigmoid(condition logit) x mean mask probability, so 0.5 is the model's own border between yes and no.
TRUSTED_SCORE = 0.5  # needed to enter memory, and to be found where motion does not lead
SEEN_SCORE = 0.3  # enough where motion agrees, or the object was there one frame ago; below it the condition says "not here"
AGREEMENT = 0.7  # IoU with the carried mask a proposal must reach; a true mask, carried one frame, has 0.86 (DAVIS dev J&F: 43.6 at 0.5)
PATIENCE = 8  # frames (a third of a second) a found object may be carried unconfirmed before the condition decides alone
DUPLICATE_IOU = 0.4  # two objects are not the same pixels; the official loop's number
AREA_JUMP = 2.0  # growth or shrinkage, against the mask expected, beyond which a mask is answered but not remembered
CARRIED_SCORE = 0.5  # motion alone is neither confirmed nor denied; sure proposals own a disputed pixel, doubtful ones yield it
OUTLINE_CELLS = 0.8  # so near its outline the carried mask, at source size, knows better (blackswan J&F: 45 at 0, 70 at 0.5, 71 at 0.8)
LEAP_CELLS = 2.0  # how far a proposal may move the outline in a frame (car-roundabout J&F: 40 without a limit, 50 with, at agreement 0.5)
TOP_QUERIES = 10  # proposals looked at for each object; only these are upsampled


@dataclass(frozen=True, slots=True)
class Track:
    """One object on one frame.

    state: None when it was only just drawn, or is looked for by how it looks in another view; drawn: that shape and its region; carried:
    bool [H, W] or None.
    """

    object_id: int
    state: ObjectState | None
    drawn: tuple[Shape, np.ndarray] | None
    carried: np.ndarray | None
    asked: bool

    @property
    def found(self) -> bool:
        """Whether the model was trusted on this object before."""
        return self.state is not None and (self.state.memory is not None or not self.state.prompted)

    @property
    def new_here(self) -> bool:
        """Whether nothing but another view says how it looks."""
        return self.state is None and self.drawn is None

    @property
    def overdue(self) -> bool:
        """Whether motion has led a found object for too long without the model's confirmation."""
        return self.found and self.state.misses >= PATIENCE


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of K objects and N candidate masks, bool [N, H, W].

    condition: float [K, N], the highest score over an object's tokens; peak: float [K], its highest over all queries; agreement: float
    [K, N], IoU with the carried mask, or with a drawn shape how well it is met; foreign: float [K, N], the largest IoU with what
    belongs to another object: its carried mask, or a mask the user gave; cell_px: how coarse the candidates' outlines are.
    """

    masks: np.ndarray
    condition: np.ndarray
    peak: np.ndarray
    agreement: np.ndarray
    foreign: np.ndarray
    cell_px: float


def regions(known: Sequence[ObjectState]) -> tuple[Region, ...]:
    """What a frame is asked with: for each object its prompt and, where there is one, its memory, in the same request."""
    asked = []
    for state in known:
        asked.append(Region(state.object_id, state.anchor.frame, decode(state.anchor.rle)))
        if state.memory is not None:
            asked.append(Region(state.object_id, state.memory.frame, decode(state.memory.rle)))
    return tuple(asked)


def settle(
    view: ViewState, request: Request, proposals: Proposals, given: Mapping[int, np.ndarray], motion: str
) -> tuple[list[Answer], bool]:
    """Answers for every object but those given by mask, and whether all that is visible could be remembered.

    given: bool [H, W] by id, this frame's mask prompts: they own their pixels; motion: on | off | only. Masks never overlap.
    """
    tracks = _tracks(view, request, given, {} if motion == "off" else request.carried)
    evidence = _evidence(tracks, request, proposals, given)
    worth = np.array([_worth(track, evidence, k, motion) for k, track in enumerate(tracks)]).reshape(evidence.condition.shape)
    picks, disputed = _without_duplicates(best_distinct(worth), worth, evidence.masks)
    # Two that are found as one thing are neither: drawn scenes, nano: 3 % of the finds lie elsewhere, 18 % when the surer one is taken.
    picks = [None if k in disputed and track.new_here else picks[k] for k, track in enumerate(tracks)]
    chosen = [_choose(track, picks[k], evidence, k) for k, track in enumerate(tracks)]
    size_hw = request.frame.size_hw
    claims = [*given.values(), *(np.zeros(size_hw, bool) if mask is None else mask for _, _, mask in chosen)]
    owned = disjoint(claims, [2.0] * len(given) + [score for _, score, _ in chosen])[len(given) :]
    answers, all_trusted = [], True
    for k, (track, (status, score, _), mask) in enumerate(zip(tracks, chosen, owned, strict=True)):
        if not mask.any():
            answers.append(Answer(track.object_id, ObjectStatus.ABSENT, 0.0, None, track.state.memory if track.state else None))
            continue
        rle = encode(mask)
        trusted = status == ObjectStatus.SEEN and k not in disputed and _is_trusted(track, score, evidence.agreement[k, picks[k]], mask)
        memory = Remembered(request.frame, rle) if trusted else track.state.memory if track.state else None
        answers.append(Answer(track.object_id, status, score, rle, memory))
        all_trusted &= trusted or not track.asked
    return answers, all_trusted


def _tracks(view: ViewState, request: Request, given: Mapping[int, np.ndarray], carried: Mapping[int, np.ndarray]) -> list[Track]:
    asked = {region.object_id: region for region in request.condition.regions}
    drawn = {p.object_id: (p.shape, asked[p.object_id].mask) for p in view.pending if p.object_id not in given}
    elsewhere = looked_for(request)
    known = [o for o in view.objects if o.object_id not in {*drawn, *given, *elsewhere}]
    tracks = [Track(o.object_id, o, None, carried.get(o.object_id), o.object_id in asked) for o in known]
    tracks += [Track(object_id, None, None, None, True) for object_id in sorted(elsewhere)]
    return tracks + [Track(object_id, None, shape_region, None, True) for object_id, shape_region in drawn.items()]


def _evidence(tracks: Sequence[Track], request: Request, proposals: Proposals, given: Mapping[int, np.ndarray]) -> Evidence:
    """Score every object against the candidates: the ten best queries of each."""
    rows = [[row for row, region in enumerate(request.condition.regions) if region.object_id == t.object_id] for t in tracks]
    queries = proposals.scores.shape[1]
    scores = np.array([proposals.scores[r].max(axis=0, initial=0.0) for r in rows]).reshape(len(tracks), queries)
    candidates = sorted({int(q) for row in scores for q in np.argsort(-row, kind="stable")[:TOP_QUERIES] if row[q] > 0})
    size_hw = request.frame.size_hw
    masks = proposals.masks(candidates) if candidates else stack([], size_hw)
    nothing = np.zeros(size_hw, bool)
    with_carried = pair_iou(stack([nothing if t.carried is None else t.carried for t in tracks], size_hw), masks)
    with_given = pair_iou(stack(list(given.values()), size_hw), masks)
    agreement, foreign = with_carried.copy(), np.zeros_like(with_carried)
    for k, track in enumerate(tracks):
        others = np.concatenate([np.delete(with_carried, k, axis=0), with_given])
        if track.drawn is None:
            foreign[k] = others.max(axis=0, initial=0.0)
        else:
            agreement[k] = meets(*track.drawn, masks)
    return Evidence(masks, scores[:, candidates], scores.max(axis=1, initial=0.0), agreement, foreign, proposals.cell_px)


def _worth(track: Track, evidence: Evidence, row: int, motion: str) -> np.ndarray:
    """What each candidate is worth to one object, float [N]; 0 where it may not be taken.

    Condition and agreement weigh the same: full agreement doubles a score, so that of two lookalikes the one in place wins.
    """
    condition, agreement = evidence.condition[row], evidence.agreement[row]
    if track.drawn is not None:
        allowed = agreement > 0
    elif track.carried is not None:
        allowed = ((agreement >= AGREEMENT) & (condition >= SEEN_SCORE)) | (track.overdue & (condition >= TRUSTED_SCORE))
    else:
        stayed = motion == "off" and track.state is not None and track.state.misses == 0
        allowed = condition >= (SEEN_SCORE if stayed else TRUSTED_SCORE)
    allowed &= (evidence.foreign[row] <= DUPLICATE_IOU) & evidence.masks.any(axis=(1, 2))
    return np.where(allowed, condition * (1 + agreement) / 2, 0.0)


def _without_duplicates(picks: Sequence[int | None], worth: np.ndarray, masks: np.ndarray) -> tuple[list[int | None], set[int]]:
    """Of two objects with nearly the same mask the one it is worth less to gives it up; both are returned as disputed."""
    kept: list[int | None] = [None] * len(picks)
    disputed: set[int] = set()
    for k in sorted((k for k, pick in enumerate(picks) if pick is not None), key=lambda k: -worth[k, picks[k]]):
        rivals = [j for j, pick in enumerate(kept) if pick is not None and pair_iou(masks[[picks[k]]], masks[[pick]])[0, 0] > DUPLICATE_IOU]
        disputed.update([k, *rivals] if rivals else [])
        kept[k] = None if rivals else picks[k]
    return kept, disputed


def _choose(track: Track, pick: int | None, evidence: Evidence, row: int) -> tuple[ObjectStatus, float, np.ndarray | None]:
    """The model's mask, else motion's, else none.

    Motion's mask is dropped when the model, which had found this object before, has not confirmed it for PATIENCE frames and sees
    it nowhere now. A model that never found the object has no say in that: its silence means nothing.
    """
    if pick is not None:
        mask = evidence.masks[pick]
        if track.carried is not None and evidence.agreement[row, pick] >= AGREEMENT:
            mask = outlined_by(track.carried, mask, OUTLINE_CELLS * evidence.cell_px)
            if evidence.cell_px:
                mask = corrected(track.carried, mask, LEAP_CELLS * evidence.cell_px)
        return ObjectStatus.SEEN, float(evidence.condition[row, pick]), mask
    gone = track.asked and track.overdue and evidence.peak[row] < SEEN_SCORE
    if track.carried is None or gone:
        return ObjectStatus.ABSENT, 0.0, None
    return ObjectStatus.CARRIED, CARRIED_SCORE, track.carried


def _is_trusted(track: Track, score: float, agreement: float, mask: np.ndarray) -> bool:
    """Whether a proposal may become the memory: sure, in place if motion knows the place, and of the size expected."""
    if score < TRUSTED_SCORE or (track.carried is not None and agreement < AGREEMENT):
        return False
    if track.state is None:
        return True
    remembered = (track.state.memory or track.state.anchor).rle
    expected = area(remembered) / math.prod(remembered.size_hw) if track.carried is None else track.carried.mean()
    return expected / AREA_JUMP <= mask.mean() <= expected * AREA_JUMP  # shares of the frame: its size may have changed

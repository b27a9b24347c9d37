"""Tracking as values: what to ask the model about a frame, and what its answer makes of the session.

    plan(state, frame) -> Request        segment(requests) -> proposals        settle(state, frame, request, proposals) -> state', MaskFrame

Shared by both policies: prompts, motion, the bookkeeping. Which proposal becomes which object is decided in honest_policy.py and
official_policy.py. numpy and OpenCV; no sockets, no clocks, no tensors.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..stream.errors import BadConfig, BadPrompt
from ..stream.rle import decode, encode
from ..stream.types import (
    Frame,
    FrameKey,
    FrameStatus,
    Mask,
    MaskFrame,
    ObjectMask,
    ObjectPrompt,
    ObjectState,
    ObjectStatus,
    Prompt,
    Proposals,
    Region,
    Regions,
    Remembered,
    Request,
    TrackState,
    ViewState,
)
from . import cross_view, honest_policy, official_policy
from .answer import Answer
from .motion import carry
from .visual_prompts import rasterize

POLICIES = ("honest", "official")
MOTIONS = ("on", "off", "only")
REMEMBERED_PROMPTS = 256  # a prompt is sent again within seconds, if ever


@dataclass(frozen=True, slots=True)
class Rules:
    """How a session is tracked.

    policy: honest decides from predictions alone; official repeats the DAVIS loop. motion, for honest: on, masks carried by motion
    judge proposals and stand in for them; off, the model alone; only, motion alone, the model is asked just what a drawn prompt
    means. The official loop knows no motion. oracle, for official: the ids that exist, in the order asked, by frame index; a frame
    it does not name has all. max_skew_s, for honest: frames of two views captured within it show the same moment, so that an object of
    one is looked for in the other (cross_view.py); 0: every view is on its own, as in the official loop, and with motion alone. Raises
    BadConfig.
    """

    policy: str = "honest"
    motion: str = "on"
    oracle: Mapping[int, tuple[int, ...]] | None = None
    max_skew_s: float = 0.5

    def __post_init__(self) -> None:
        for name, value, allowed in (("policy", self.policy, POLICIES), ("motion", self.motion, MOTIONS)):
            if value not in allowed:
                raise BadConfig(f"{name} is {value!r}, expected one of {', '.join(allowed)}; choose one of these")
        if self.policy == "honest" and self.oracle is not None:
            raise BadConfig(
                "an oracle was given to policy 'honest', which decides from predictions alone; drop it or choose policy 'official'"
            )
        if self.policy == "official" and self.motion == "only":
            raise BadConfig("motion is 'only', policy 'official' always runs the model; choose policy 'honest' for motion alone")


def prompted(state: TrackState, prompt: Prompt) -> TrackState:
    """Put a prompt down for its view's next frame; an object that was waiting there under the same id is replaced.

    An id is one object in all views of the session: it may be corrected in any of them, and is removed from all. Named anew in a view where
    it was prompted before, or when no view is left in which it was, it is also looked for anew in those where it was only found; a view in
    which a user named it keeps its own.

    Raises BadPrompt for another session's prompt, one that says nothing or names an id twice, a correction or removal of an object that is
    not tracked, or mask prompts of one frame that overlap or differ in size: each mask is to be returned unchanged, and answered masks
    never overlap.
    """
    if prompt.key.session != state.session:
        raise BadPrompt(f"prompt {prompt.prompt_id} is for session {prompt.key.session!r}, expected {state.session!r}; send it there")
    if (on := prompt.drawn_on) is not None and (on.key.session, on.key.view) != (prompt.key.session, prompt.key.view):
        raise BadPrompt(
            f"prompt {prompt.prompt_id} is for {prompt.key.session}/{prompt.key.view} and drawn on {on.key}; give a picture of that view"
        )
    ids = [*(o.object_id for o in prompt.objects), *prompt.remove]
    if not ids:
        raise BadPrompt(f"prompt {prompt.prompt_id} names no object, expected one to follow, correct or remove")
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise BadPrompt(f"prompt {prompt.prompt_id} names object {twice[0]} more than once; merge its shapes into one")
    _check_tracked(state, prompt, ids if prompt.correct else prompt.remove)
    views = cross_view.after_prompt(state, prompt)
    view = views.get(prompt.key.view, ViewState())
    waiting = tuple(p for p in view.pending if p.object_id not in ids)
    pending = waiting if prompt.drawn_on is not None else (*waiting, *prompt.objects)
    _check_disjoint(prompt.objects if prompt.drawn_on is not None else pending)
    after = _with_view(replace(state, views=views), prompt.key, replace(view, pending=pending))
    return replace(after, prompt_ids=(*state.prompt_ids, prompt.prompt_id)[-REMEMBERED_PROMPTS:], lost=state.lost and not prompt.objects)


def with_known_picture(state: TrackState, prompt: Prompt, number: int, rules: Rules) -> Prompt:
    """A prompt whose picture is the frame the view remembers, where it is that very picture; else one with an index of its own.

    A key names one picture, and a client's may be a screenshot of any frame: it becomes index -1 - number, which must be unique in the
    view. Raises BadPrompt where motion alone is to follow an object from a picture that is not the view's last.
    """
    picture, view = prompt.drawn_on, state.views.get(prompt.key.view, ViewState())
    remembered = [view.previous, *(r.frame for o in view.objects for r in (o.anchor, o.memory) if r is not None)]
    same = [frame for frame in remembered if frame is not None and (frame.key, frame.data) == (picture.key, picture.data)]
    if rules.motion == "only" and view.previous not in same:
        raise BadPrompt(
            f"prompt {prompt.prompt_id} is drawn on {picture.key}, which is not the last frame of its view, and motion is 'only': nothing "
            "finds its objects from there; draw them on the next frame"
        )
    return replace(prompt, drawn_on=same[0] if same else replace(picture, key=replace(picture.key, index=-1 - number)))


def on_its_picture(prompt: Prompt) -> TrackState:
    """A session in which the objects of a prompt wait for the picture they were drawn on, and nothing else is known."""
    return prompted(TrackState(prompt.key.session), replace(prompt, correct=False, remove=(), drawn_on=None))


def anchored(state: TrackState, prompt: Prompt, seen: TrackState) -> TrackState:
    """The session once its prompt's own picture is answered, `seen`: the objects are followed from there, and wait for no frame.

    They have a mask to be carried only if that picture is the last of the view; else they are found by how they look.
    """
    view, found = state.views[prompt.key.view], seen.views[prompt.key.view]
    ids = {o.object_id for o in found.objects}
    labels = {o.object_id: o.label for o in view.objects}
    objects = [replace(o, label=o.label or labels.get(o.object_id, "")) for o in found.objects]
    masks = {object_id: rle for object_id, rle in view.masks.items() if object_id not in ids}
    if view.previous is not None and view.previous.key == prompt.drawn_on.key:
        masks |= found.masks
    kept = [o for o in view.objects if o.object_id not in ids]
    return _with_view(state, prompt.key, replace(view, objects=(*kept, *objects), masks=masks))


def without_misfits(state: TrackState, frame: Frame) -> tuple[TrackState, str]:
    """Drop the waiting prompts that do not fit the frame they would apply to; says which, "" when all fit."""
    view = state.views.get(frame.key.view, ViewState())
    fitting, misfits = [], []
    for waiting in view.pending:
        try:
            rasterize(waiting.shape, frame.size_hw)
            fitting.append(waiting)
        except BadPrompt as error:
            misfits.append(f"object {waiting.object_id}: {error}")
    if not misfits:
        return state, ""
    return _with_view(state, frame.key, replace(view, pending=tuple(fitting))), f"frame {frame.key}: {'; '.join(misfits)}"


def plan(state: TrackState, frame: Frame, rules: Rules) -> Request | None:
    """What the model is asked about a frame; None when its view knows no object, and no other view shows one.

    Regions: what is remembered of each object, then how objects look in other views that are looked for here (honest policy), then what was
    drawn on this very frame. carried (honest policy): the previous masks brought here by motion, or with motion off where they were; for an
    object prompted anew, what was drawn. Raises BadPrompt for a waiting prompt that does not fit this frame, Undecodable.
    """
    view = state.views.get(frame.key.view, ViewState())
    joined = rules.policy == "honest" and rules.motion != "only"
    elsewhere = cross_view.regions(state, frame, rules.max_skew_s) if joined else ()
    if not view.objects and not view.pending and not elsewhere:
        return None
    drawn = [(p, rasterize(p.shape, frame.size_hw)) for p in view.pending]
    known = _known(view, {region.object_id for region in elsewhere})
    if rules.policy == "official":
        everyone = tuple(sorted(o.object_id for o in known))
        remembered = official_policy.regions(known, (rules.oracle or {}).get(frame.key.index, everyone))
    else:
        remembered = () if rules.motion == "only" else honest_policy.regions(known)
    new = tuple(Region(p.object_id, frame, mask) for p, mask in drawn if not isinstance(p.shape, Mask))
    carried = {}
    if rules.policy == "honest":
        carried = _carried(view, known, frame, rules.motion != "off") | {region.object_id: region.mask for region in new}
    return Request(frame, Regions(remembered + elsewhere + new), carried, zlib.crc32(str(frame.key).encode()))


def settle(
    state: TrackState, frame: Frame, request: Request | None, proposals: Proposals | None, rules: Rules, model_digest: str
) -> tuple[TrackState, MaskFrame]:
    """The session after this frame, and the answer to it. request and proposals: what `plan` asked and the model said; None for no prompt.

    Mask prompts come back as they were given, with score 1; other masks never overlap them or each other. Objects keep their ids while
    absent; one that was looked for by how it looks in another view and not found is answered absent, and not known here. `applied` and
    `ms` are left to the caller.
    """
    if request is None or proposals is None:
        return state, MaskFrame(frame.key, frame.t_ns, frame.size_hw, FrameStatus.NO_PROMPT, (), model_digest)
    view = state.views.get(frame.key.view, ViewState())
    given = {p.object_id: decode(p.shape.rle) for p in view.pending if isinstance(p.shape, Mask)}
    if rules.policy == "official":
        answers, trusted = official_policy.settle(_known(view), request, proposals, given)
    else:
        answers, trusted = honest_policy.settle(view, request, proposals, given, rules.motion)
    prompts = {p.object_id: p for p in view.pending}
    answers += [Answer(object_id, ObjectStatus.SEEN, 1.0, prompts[object_id].shape.rle, None) for object_id in given]
    looked_for = {object_id: cross_view.label(state, object_id) for object_id in cross_view.looked_for(request)}
    objects = tuple(
        _next_object(answer, view.object(answer.object_id), prompts.get(answer.object_id), frame)
        for answer in answers
        if answer.object_id not in looked_for
    )
    found = [answer for answer in answers if answer.object_id in looked_for and answer.rle is not None]
    objects += tuple(ObjectState(a.object_id, looked_for[a.object_id], Remembered(frame, a.rle), prompted=False) for a in found)
    labels = looked_for | {o.object_id: o.label for o in objects}
    answers.sort(key=lambda answer: answer.object_id)
    masks = {a.object_id: a.rle for a in answers if a.rle is not None}
    said = tuple(ObjectMask(a.object_id, labels[a.object_id], a.status, a.score, a.rle) for a in answers)
    status = FrameStatus.OK if trusted else FrameStatus.DISTRUSTED
    after = _with_view(state, frame.key, ViewState(objects, (), frame if objects else None, masks))
    return after, MaskFrame(frame.key, frame.t_ns, frame.size_hw, status, said, model_digest)


def _check_tracked(state: TrackState, prompt: Prompt, ids: Sequence[int]) -> None:
    known = {o.object_id for view in state.views.values() for o in (*view.objects, *view.pending)}
    if unknown := sorted(set(ids) - known):
        tracked = ", ".join(map(str, sorted(known))) or "nothing"
        views = ", ".join(f"{prompt.key.session}/{name}" for name in {prompt.key.view: None} | dict(state.views))
        raise BadPrompt(
            f"prompt {prompt.prompt_id}: object {unknown[0]} is not tracked in {views}, which tracks {tracked}; "
            "name it in a prompt that adds it"
        )


def _check_disjoint(pending: tuple[ObjectPrompt, ...]) -> None:
    masks = [p for p in pending if isinstance(p.shape, Mask)]
    for one, two in pairwise(masks):
        sizes = one.shape.rle.size_hw, two.shape.rle.size_hw
        if sizes[0] != sizes[1]:
            raise BadPrompt(
                f"mask prompts of objects {one.object_id} and {two.object_id} are {sizes[0]} and {sizes[1]}; send both at the frame's size"
            )
    owner = None  # of each pixel: two decoded masks are never held together
    for prompt in masks:
        mask = decode(prompt.shape.rle)
        owner = np.zeros(mask.shape, np.uint8) if owner is None else owner
        ids, pixels = np.unique(owner[mask], return_counts=True)
        for one, shared in zip(ids.tolist(), pixels.tolist(), strict=True):
            if one:
                raise BadPrompt(
                    f"mask prompts of objects {one} and {prompt.object_id} share {shared} pixels, expected none; give each pixel to one"
                )
        owner[mask] = prompt.object_id


def _known(view: ViewState, elsewhere: Collection[int] = ()) -> tuple[ObjectState, ...]:
    """The objects of a view that are not prompted anew on its next frame, nor looked for by how they look elsewhere."""
    anew = {*elsewhere, *(p.object_id for p in view.pending)}
    return tuple(o for o in view.objects if o.object_id not in anew)


def _carried(view: ViewState, known: tuple[ObjectState, ...], frame: Frame, moving: bool) -> dict[int, np.ndarray]:
    masks = {o.object_id: decode(view.masks[o.object_id]) for o in known if o.object_id in view.masks}
    if moving:
        return carry(masks, view.previous.pixels(), frame.pixels()) if masks else {}
    return {object_id: mask for object_id, mask in masks.items() if mask.shape == frame.size_hw}


def _next_object(answer: Answer, before: ObjectState | None, prompt: ObjectPrompt | None, frame: Frame) -> ObjectState:
    """An object after a frame. A prompt starts it afresh: the anchor is what was answered to it, or the drawn region if nothing was."""
    missed = answer.status != ObjectStatus.SEEN
    if prompt is None:
        return replace(before, memory=answer.memory, misses=before.misses + 1 if missed else 0)
    anchor = Remembered(frame, answer.rle or encode(rasterize(prompt.shape, frame.size_hw)))
    label = prompt.label or (before.label if before else "")
    return ObjectState(answer.object_id, label, anchor, misses=int(missed))


def _with_view(state: TrackState, key: FrameKey, view: ViewState) -> TrackState:
    return replace(state, views={**state.views, key.view: view})

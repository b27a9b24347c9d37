"""Objects across views: which ones a frame is asked for by how they look in another view of the session, and by which picture of them.

Numbers and values only; how a proposal for such an object is judged is honest_policy.py's. An id is one object of the session. In a view

    where it was prompted    it is never asked for so: its own anchor is the user's word, and what is seen elsewhere cannot outweigh that
    where it was found       only once it is absent, was not seen for GIVE_UP frames, and is shown elsewhere: the find may have been wrong
    where it is unknown      whenever it is shown elsewhere

A view shows an object on the pictures on which it was prompted or last trusted, for as long as they are within max_skew of the frame that
is asked about. What motion alone carried is never shown. A view that lags more than max_skew behind in the log still gets the object, when
it comes to the time at which it was prompted. Views in which a user named the object come first; where it was only found it is shown
just when none of them shows it, so that a wrong find does not spread. A wrong find is kept as long as it is seen: asking again does not
tell it from a true one (nano trusts the same wrong proposal frame after frame); naming the object in that view does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..stream.rle import decode
from ..stream.types import Frame, Prompt, Region, Remembered, Request, TrackState, ViewState

GIVE_UP = 8  # frames without being seen; as long as motion may carry a found object unconfirmed


def regions(state: TrackState, frame: Frame, max_skew_s: float) -> tuple[Region, ...]:
    """What a frame is asked with beside what its own view remembers: for each object one region a view that shows it, by ascending id.

    max_skew_s: how far apart in capture time two views may be; 0: every view is on its own.
    """
    if not max_skew_s:
        return ()
    here = state.views.get(frame.key.view, ViewState())
    others = {name: view for name, view in state.views.items() if name != frame.key.view}
    wanted = {o.object_id for view in others.values() for o in view.objects} - _kept(here)
    return tuple(
        Region(object_id, shown.frame, decode(shown.rle))
        for object_id in sorted(wanted)
        for shown in _shown(others, object_id, frame.t_ns, max_skew_s * 1e9)
    )


def looked_for(request: Request) -> set[int]:
    """The objects that a request asks for by how they look in another view than its frame's."""
    return {region.object_id for region in request.condition.regions if region.frame.key.view != request.frame.key.view}


def label(state: TrackState, object_id: int) -> str:
    """What the session's views call an object; the first that has a name for it counts."""
    named = (view.object(object_id) for view in state.views.values())
    return next((o.label for o in named if o is not None and o.label), "")


def after_prompt(state: TrackState, prompt: Prompt) -> dict[str, ViewState]:
    """The views of a session after a prompt in any of them, but for what it names: that waits for its view's next frame.

    What it removes is forgotten everywhere. An object that it names anew, where it was prompted before or when no view is left in which it
    was, is forgotten in other views where it was only found: it was found by what no longer counts.
    """
    removed = set(prompt.remove)
    renewed = {p.object_id for p in prompt.objects if prompt.key.view in (told := _told(state, p.object_id)) or not told}
    return {name: _without(view, removed, set() if name == prompt.key.view else renewed) for name, view in state.views.items()}


def _told(state: TrackState, object_id: int) -> set[str]:
    """The views in which a user named an object."""
    named = {name: view.object(object_id) for name, view in state.views.items()}
    return {name for name, o in named.items() if o is not None and o.prompted}


def _without(view: ViewState, removed: set[int], renewed: set[int]) -> ViewState:
    """A view that knows nothing any more of some objects, and of others only what a user said."""
    gone = removed | {o.object_id for o in view.objects if o.object_id in renewed and not o.prompted}
    kept = tuple(o for o in view.objects if o.object_id not in gone)
    masks = {object_id: rle for object_id, rle in view.masks.items() if object_id not in gone}
    return replace(view, objects=kept, masks=masks, pending=tuple(p for p in view.pending if p.object_id not in removed))


def _kept(here: ViewState) -> set[int]:
    """The objects that a view follows by itself: prompted here, to be prompted on this frame, or found here and not lost for long."""
    lost = {o.object_id for o in here.objects if not o.prompted and o.misses >= GIVE_UP and o.object_id not in here.masks}
    return {o.object_id for o in (*here.objects, *here.pending)} - lost


def _shown(views: Mapping[str, ViewState], object_id: int, t_ns: int, max_skew_ns: float) -> list[Remembered]:
    """How an object looks in the views that show it at this time: in those where it was prompted, or else in those where it was found."""
    found = []
    for view in views.values():
        state = view.object(object_id)
        if state is None or any(p.object_id == object_id for p in view.pending):  # named anew: as it was does not count
            continue
        looks = [look for look in (state.memory, state.anchor) if look is not None and abs(look.frame.t_ns - t_ns) <= max_skew_ns]
        if looks:
            found.append((state.prompted, min(looks, key=lambda look: abs(look.frame.t_ns - t_ns))))
    return [look for prompted, look in found if prompted] or [look for _, look in found]

"""The state of a session <-> plain values: what store and topic `state` hold of it.

Internal: another release may write it otherwise. Bytes, versions and errors are codec.py's.
"""

from __future__ import annotations

from typing import Any

from .codec_parts import read_frame, read_key, read_object_prompt, read_rle, typed, write_frame, write_key, write_object_prompt, write_rle
from .types import Frame, FrameKey, ObjectState, Remembered, TrackState, ViewState


def write_state(state: TrackState) -> dict[str, Any]:
    """A state as plain values: frames stand in one table; everything else names them by FrameKey."""
    frames: dict[FrameKey, Frame] = {}

    def remember(memory: Remembered | None) -> Any:
        return memory and (note(memory.frame), write_rle(memory.rle))

    def note(frame: Frame | None) -> Any:
        return frame and write_key(frames.setdefault(frame.key, frame).key)

    def track(o: ObjectState) -> Any:
        item = o.object_id, o.label, remember(o.anchor), remember(o.memory), o.misses
        return item if o.prompted else (*item, False)  # what was prompted is written as it was before objects were found across views

    views = {
        name: {
            "objects": [track(o) for o in view.objects],
            "pending": [write_object_prompt(p) for p in view.pending],
            "previous": note(view.previous),
            "masks": [(object_id, write_rle(rle)) for object_id, rle in view.masks.items()],
        }
        for name, view in state.views.items()
    }
    return {
        "session": state.session,
        "applied": state.applied,
        "views": views,
        "answered": state.answered,
        "prompt_ids": state.prompt_ids,
        "lost": state.lost,
        "frames": [write_frame(f) for f in frames.values()],
    }


def read_state(body: Any) -> TrackState:
    """What `write_state` wrote; a frame that is named in several places is one Frame again."""
    frames = {frame.key: frame for frame in map(read_frame, body["frames"])}

    def remembered(item: Any) -> Remembered | None:
        return item and Remembered(frames[read_key(item[0])], read_rle(item[1]))

    def tracked(item: Any) -> ObjectState:
        object_id, label, anchor, memory, misses, prompted = item if len(item) == 6 else (*item, True)
        if anchor is None:
            raise ValueError(f"object {object_id} has no anchor")
        known = remembered(anchor), remembered(memory)
        return ObjectState(typed(object_id, int), typed(label, str), *known, typed(misses, int), typed(prompted, bool))

    views = {
        typed(name, str): ViewState(
            objects=tuple(tracked(item) for item in view["objects"]),
            pending=tuple(read_object_prompt(p) for p in view["pending"]),
            previous=view["previous"] and frames[read_key(view["previous"])],
            masks={typed(object_id, int): read_rle(rle) for object_id, rle in view["masks"]},
        )
        for name, view in body["views"].items()
    }
    prompt_ids = tuple(typed(i, str) for i in body["prompt_ids"])
    answered, lost = typed(body["answered"], int), typed(body["lost"], bool)
    return TrackState(typed(body["session"], str), typed(body["applied"], int), views, answered, prompt_ids, lost)

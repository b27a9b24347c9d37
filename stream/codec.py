"""Messages <-> bytes, and answers as lines of JSON.

A message is a msgpack map of named fields, the schema version `v` among them, so that any language can read a topic. Its kind travels
beside it (a Kafka header). Round trips are exact; whatever does not fit is a BadRecord. Transport lives in bus.py and store.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgpack

from .errors import BadInput, BadRecord
from .types import (
    Box,
    Frame,
    FrameKey,
    FrameStatus,
    Mask,
    MaskFrame,
    Notice,
    NoticeKind,
    ObjectMask,
    ObjectPrompt,
    ObjectState,
    ObjectStatus,
    Points,
    Prompt,
    Remembered,
    Rle,
    Scribble,
    Shape,
    TrackState,
    ViewState,
)
from .wanted import Position, Wanted

SCHEMA = 1


class Kind(StrEnum):
    """What a record's bytes are; travels beside them."""

    FRAME = "frame"
    PROMPT = "prompt"
    END = "end"
    MASK_FRAME = "mask_frame"
    NOTICE = "notice"
    TRACK_STATE = "track_state"
    WANTED = "wanted"
    POSITION = "position"


@dataclass(frozen=True, slots=True)
class End:
    """No more frames will come: of one view, or of the whole session when view is None."""

    session: str
    view: str | None = None


Message = Frame | Prompt | End | MaskFrame | Notice | TrackState | Wanted | Position


def kind_of(message: Message) -> Kind:
    """The kind that must travel beside the bytes of this message."""
    return next(kind for kind, (noun, _, _) in _LAYOUTS.items() if isinstance(message, noun))


def pack(message: Message) -> bytes:
    """The bytes of a message. A TrackState's pictures are written once per FrameKey."""
    return msgpack.packb({"v": SCHEMA, **_LAYOUTS[kind_of(message)][1](message)})


def unpack(kind: Kind | str, data: bytes) -> Message:
    """The message of a kind from its bytes, equal to what was packed. Raises BadRecord."""
    if kind not in _LAYOUTS:
        raise BadRecord(f"record kind is {kind!r}, expected one of {', '.join(Kind)}; is its producer of another version?")
    try:
        body = msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadRecord(
            f"{kind} record of {len(data)} bytes is no msgpack ({error or type(error).__name__}); send psalm-stream records"
        ) from error
    version = body.get("v") if isinstance(body, Mapping) else None
    if version != SCHEMA:
        raise BadRecord(f"{kind} record has schema version {version!r}, this program reads {SCHEMA}; run both sides on the same release")
    return _read(kind, _LAYOUTS[Kind(kind)][2], body)


def digest(answer: MaskFrame | Notice) -> str:
    """What must be equal between two runs on one input: SHA-256 over every field but `ms`, in hex."""
    told = replace(answer, ms={}) if isinstance(answer, MaskFrame) else answer
    return sha256(pack(told)).hexdigest()


def mask_frame_json(masks: MaskFrame) -> dict[str, Any]:
    """A MaskFrame as one JSON object: COCO run-lengths with counts as text, the key and the per-stage milliseconds by name."""
    body = _write_masks(masks)
    session, view, index = body.pop("key")
    for item in body["objects"]:
        if item["rle"] is not None:
            item["rle"] = {"size": list(item["rle"][0]), "counts": item["rle"][1].decode("ascii")}
    return {"session": session, "view": view, "index": index, **body}


def notice_json(notice: Notice) -> dict[str, Any]:
    """A Notice as one JSON object. Its `kind` tells it from a MaskFrame's, which has none; `record` by name, null for a source's own."""
    record = notice.record and dict(zip(("topic", "partition", "offset"), notice.record, strict=True))
    return {**_write_notice(notice), "record": record}


def mask_frame_from_json(line: Mapping[str, Any]) -> MaskFrame:
    """The MaskFrame that mask_frame_json wrote. Raises BadRecord."""

    def read(line: Mapping[str, Any]) -> MaskFrame:
        objects = []
        for item in line["objects"]:
            rle = item["rle"]
            objects.append({**item, "rle": rle and (rle["size"], rle["counts"].encode("ascii"))})
        return _read_masks({**line, "key": (line["session"], line["view"], line["index"]), "objects": objects})

    return _read("mask line", read, line)


def _read(what: str, reader: Any, body: Any) -> Any:
    """Run a reader; a missing, mistyped or contradictory field becomes a BadRecord that names it."""
    try:
        return reader(body)
    except KeyError as error:
        raise BadRecord(f"{what} record lacks the field {error}; its producer writes another layout") from error
    except (TypeError, ValueError, AttributeError, BadInput) as error:
        raise BadRecord(f"{what} record holds a value that does not fit: {error}") from error


def _typed(value: Any, *kinds: type) -> Any:
    """The value itself when it is exactly of one of the kinds (bool is no int); else TypeError."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r:.40} is {type(value).__name__}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


# -- the parts ---------------------------------------------------------------------------------------------------------


def _write_key(key: FrameKey) -> tuple[str, str, int]:
    return key.session, key.view, int(key.index)


def _read_key(body: Any) -> FrameKey:
    session, view, index = body
    return FrameKey(_typed(session, str), _typed(view, str), _typed(index, int))


def _read_size(body: Any) -> tuple[int, int]:
    height, width = body
    return _typed(height, int), _typed(width, int)


def _write_rle(rle: Rle) -> tuple[tuple[int, int], bytes]:
    return tuple(rle.size_hw), rle.counts


def _read_rle(body: Any) -> Rle:
    size_hw, counts = body
    return Rle(_read_size(size_hw), _typed(counts, bytes))


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if len(values) != count:
        raise ValueError(f"{values!r:.40} is {len(values)} numbers, expected {count}")
    return tuple(float(_typed(v, int, float)) for v in values)


def _write_shape(shape: Shape) -> tuple[str, Any]:
    match shape:
        case Points(xy) | Scribble(xy):
            return type(shape).__name__.lower(), [[float(x), float(y)] for x, y in xy]
        case Box(xyxy):
            return "box", [float(v) for v in xyxy]
        case Mask(rle):
            return "mask", _write_rle(rle)


def _read_shape(body: Any) -> Shape:
    name, value = body
    match name:
        case "points" | "scribble":
            return {"points": Points, "scribble": Scribble}[name](tuple(_numbers(pair, 2) for pair in value))
        case "box":
            return Box(_numbers(value, 4))
        case "mask":
            return Mask(_read_rle(value))
    raise ValueError(f"shape is {name!r}, expected points, box, scribble or mask")


def _write_object_prompt(prompt: ObjectPrompt) -> dict[str, Any]:
    return {"object_id": int(prompt.object_id), "shape": _write_shape(prompt.shape), "label": prompt.label}


def _read_object_prompt(body: Any) -> ObjectPrompt:
    return ObjectPrompt(_typed(body["object_id"], int), _read_shape(body["shape"]), _typed(body["label"], str))


# -- the messages ------------------------------------------------------------------------------------------------------


def _write_frame(frame: Frame) -> dict[str, Any]:
    return {"key": _write_key(frame.key), "t_ns": int(frame.t_ns), "live": frame.live, "size_hw": frame.size_hw, "data": frame.data}


def _read_frame(body: Any) -> Frame:
    t_ns, live, data = _typed(body["t_ns"], int), _typed(body["live"], bool), _typed(body["data"], bytes)
    return Frame(_read_key(body["key"]), t_ns, live, _read_size(body["size_hw"]), data)


def _write_prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "key": _write_key(prompt.key),
        "prompt_id": prompt.prompt_id,
        "objects": [_write_object_prompt(o) for o in prompt.objects],
        "correct": prompt.correct,
        "remove": [int(i) for i in prompt.remove],
    }


def _read_prompt(body: Any) -> Prompt:
    objects = tuple(_read_object_prompt(o) for o in body["objects"])
    remove = tuple(_typed(i, int) for i in body["remove"])
    return Prompt(_read_key(body["key"]), _typed(body["prompt_id"], str), objects, _typed(body["correct"], bool), remove)


def _write_end(end: End) -> dict[str, Any]:
    return {"session": end.session, "view": end.view}


def _read_end(body: Any) -> End:
    return End(_typed(body["session"], str), _typed(body["view"], str, type(None)))


def _write_masks(masks: MaskFrame) -> dict[str, Any]:
    return {
        "key": _write_key(masks.key),
        "t_ns": int(masks.t_ns),
        "size_hw": masks.size_hw,
        "status": str(masks.status),
        "objects": [_write_object_mask(o) for o in masks.objects],
        "model": masks.model,
        "message": masks.message,
        "ms": {stage: float(ms) for stage, ms in masks.ms.items()},
    }


def _read_masks(body: Any) -> MaskFrame:
    return MaskFrame(
        key=_read_key(body["key"]),
        t_ns=_typed(body["t_ns"], int),
        size_hw=_read_size(body["size_hw"]),
        status=FrameStatus(body["status"]),
        objects=tuple(_read_object_mask(o) for o in body["objects"]),
        model=_typed(body["model"], str),
        message=_typed(body["message"], str),
        ms={_typed(stage, str): _typed(ms, float, int) for stage, ms in body["ms"].items()},
    )


def _write_notice(notice: Notice) -> dict[str, Any]:
    return {
        "kind": str(notice.kind),
        "session": notice.session,
        "view": notice.view,
        "index": notice.index,
        "message": notice.message,
        "record": notice.record,
    }


def _read_notice(body: Any) -> Notice:
    view, index, record = _typed(body["view"], str, type(None)), _typed(body["index"], int, type(None)), body["record"]
    if record is not None:
        topic, partition, offset = record
        record = (_typed(topic, str), _typed(partition, int), _typed(offset, int))
    return Notice(NoticeKind(body["kind"]), _typed(body["session"], str), view, index, _typed(body["message"], str), record)


def _write_object_mask(mask: ObjectMask) -> dict[str, Any]:
    rle = mask.rle and _write_rle(mask.rle)
    return {"object_id": int(mask.object_id), "label": mask.label, "status": str(mask.status), "score": float(mask.score), "rle": rle}


def _read_object_mask(body: Any) -> ObjectMask:
    status = ObjectStatus(body["status"])
    rle = body["rle"] and _read_rle(body["rle"])
    score = float(_typed(body["score"], float, int))
    return ObjectMask(_typed(body["object_id"], int), _typed(body["label"], str), status, score, rle)


def _write_state(state: TrackState) -> dict[str, Any]:
    """Frames stand in one table; everything else names them by FrameKey."""
    frames: dict[FrameKey, Frame] = {}

    def remember(memory: Remembered | None) -> Any:
        return memory and (note(memory.frame), _write_rle(memory.rle))

    def note(frame: Frame | None) -> Any:
        return frame and _write_key(frames.setdefault(frame.key, frame).key)

    views = {
        name: {
            "objects": [(o.object_id, o.label, remember(o.anchor), remember(o.memory), o.misses) for o in view.objects],
            "pending": [_write_object_prompt(p) for p in view.pending],
            "previous": note(view.previous),
            "masks": [(object_id, _write_rle(rle)) for object_id, rle in view.masks.items()],
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
        "frames": [_write_frame(f) for f in frames.values()],
    }


def _read_state(body: Any) -> TrackState:
    frames = {frame.key: frame for frame in map(_read_frame, body["frames"])}

    def remembered(item: Any) -> Remembered | None:
        return item and Remembered(frames[_read_key(item[0])], _read_rle(item[1]))

    def tracked(item: Any) -> ObjectState:
        object_id, label, anchor, memory, misses = item
        if anchor is None:
            raise ValueError(f"object {object_id} has no anchor")
        return ObjectState(_typed(object_id, int), _typed(label, str), remembered(anchor), remembered(memory), _typed(misses, int))

    views = {
        _typed(name, str): ViewState(
            objects=tuple(tracked(item) for item in view["objects"]),
            pending=tuple(_read_object_prompt(p) for p in view["pending"]),
            previous=view["previous"] and frames[_read_key(view["previous"])],
            masks={_typed(object_id, int): _read_rle(rle) for object_id, rle in view["masks"]},
        )
        for name, view in body["views"].items()
    }
    prompt_ids = tuple(_typed(i, str) for i in body["prompt_ids"])
    answered, lost = _typed(body["answered"], int), _typed(body["lost"], bool)
    return TrackState(_typed(body["session"], str), _typed(body["applied"], int), views, answered, prompt_ids, lost)


def _write_wanted(wanted: Wanted) -> dict[str, Any]:
    return {**_write_flat(wanted), "prompts": [_write_object_prompt(o) for o in wanted.prompts]}


def _read_wanted(body: Any) -> Wanted:
    body = {**body, "prompts": tuple(_read_object_prompt(o) for o in body["prompts"])}
    return _read_flat(Wanted, body, {"every": int, "max_fps": (float, int, type(None)), "offset_ns": int, "give_up_s": (float, int)})


def _read_position(body: Any) -> Position:
    numbers = dict.fromkeys(("index", "taken", "connection", "offset"), int) | dict.fromkeys(("t_ns", "pts_ns"), (int, type(None)))
    return _read_flat(Position, body, {**numbers, "done": bool})


def _write_flat(noun: Wanted | Position) -> dict[str, Any]:
    return {field.name: getattr(noun, field.name) for field in fields(noun)}


def _read_flat(noun: type, body: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> Any:
    """A noun of plain values: text, but for the fields that `kinds` names and those that are read already."""
    values = {field.name: body[field.name] for field in fields(noun)}
    for name, value in values.items():
        kind = kinds.get(name, tuple if name == "prompts" else str)
        _typed(value, *(kind if isinstance(kind, tuple) else (kind,)))
    return noun(**values)


_LAYOUTS = {
    Kind.FRAME: (Frame, _write_frame, _read_frame),
    Kind.PROMPT: (Prompt, _write_prompt, _read_prompt),
    Kind.END: (End, _write_end, _read_end),
    Kind.MASK_FRAME: (MaskFrame, _write_masks, _read_masks),
    Kind.NOTICE: (Notice, _write_notice, _read_notice),
    Kind.TRACK_STATE: (TrackState, _write_state, _read_state),
    Kind.WANTED: (Wanted, _write_wanted, _read_wanted),
    Kind.POSITION: (Position, _write_flat, _read_position),
}

"""Messages <-> bytes, and answers as lines of JSON.

A message is a msgpack map of named fields, the schema version `v` among them, so that any language can read a topic. Its kind travels
beside it (a Kafka header). Round trips are exact; whatever does not fit is a BadRecord. What messages are made of is codec_parts.py's, a
session's state codec_state.py's; transport lives in bus.py and store.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgpack

from .codec_parts import (
    read_frame,
    read_key,
    read_object_prompt,
    read_rle,
    read_size,
    typed,
    write_frame,
    write_key,
    write_object_prompt,
    write_rle,
)
from .codec_state import read_state, write_state
from .errors import BadInput, BadRecord
from .types import Frame, FrameStatus, MaskFrame, Notice, NoticeKind, ObjectMask, ObjectStatus, Prompt, TrackState
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


# -- the messages ------------------------------------------------------------------------------------------------------


def _write_prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "key": write_key(prompt.key),
        "prompt_id": prompt.prompt_id,
        "objects": [write_object_prompt(o) for o in prompt.objects],
        "correct": prompt.correct,
        "remove": [int(i) for i in prompt.remove],
        **({"drawn_on": write_frame(prompt.drawn_on)} if prompt.drawn_on else {}),
    }


def _read_prompt(body: Any) -> Prompt:
    objects = tuple(read_object_prompt(o) for o in body["objects"])
    remove = tuple(typed(i, int) for i in body["remove"])
    drawn_on = read_frame(body["drawn_on"]) if body.get("drawn_on") is not None else None
    return Prompt(read_key(body["key"]), typed(body["prompt_id"], str), objects, typed(body["correct"], bool), remove, drawn_on)


def _write_end(end: End) -> dict[str, Any]:
    return {"session": end.session, "view": end.view}


def _read_end(body: Any) -> End:
    return End(typed(body["session"], str), typed(body["view"], str, type(None)))


def _write_masks(masks: MaskFrame) -> dict[str, Any]:
    return {
        "key": write_key(masks.key),
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
        key=read_key(body["key"]),
        t_ns=typed(body["t_ns"], int),
        size_hw=read_size(body["size_hw"]),
        status=FrameStatus(body["status"]),
        objects=tuple(_read_object_mask(o) for o in body["objects"]),
        model=typed(body["model"], str),
        message=typed(body["message"], str),
        ms={typed(stage, str): typed(ms, float, int) for stage, ms in body["ms"].items()},
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
    view, index, record = typed(body["view"], str, type(None)), typed(body["index"], int, type(None)), body["record"]
    if record is not None:
        topic, partition, offset = record
        record = (typed(topic, str), typed(partition, int), typed(offset, int))
    return Notice(NoticeKind(body["kind"]), typed(body["session"], str), view, index, typed(body["message"], str), record)


def _write_object_mask(mask: ObjectMask) -> dict[str, Any]:
    rle = mask.rle and write_rle(mask.rle)
    return {"object_id": int(mask.object_id), "label": mask.label, "status": str(mask.status), "score": float(mask.score), "rle": rle}


def _read_object_mask(body: Any) -> ObjectMask:
    status = ObjectStatus(body["status"])
    rle = body["rle"] and read_rle(body["rle"])
    score = float(typed(body["score"], float, int))
    return ObjectMask(typed(body["object_id"], int), typed(body["label"], str), status, score, rle)


def _write_wanted(wanted: Wanted) -> dict[str, Any]:
    return {**_write_flat(wanted), "prompts": [write_object_prompt(o) for o in wanted.prompts]}


def _read_wanted(body: Any) -> Wanted:
    body = {**body, "prompts": tuple(read_object_prompt(o) for o in body["prompts"])}
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
        typed(value, *(kind if isinstance(kind, tuple) else (kind,)))
    return noun(**values)


_LAYOUTS = {
    Kind.FRAME: (Frame, write_frame, read_frame),
    Kind.PROMPT: (Prompt, _write_prompt, _read_prompt),
    Kind.END: (End, _write_end, _read_end),
    Kind.MASK_FRAME: (MaskFrame, _write_masks, _read_masks),
    Kind.NOTICE: (Notice, _write_notice, _read_notice),
    Kind.TRACK_STATE: (TrackState, write_state, read_state),
    Kind.WANTED: (Wanted, _write_wanted, _read_wanted),
    Kind.POSITION: (Position, _write_flat, _read_position),
}

"""The parts that messages share, as msgpack writes them and exactly as strict: keys, sizes, run-lengths, shapes, pictures.

A reader raises KeyError, TypeError or ValueError for what does not fit; codec.py makes a BadRecord of it.
"""

from __future__ import annotations

from typing import Any

from .types import Box, Frame, FrameKey, Mask, ObjectPrompt, Points, Rle, Scribble, Shape


def typed(value: Any, *kinds: type) -> Any:
    """The value itself when it is exactly of one of the kinds (bool is no int); else TypeError."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r:.40} is {type(value).__name__}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def write_key(key: FrameKey) -> tuple[str, str, int]:
    """A frame's identity: session, view, index."""
    return key.session, key.view, int(key.index)


def read_key(body: Any) -> FrameKey:
    """What `write_key` wrote."""
    session, view, index = body
    return FrameKey(typed(session, str), typed(view, str), typed(index, int))


def read_size(body: Any) -> tuple[int, int]:
    """Height and width."""
    height, width = body
    return typed(height, int), typed(width, int)


def write_rle(rle: Rle) -> tuple[tuple[int, int], bytes]:
    """A run-length: its size, its counts."""
    return tuple(rle.size_hw), rle.counts


def read_rle(body: Any) -> Rle:
    """What `write_rle` wrote."""
    size_hw, counts = body
    return Rle(read_size(size_hw), typed(counts, bytes))


def numbers(values: Any, count: int) -> tuple[float, ...]:
    """Exactly so many numbers."""
    if len(values) != count:
        raise ValueError(f"{values!r:.40} is {len(values)} numbers, expected {count}")
    return tuple(float(typed(v, int, float)) for v in values)


def write_shape(shape: Shape) -> tuple[str, Any]:
    """A shape: its name, its coordinates or run-length."""
    match shape:
        case Points(xy) | Scribble(xy):
            return type(shape).__name__.lower(), [[float(x), float(y)] for x, y in xy]
        case Box(xyxy):
            return "box", [float(v) for v in xyxy]
        case Mask(rle):
            return "mask", write_rle(rle)


def read_shape(body: Any) -> Shape:
    """What `write_shape` wrote."""
    name, value = body
    match name:
        case "points" | "scribble":
            return {"points": Points, "scribble": Scribble}[name](tuple(numbers(pair, 2) for pair in value))
        case "box":
            return Box(numbers(value, 4))
        case "mask":
            return Mask(read_rle(value))
    raise ValueError(f"shape is {name!r}, expected points, box, scribble or mask")


def write_object_prompt(prompt: ObjectPrompt) -> dict[str, Any]:
    """What a user says of one object."""
    return {"object_id": int(prompt.object_id), "shape": write_shape(prompt.shape), "label": prompt.label}


def read_object_prompt(body: Any) -> ObjectPrompt:
    """What `write_object_prompt` wrote."""
    return ObjectPrompt(typed(body["object_id"], int), read_shape(body["shape"]), typed(body["label"], str))


def write_frame(frame: Frame) -> dict[str, Any]:
    """A picture, its bytes untouched."""
    return {"key": write_key(frame.key), "t_ns": int(frame.t_ns), "live": frame.live, "size_hw": frame.size_hw, "data": frame.data}


def read_frame(body: Any) -> Frame:
    """What `write_frame` wrote."""
    t_ns, live, data = typed(body["t_ns"], int), typed(body["live"], bool), typed(body["data"], bytes)
    return Frame(read_key(body["key"]), t_ns, live, read_size(body["size_hw"]), data)

"""Messages: every noun survives its bytes exactly, each picture is written once, and whatever does not fit is a BadRecord."""

import json
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from psalm_stream.stream import codec, rle
from psalm_stream.stream.codec import End, Kind, digest, pack, unpack
from psalm_stream.stream.errors import BadRecord
from psalm_stream.stream.types import (
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
    Scribble,
    TrackState,
    ViewState,
)
from psalm_stream.stream.wanted import Position, Wanted


def frame(index=0, view="main", size=1000):
    data = np.random.default_rng(index).bytes(size)
    return Frame(FrameKey("kitchen/ä", view, index), 41_666_667 * index, False, (5, 7), data)


SMALL = rle.encode(np.eye(5, 7, dtype=bool))
EMPTY = rle.encode(np.zeros((5, 7), bool))
SHAPES = [Points(((1.5, 2.0), (3.0, 4.25))), Points(()), Box((0.0, 0.5, 7.0, 5.0)), Scribble(((0.0, 0.0), (6.5, 4.0))), Mask(SMALL)]
PROMPT = Prompt(frame().key, "p-1", tuple(ObjectPrompt(i + 1, shape, "tasse ☕" * (i % 2)) for i, shape in enumerate(SHAPES)))
MASKS = MaskFrame(
    frame(3).key,
    t_ns=2**62,
    size_hw=(5, 7),
    status=FrameStatus.DISTRUSTED,
    objects=(
        ObjectMask(1, "cup", ObjectStatus.SEEN, 0.1 + 0.2, SMALL),
        ObjectMask(9, "", ObjectStatus.CARRIED, 0.0, EMPTY),
        ObjectMask(255, "ball", ObjectStatus.ABSENT, 1e-9, None),
    ),
    model="sha256:00ff",
    ms={"model": 12.5, "settle": 0.1},
)
ONE_VIEW = ViewState(
    objects=(
        ObjectState(1, "cup", anchor=Remembered(frame(0), SMALL), memory=Remembered(frame(2), EMPTY), misses=3),
        ObjectState(2, "", anchor=Remembered(frame(0), EMPTY)),
    ),
    pending=PROMPT.objects,
    previous=frame(2),
    masks={1: SMALL, 200: EMPTY},
)
VIEWS = {"main": ONE_VIEW, "left": ViewState(previous=frame(0, "left")), "new": ViewState()}
STATE = TrackState("kitchen/ä", applied=2**40, views=VIEWS, answered=77, prompt_ids=("p-0", "p-1"), lost=True)
NOTICE = Notice(NoticeKind.REFUSED, "kitchen/ä", "main", 4, "no such object", ("frames", 3, 2**40))
MESSAGES = {
    "file frame": frame(),
    "live frame": replace(frame(7), live=True, t_ns=-1),
    "prompt": PROMPT,
    "removal": replace(PROMPT, objects=(), remove=(3, 255)),
    "correction": replace(PROMPT, correct=True),
    "prompt with its picture": replace(PROMPT, drawn_on=frame()),
    "notice": NOTICE,
    "notice of a source": Notice(NoticeKind.SOURCE_GONE, "s", None, None, ""),
    "end of a view": End("s", "main"),
    "end of a session": End("s"),
    "masks": MASKS,
    "masks without objects": replace(MASKS, objects=(), status=FrameStatus.NO_PROMPT, message="why", ms={}),
    "wanted": Wanted("s", "main", "rtsp://user:secret@camera/1", "r-1", 3, 7.5, -40, "udp", 20.0, PROMPT.objects),
    "wanted as it is": Wanted("s", "ä", "cups.mp4", "r-2"),
    "position": Position("s", "main", "r-1", 7, 3, 2**62, -5, 2, 99, True),
    "position of nothing": Position("s", "main"),
    "state": STATE,
    "new state": TrackState("s"),
}
each_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


@each_message
def test_a_message_survives_its_bytes(message):
    assert unpack(codec.kind_of(message), pack(message)) == message


@each_message
def test_equal_messages_have_equal_bytes(message):
    assert pack(message) == pack(unpack(codec.kind_of(message), pack(message)))


@pytest.mark.parametrize("field", ["status", "message", "objects", "model", "t_ns"])
def test_the_digest_of_an_answer_covers_every_field_but_ms(field):
    other = {"status": FrameStatus.OK, "message": "x", "objects": (), "model": "y", "t_ns": 0}[field]
    assert digest(replace(MASKS, ms={})) == digest(MASKS) != digest(replace(MASKS, **{field: other}))


def test_the_time_per_stage_travels_although_it_takes_no_part_in_equality():
    assert unpack(Kind.MASK_FRAME, pack(MASKS)).ms == MASKS.ms


def test_a_kind_may_be_given_as_the_text_of_a_header():
    assert unpack("frame", pack(frame())) == frame()


def test_numpy_scores_and_coordinates_are_written_as_plain_numbers():
    masks = replace(MASKS, objects=(ObjectMask(np.uint8(4), "", ObjectStatus.SEEN, np.float32(0.3), SMALL),))
    prompt = replace(PROMPT, objects=(ObjectPrompt(np.int64(1), Box(tuple(np.float32([0, 1, 2, 3])))),))
    assert unpack(Kind.MASK_FRAME, pack(masks)) == masks
    assert unpack(Kind.PROMPT, pack(prompt)) == prompt


def test_a_picture_remembered_five_times_is_written_once():
    big = frame(0, size=100_000)
    memory = Remembered(big, SMALL)
    view = ViewState(tuple(ObjectState(i, "", memory, memory) for i in (1, 2)), previous=big)
    data = pack(TrackState("s", views={"main": view}))
    assert len(data) < 101_000


def test_a_picture_remembered_in_several_places_is_one_frame_again_so_that_it_is_decoded_once():
    view = unpack(Kind.TRACK_STATE, pack(STATE)).views["main"]
    assert view.objects[0].anchor.frame is view.objects[1].anchor.frame
    assert view.objects[0].memory.frame is view.previous


def altered(message, **fields):
    return msgpack.packb({**msgpack.unpackb(pack(message)), **fields})


@pytest.mark.parametrize(
    ("kind", "data", "named"),
    [
        (Kind.FRAME, b"", "frame record of 0 bytes"),
        (Kind.FRAME, b"\xff\xd8\xff\xe0 a bare JPEG", "no msgpack"),
        (Kind.FRAME, pack(frame())[:-1], "no msgpack"),
        (Kind.FRAME, pack(frame()) + b"\x00", "no msgpack"),
        (Kind.FRAME, b"\x01", "version None"),
        (Kind.FRAME, b"\x91\x01", "version None"),
        (Kind.FRAME, altered(frame(), v=99), "version 99"),
        (Kind.PROMPT, pack(frame()), "prompt_id|objects"),
        (Kind.FRAME, altered(frame(), t_ns="soon"), "'soon' is str, expected int"),
        (Kind.FRAME, altered(frame(), live=1), "expected bool"),
        (Kind.FRAME, altered(frame(), size_hw=[5]), "values to unpack"),
        (Kind.FRAME, altered(frame(), key=None), "frame record"),
        (Kind.FRAME, altered(frame(), data="text"), "expected bytes"),
        (Kind.PROMPT, altered(PROMPT, objects=[{"object_id": 0, "shape": ["points", []], "label": ""}]), "expected 1 to 255"),
        (Kind.PROMPT, altered(PROMPT, objects=[{"object_id": 1, "shape": ["circle", []], "label": ""}]), "circle"),
        (Kind.PROMPT, altered(PROMPT, objects=[{"object_id": 1, "shape": ["points", [[1, 2, 3]]], "label": ""}]), "expected 2"),
        (Kind.PROMPT, altered(PROMPT, objects=[{"object_id": 1, "shape": ["box", [1, 2, 3, True]], "label": ""}]), "True is bool"),
        (Kind.MASK_FRAME, altered(MASKS, status="fine"), "fine"),
        (Kind.TRACK_STATE, altered(STATE, frames=[]), "lacks"),
        (Kind.END, altered(End("s"), session=None), "expected str"),
        ("rumour", b"", "'rumour'"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_and_named(kind, data, named):
    with pytest.raises(BadRecord, match=named):
        unpack(kind, data)


@each_message
def test_a_cut_or_damaged_message_is_refused_or_read_but_never_another_error(message):
    data, kind = pack(message), codec.kind_of(message)
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[draw.integers(len(data))] ^= 1 << draw.integers(8)
        try:
            unpack(kind, bytes(damaged))
        except BadRecord:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("masks", [MASKS, MESSAGES["masks without objects"]])
def test_a_line_of_masks_jsonl_can_be_read_back(masks):
    line = json.loads(json.dumps(codec.mask_frame_json(masks)))
    assert codec.mask_frame_from_json(line) == masks
    assert codec.mask_frame_from_json(line).ms == masks.ms


def test_a_line_of_masks_jsonl_holds_coco_run_lengths_by_name():
    line = codec.mask_frame_json(MASKS)
    assert (line["session"], line["view"], line["index"]) == ("kitchen/ä", "main", 3)
    assert line["objects"][0] == {
        "object_id": 1,
        "label": "cup",
        "status": "seen",
        "score": 0.1 + 0.2,
        "rle": {"size": [5, 7], "counts": SMALL.counts.decode()},
    }
    assert line["objects"][2]["rle"] is None


def test_a_notice_is_one_json_object_with_its_record_by_name():
    line = json.loads(json.dumps(codec.notice_json(NOTICE)))
    record = {"topic": "frames", "partition": 3, "offset": 2**40}
    said = {"kind": "refused", "session": "kitchen/ä", "view": "main", "index": 4, "message": "no such object", "record": record}
    assert line == said
    assert codec.notice_json(replace(NOTICE, record=None))["record"] is None


def test_a_notice_is_told_from_masks_by_its_kind():
    assert "kind" not in codec.mask_frame_json(MASKS)


def test_a_line_that_lacks_a_field_is_refused():
    line = codec.mask_frame_json(MASKS)
    del line["status"]
    with pytest.raises(BadRecord, match="status"):
        codec.mask_frame_from_json(line)


def test_the_layout_of_schema_1_is_pinned():
    """Change it only together with codec.SCHEMA: records of older releases lie in the log."""
    assert pack(End("s", "v")).hex() == "83a17601a773657373696f6ea173a476696577a176"
    layout = {kind: sorted(msgpack.unpackb(pack(m))) for kind, m in ((codec.kind_of(m), m) for m in MESSAGES.values())}
    assert layout == {
        "frame": ["data", "key", "live", "size_hw", "t_ns", "v"],
        "prompt": ["correct", "drawn_on", "key", "objects", "prompt_id", "remove", "v"],  # drawn_on may be left out
        "end": ["session", "v", "view"],
        "mask_frame": ["key", "message", "model", "ms", "objects", "size_hw", "status", "t_ns", "v"],
        "notice": ["index", "kind", "message", "record", "session", "v", "view"],
        "track_state": ["answered", "applied", "frames", "lost", "prompt_ids", "session", "v", "views"],
        "wanted": sorted(["every", "give_up_s", "max_fps", "offset_ns", "prompts", "run", "session", "transport", "url", "v", "view"]),
        "position": sorted(["connection", "done", "index", "offset", "pts_ns", "run", "session", "t_ns", "taken", "v", "view"]),
    }

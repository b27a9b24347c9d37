"""A prompt that brings the picture it was drawn on: its objects start there, whatever the stream shows by then."""

from dataclasses import replace

import pytest
from psalm_stream.psalm.tracker import Rules, anchored, prompted
from psalm_stream.stream import rle
from psalm_stream.stream.bus import FRAMES, MASKS, MemoryBus, MemoryLog
from psalm_stream.stream.codec import kind_of, pack, unpack
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import (
    Box,
    MaskFrame,
    NoticeKind,
    ObjectPrompt,
    ObjectState,
    ObjectStatus,
    Prompt,
    Remembered,
    TrackState,
    ViewState,
)
from psalm_stream.workers.prompt_flags import read_picture
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import ColourSegmenter, box_of, frames, mask_of, mask_prompt, picture

CLIP = frames(22)
LONG_AGO, NOW = CLIP[0], CLIP[20]  # between them both objects have left their places


def drawn(on, *object_ids, box=None, **more):
    objects = tuple(ObjectPrompt(i, Box(box or box_of(i, LONG_AGO.key.index))) for i in object_ids)
    return Prompt(NOW.key, f"drawn {object_ids}", objects, drawn_on=on, **more)


def answers(*messages, motion="off", **settings):
    log = MemoryLog(1)
    worker = SegmentWorker(MemoryBus(log), MemoryStore(), ColourSegmenter(), Rules(motion=motion), Settings(**settings))
    for message in messages:
        log.append(FRAMES, "run", kind_of(message), pack(message))
    while worker.turn():
        pass
    return [unpack(record.kind, record.data) for record in log.take(MASKS)]


def iou(answer, object_id):
    (found,) = (o for o in answer.objects if o.object_id == object_id)
    truth = mask_of(object_id, answer.key.index)
    mask = rle.decode(found.rle) if found.rle else truth & ~truth
    return (mask & truth).sum() / (mask | truth).sum()


def test_its_object_is_found_where_it_is_now():
    notice, frame = answers(NOW, drawn(LONG_AGO, 1), CLIP[21])[1:]
    assert (notice.kind, notice.message) == (NoticeKind.APPLIED, "prompt drawn (1,), on its picture: 1 seen")
    assert iou(frame, 1) == 1.0


def test_without_the_picture_the_shape_means_the_next_frame():
    _, frame = answers(NOW, drawn(None, 1), CLIP[21])[1:]
    assert iou(frame, 1) < 0.5


def test_it_goes_beside_what_is_tracked():
    first = answers(mask_prompt(20, 2), NOW, drawn(LONG_AGO, 1), CLIP[21])[-1]
    assert [(o.object_id, o.status, iou(first, o.object_id)) for o in first.objects] == [
        (1, ObjectStatus.SEEN, 1.0),
        (2, ObjectStatus.SEEN, 1.0),
    ]


def test_a_correction_keeps_the_label():
    named = replace(mask_prompt(20, 1), objects=(replace(mask_prompt(20, 1).objects[0], label="cup"),))
    assert [o.label for o in answers(named, NOW, drawn(LONG_AGO, 1, correct=True), CLIP[21])[-1].objects] == ["cup"]


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (drawn(LONG_AGO, 1, box=(200, 200, 240, 240)), "box"),
        (drawn(replace(LONG_AGO, data=b"no picture"), 1), "run/main/0"),
        (drawn(frames(1, view="left")[0], 1), "drawn on run/left/0"),
        (drawn(LONG_AGO, 7, correct=True, box=box_of(1, 0)), "object 7 is not tracked"),
    ],
    ids=["a shape beyond it", "no picture", "another view", "a correction of nothing"],
)
def test_one_that_cannot_be_used_is_refused_and_changes_nothing(prompt, named):
    refused, after = answers(mask_prompt(20, 1), NOW, prompt, CLIP[21])[2:]
    assert (refused.kind, named in refused.message) == (NoticeKind.REFUSED, True), refused.message
    assert isinstance(after, MaskFrame)
    assert after == answers(mask_prompt(20, 1), NOW, CLIP[21])[2]


def test_the_same_one_twice_is_applied_once():
    prompt = drawn(LONG_AGO, 1)
    assert [a.kind for a in answers(NOW, prompt, prompt)[1:]] == [NoticeKind.APPLIED, NoticeKind.DUPLICATE]


@pytest.mark.parametrize(("on", "carried"), [(NOW, [1]), (LONG_AGO, [])], ids=["the last frame", "an older one"])
def test_only_a_mask_on_the_last_frame_can_be_carried_on(on, carried):
    prompt = replace(mask_prompt(on.key.index, 1), drawn_on=on)
    before = prompted(TrackState("run", views={"main": ViewState(previous=NOW)}), prompt)
    state = ObjectState(1, "", Remembered(on, prompt.objects[0].shape.rle))
    seen = TrackState("run", views={"main": ViewState((state,), previous=on, masks={1: state.anchor.rle})})
    view = anchored(before, prompt, seen).views["main"]
    assert (view.objects, view.pending, list(view.masks)) == ((state,), (), carried)


SCREENSHOT = replace(LONG_AGO, data=picture(0, (1,)))  # of a frame that is remembered, and not its bytes


@pytest.mark.parametrize(
    "on", [LONG_AGO, SCREENSHOT, replace(SCREENSHOT, key=NOW.key)], ids=["its bytes", "other bytes", "of the last frame"]
)
def test_it_is_the_same_for_a_worker_that_reads_the_state_from_the_store(on):
    told = mask_prompt(0, 2), LONG_AGO, NOW, drawn(on, 1), CLIP[21]
    kept, read = answers(*told), answers(*told, cached_sessions=0, turn_records=1)
    assert kept == read
    assert [iou(kept[-1], i) for i in (1, 2)] == [1.0, 1.0]


def test_where_motion_alone_follows_only_the_last_frame_will_do():
    told = mask_prompt(20, 1), NOW
    refused = answers(*told, drawn(LONG_AGO, 1), motion="only")[-1]
    assert (refused.kind, "motion is 'only'" in refused.message) == (NoticeKind.REFUSED, True)
    assert answers(*told, drawn(NOW, 1, box=box_of(1, 20)), motion="only")[-1].kind == NoticeKind.APPLIED


def test_its_masks_may_cover_what_waits_for_the_next_frame():
    old = replace(mask_prompt(0, 1), drawn_on=LONG_AGO)
    waiting = replace(mask_prompt(0, 1), prompt_id="waiting", objects=(replace(mask_prompt(0, 1).objects[0], object_id=2),))
    assert [a.kind for a in answers(NOW, waiting, old)[1:]] == [NoticeKind.APPLIED, NoticeKind.APPLIED]


def test_a_picture_is_read_with_its_frame(tmp_path):
    (tmp_path / "shown.png").write_bytes(picture(3))
    read = read_picture(f"{tmp_path}/shown.png@12", "s", "left")
    assert (str(read.key), read.size_hw, read.data) == ("s/left/12", (72, 96), picture(3))


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "shown.png").write_bytes(b"text")
    with pytest.raises(BadPrompt, match=r"--on .*shown\.png"):
        read_picture(f"{tmp_path}/shown.png", "s", "left")

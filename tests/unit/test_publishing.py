"""What a source says in the log: where a run begins, and what each thing that happens to it becomes."""

from dataclasses import replace

import pytest
from psalm_stream.stream.capture import Dropped, Gap, Over, Shot
from psalm_stream.stream.codec import End
from psalm_stream.stream.types import Box, Frame, FrameKey, Notice, NoticeKind, ObjectPrompt, Prompt
from psalm_stream.stream.wanted import Position, Wanted
from psalm_stream.workers.publishing import Batch, add, begin

WANTED = Wanted("s", "v", "rtsp://camera/1", "r", prompts=(ObjectPrompt(1, Box((0.0, 0.0, 4.0, 4.0))),))
END = End("s", "v")
RUNNING = Position("s", "v", "r", index=9, taken=5, t_ns=90, pts_ns=80, connection=0, offset=33)
LARGEST = 1000


def shot(index, taken, data=b"JPEG"):
    return Shot(index, taken, 100 + index, 7, True, 2, lambda: ((4, 6), data))


def said(position, *items, wanted=WANTED):
    batch = Batch(position)
    for item in items:
        add(batch, item, wanted, LARGEST)
    return batch


def notice(kind, index, message):
    return Notice(kind, "s", "v", index, message)


def test_a_picture_becomes_a_frame_and_moves_the_position():
    batch = said(RUNNING, shot(10, 6))
    assert batch.messages == [Frame(FrameKey("s", "v", 10), 110, True, (4, 6), b"JPEG")]
    assert batch.position == replace(RUNNING, index=10, taken=6, t_ns=110, pts_ns=7, connection=2)
    assert (batch.frames, batch.dropped) == (1, 0)


def test_the_first_frame_of_a_run_comes_behind_its_prompt_and_no_other_does():
    position, _ = begin(WANTED, replace(RUNNING, run="before"))
    kinds = [type(m) for m in said(position, shot(10, 1), shot(11, 2)).messages]
    assert kinds == [Prompt, Frame, Frame]


def test_a_prompt_is_not_lost_with_a_first_frame_that_is_dropped():
    position, _ = begin(WANTED, Position("s", "v"))
    prompt, dropped, _ = said(position, Dropped(0, 4), shot(5, 6)).messages
    assert (prompt.prompt_id, prompt.key.index, prompt.objects) == ("r", 5, WANTED.prompts)
    assert dropped.kind == NoticeKind.DROPPED


def test_dropped_frames_are_counted_in_their_place():
    batch = said(RUNNING, Dropped(10, 13), shot(14, 10))
    dropped, frame = batch.messages
    assert dropped == notice(NoticeKind.DROPPED, 10, "4 frames dropped, 10 to 13: they came faster than they could be published")
    assert (frame.key.index, batch.position.index, batch.position.taken, batch.dropped) == (14, 14, 10, 4)


def test_a_gap_is_said_before_the_frame_behind_it_and_alone_moves_nothing():
    batch = said(RUNNING, Gap(10, "5 s are missing"))
    assert batch.messages == [notice(NoticeKind.GAP, 10, "5 s are missing")]
    assert batch.position == RUNNING


@pytest.mark.parametrize(
    ("over", "messages"),
    [
        (Over("", live=False), [END]),
        (Over("cut off", live=False), [notice(NoticeKind.SOURCE_GONE, None, "cut off"), END]),
        (Over("given up", live=True), [notice(NoticeKind.SOURCE_GONE, None, "given up")]),
    ],
)
def test_the_end_of_a_file_ends_its_view_and_that_of_a_camera_keeps_it(over, messages):
    batch = said(RUNNING, over)
    assert batch.messages == messages
    assert batch.position == replace(RUNNING, done=True)


def test_a_frame_larger_than_its_topic_takes_is_dropped_by_name():
    batch = said(RUNNING, shot(10, 6, bytes(LARGEST)), shot(11, 7))
    assert [m.kind for m in batch.messages[:1]] == [NoticeKind.DROPPED]
    assert [m.key.index for m in batch.messages[1:]] == [11]
    assert (batch.position.index, batch.dropped) == (11, 1)


@pytest.mark.parametrize(
    ("found", "expected", "ends"),
    [
        (RUNNING, RUNNING, []),  # the same run goes on
        (replace(RUNNING, done=True), replace(RUNNING, done=True), []),  # and stays over
        (Position("s", "v"), Position("s", "v", "r"), []),  # the first run of all
        # another file takes the place of one that ran
        (replace(RUNNING, run="x"), Position("s", "v", "r", index=9, offset=33), [END]),
        # or comes after one that was over
        (replace(RUNNING, run="x", done=True), Position("s", "v", "r", index=9, offset=33), []),
        # a live view goes on, also behind a camera that was given up
        (replace(RUNNING, run="x", connection=3), Position("s", "v", "r", index=9, t_ns=90, offset=33), []),
        (replace(RUNNING, run="x", connection=3, done=True), Position("s", "v", "r", index=9, t_ns=90, offset=33), []),
        # and one that was stopped begins anew
        (Position("s", "v", "", index=9, connection=3, done=True), Position("s", "v", "r", index=9), []),
    ],
)
def test_a_run_begins_where_its_source_was_found(found, expected, ends):
    assert begin(WANTED, found) == (expected, ends)

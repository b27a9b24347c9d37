"""What the Segmenter keeps between calls: a frame that is asked with again and again is encoded once."""

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.features import FRAMES_A_VIEW
from psalm_stream.psalm.names import to_official
from psalm_stream.psalm.weights import load
from psalm_stream.stream.types import Frame, FrameKey, Region, Regions, Request
from tiny_checkpoint import CONFIG, random_state, write

SIZE_HW = (24, 32)
WHOLE = np.ones(SIZE_HW, bool)


@pytest.fixture
def segmenter(tmp_path):
    return load(write(tmp_path, to_official(random_state(CONFIG), CONFIG)))


def frame(index, session="s"):
    data = cv2.imencode(".png", np.full((*SIZE_HW, 3), index, np.uint8))[1].tobytes()
    return Frame(FrameKey(session, "main", index), index, False, SIZE_HW, data)


def test_an_anchor_outlasts_any_number_of_frames_between(segmenter):
    passes = []
    segmenter.network.swin.register_forward_hook(lambda *_: passes.append(1))
    frames = [frame(index) for index in range(FRAMES_A_VIEW + 3)]
    for current in frames:
        segmenter.segment([Request(current, Regions((Region(1, frames[0], WHOLE),)))])
    assert len(passes) == len(frames)


def test_a_busy_session_does_not_push_out_the_anchor_of_another(segmenter):
    anchor = frame(0, "quiet")
    segmenter.segment([Request(anchor, Regions((Region(1, anchor, WHOLE),)))])
    for index in range(FRAMES_A_VIEW + 3):
        busy = frame(index, "busy")
        segmenter.segment([Request(busy, Regions((Region(1, busy, WHOLE),)))])
    passes = []
    segmenter.network.swin.register_forward_hook(lambda *_: passes.append(1))
    segmenter.segment([Request(frame(1, "quiet"), Regions((Region(1, anchor, WHOLE),)))])
    assert len(passes) == 1


def test_masks_of_no_query_are_an_empty_stack_of_source_size(segmenter):
    first = frame(0)
    (proposals,) = segmenter.segment([Request(first, Regions((Region(1, first, WHOLE),)))])
    assert proposals.masks([]).shape == (0, *SIZE_HW)

"""What the Segmenter keeps between calls: a frame that is asked with again and again is encoded once."""

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.features import FRAMES_A_VIEW, VIEWS, FeatureCache, identity
from psalm_stream.psalm.model import ImageFeatures
from psalm_stream.psalm.names import to_official
from psalm_stream.psalm.tracker import Rules
from psalm_stream.psalm.weights import load
from psalm_stream.stream.codec import digest
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.types import Frame, FrameKey, Region, Regions, Request
from psalm_stream.workers.demo import draw
from psalm_stream.workers.pipeline import Embedded
from psalm_stream.workers.prompt_flags import PromptFlags, prompts
from psalm_stream.workers.settings import Settings
from tiny_checkpoint import CONFIG, random_state, write

SIZE_HW = (24, 32)
WHOLE = np.ones(SIZE_HW, bool)


@pytest.fixture
def segmenter(tmp_path):
    return load(write(tmp_path, to_official(random_state(CONFIG), CONFIG)))


def frame(index, session="s", view="main"):
    data = cv2.imencode(".png", np.full((*SIZE_HW, 3), index, np.uint8))[1].tobytes()
    return Frame(FrameKey(session, view, index), index, False, SIZE_HW, data)


def test_an_anchor_outlasts_any_number_of_frames_between(segmenter):
    passes = []
    segmenter.network.swin.register_forward_hook(lambda *_: passes.append(1))
    frames = [frame(index) for index in range(FRAMES_A_VIEW + 3)]
    for current in frames:
        segmenter.segment([Request(current, Regions((Region(1, frames[0], WHOLE),)))])
    assert len(passes) == len(frames)


class Forgetful:
    """The shipped model, whose cache is emptied before some calls. forgot: how often."""

    def __init__(self, inner, share):
        self.inner, self.digest, self.share, self.random, self.forgot = inner, inner.digest, share, np.random.default_rng(5), 0

    def segment(self, requests):
        if self.random.random() < self.share:
            self.inner._remembered = FeatureCache()
            self.forgot += 1
        return self.inner.segment(requests)


def test_a_cache_that_is_emptied_at_random_frames_gives_the_same_bits_as_a_warm_one(tmp_path):
    video, mask = draw(tmp_path)
    named = prompts(PromptFlags(masks=(str(mask),)).parse(), "s")

    def answers(model):
        with open_source(str(video), session="s", limit=12) as clip:
            return [digest(answer) for _, answer in Embedded(model, Rules(), Settings()).answer(clip, named)]

    cold = Forgetful(load("nano"), share=0.5)
    assert answers(cold) == answers(Forgetful(load("nano"), share=0.0))
    assert cold.forgot >= 4


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


def test_a_frame_of_another_view_that_is_asked_with_is_not_encoded_again(segmenter):
    passes = []
    segmenter.network.swin.register_forward_hook(lambda *_: passes.append(1))
    named = frame(0, view="ego")
    for index in range(FRAMES_A_VIEW + 3):
        ego, exo = (frame(index, view=view) for view in ("ego", "exo"))
        segmenter.segment([Request(ego, Regions((Region(1, named, WHOLE),)))])
        segmenter.segment([Request(exo, Regions((Region(1, named, WHOLE), Region(1, ego, WHOLE))))])
    assert len(passes) == 2 * (FRAMES_A_VIEW + 3)


def test_what_is_kept_is_bounded_however_many_views_and_frames_there_are_and_the_latest_stay():
    cache, features = FeatureCache(), ImageFeatures([], np.zeros(1), None)
    views = [(f"s{n // 4}", f"v{n % 4}") for n in range(VIEWS + 8)]
    frames = [frame(index, *view) for index in range(FRAMES_A_VIEW + 2) for view in views]
    for one in frames:
        cache.put(identity(one), features)
    kept = [one for one in frames if cache.get(identity(one)) is not None]
    assert len(kept) <= VIEWS * FRAMES_A_VIEW
    assert {(one.key.session, one.key.view) for one in kept} == set(views[-VIEWS:])


def test_masks_of_no_query_are_an_empty_stack_of_source_size(segmenter):
    first = frame(0)
    (proposals,) = segmenter.segment([Request(first, Regions((Region(1, first, WHOLE),)))])
    assert proposals.masks([]).shape == (0, *SIZE_HW)

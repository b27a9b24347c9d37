"""A session of two views: one id everywhere, nobody disturbed, and the same answers whatever becomes of the workers."""

from dataclasses import replace
from functools import cache

import pytest
from psalm_stream.eval.multi_view import figures, track
from psalm_stream.eval.two_cameras import EGO, EXO, STORIES, THINGS, TrueSegmenter, TwoCameras, frames_of
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import MemoryBus, MemoryLog
from psalm_stream.stream.codec import End, digest, kind_of, pack, unpack
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import MaskFrame, Prompt
from psalm_stream.workers.pipeline import Embedded
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, frames, mask_prompt
from test_crash import KILL_POINTS, Death, Mortal

COUNT = 16
ALL_IDS = set(range(1, THINGS + 1))
each_seed = pytest.mark.parametrize("seed", [0, 1, 2])
each_story = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name.replace(" ", "-"))


@cache
def tracked(seed, story):
    clip = TwoCameras(seed, COUNT)
    return clip, track(clip, story, TrueSegmenter(clip), Rules())


@each_seed
@each_story
def test_with_the_true_correspondence_every_object_has_one_id_and_its_true_mask_in_both_views(seed, story):
    clip, answers = tracked(seed, story)
    for found in figures("truth", story, clip, answers):
        returned = found.view == EXO and "returns" in story.name  # what moved on meanwhile is carried wrongly until motion is overdue
        assert set(found.ids) == ALL_IDS, found
        assert (found.iou > (0.9 if returned else 0.98), found.elsewhere) == (True, 0.0), found


@each_seed
@each_story
def test_the_view_in_which_objects_were_named_is_answered_as_if_it_were_alone(seed, story):
    clip, answers = tracked(seed, story)
    alone = Embedded(TrueSegmenter(clip), Rules(), Settings()).answer(frames_of(clip, story, (EGO,)), [clip.prompt()])
    assert [digest(a) for a in answers if a.key.view == EGO] == [digest(a) for _, a in alone]


@each_story
def test_an_object_is_found_on_the_first_frame_on_which_another_view_shows_it_and_not_lost(story):
    _, answers = tracked(0, story)
    exo = [a for a in answers if a.key.view == EXO]
    assert all({o.object_id for o in a.objects if o.rle is not None} == ALL_IDS for a in exo)


def test_a_view_that_comes_into_the_log_when_the_other_is_over_gets_the_objects_by_the_time_of_their_prompt():
    clip = TwoCameras(0, COUNT)
    one_after_the_other = sorted(frames_of(clip, STORIES[0]), key=lambda frame: frame.key.view == EXO)
    found = [a for _, a in Embedded(TrueSegmenter(clip), Rules(), Settings()).answer(one_after_the_other, [clip.prompt()])]
    exo = figures("truth", STORIES[0], clip, found)[1]
    assert (set(exo.ids), exo.iou > 0.98) == (ALL_IDS, True)


@pytest.mark.parametrize(("lag", "found"), [(3, True), (8, False)])
def test_a_view_that_joins_and_lags_within_the_skew_gets_the_objects_and_beyond_it_is_left_alone(lag, found):
    clip = TwoCameras(0, COUNT)
    late = [clip.frame(EXO, index) for index in range(6, COUNT)]
    log = []
    for index in range(COUNT + lag):
        log += [clip.frame(EGO, index)] if index < COUNT else []
        log += [frame for frame in late if frame.key.index == index - lag]
    answers = [a for _, a in Embedded(TrueSegmenter(clip), Rules(), Settings()).answer(log, [clip.prompt()])]
    first = next(a for a in answers if a.key.view == EXO)
    assert {o.object_id for o in first.objects} == (ALL_IDS if found else set())
    assert first.status == ("ok" if found else "no_prompt")


# -- the same log, the same answers ------------------------------------------------------------------------------------

RULES = Rules(motion="off")  # nothing but the model says where an object is, so a wrong state cannot go unnoticed


def story():
    """Two views of one session and another session between them. Named in ego, found in exo, which comes late, drops out and returns; then
    one object is corrected, one removed, and ego ends."""
    ego, exo, other = (frames(14, session=s, view=v) for s, v in (("a", EGO), ("a", EXO), ("b", "main")))
    messages = [mask_prompt(0, 1, 2, session="a", view=EGO), mask_prompt(0, 1, session="b")]
    for index in range(14):
        if index == 9:
            messages.append(replace(mask_prompt(9, 1, session="a", view=EGO), correct=True))
        if index == 11:
            messages.append(Prompt(exo[11].key, "away", remove=(2,)))
        if index == 12:
            messages.append(End("a", EGO))
        messages += [ego[index]] if index < 12 else []
        messages += [exo[index]] if index in (2, 3, 4, 7, 8, 9, 10, 11, 12, 13) else []
        messages.append(other[index])
    return messages


def filled_log():
    log = MemoryLog(1, 1000)
    for message in story():
        session = message.session if isinstance(message, End) else message.key.session
        log.append("frames", session, kind_of(message), pack(message))
    return log


def worker_on(log, store, **settings):
    return SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, Settings(**{"turn_records": 4, "snapshot_every": 5} | settings))


def to_the_end(worker):
    while worker.turn() or worker.rebuilds:
        pass


def answers(log):
    return [(record.key, unpack(record.kind, record.data)) for record in log.take("masks")]


def digests(log):
    """Per session, in log order."""
    found = {}
    for session, answer in answers(log):
        found.setdefault(session, []).append(digest(answer))
    return found


@cache
def undisturbed():
    log = filled_log()
    to_the_end(worker_on(log, MemoryStore(), turn_records=1))
    return digests(log)


def test_the_story_shows_what_it_is_told_for():
    log = filled_log()
    to_the_end(worker_on(log, MemoryStore()))
    exo = {a.key.index: a for _, a in answers(log) if isinstance(a, MaskFrame) and a.key.view == EXO}
    shown = {index: {o.object_id: str(o.status) for o in a.objects} for index, a in exo.items()}
    assert shown[2] == shown[8] == {1: "seen", 2: "seen"}
    assert shown[11] == shown[13] == {1: "seen"}


@pytest.mark.parametrize("point", KILL_POINTS, ids="-".join)
@pytest.mark.parametrize(("call", "turn_records"), [(1, 5), (2, 3), (3, 7)])
def test_an_heir_goes_on_with_both_views_as_if_nothing_had_happened(point, call, turn_records):
    log, store = filled_log(), MemoryStore()
    what, method, when = point
    parts = {"bus": MemoryBus(log), "store": store, "model": DriftSegmenter()}
    parts[what] = Mortal(parts[what], method, when, 1 if method == "claim" else call)
    worker = SegmentWorker(parts["bus"], parts["store"], parts["model"], RULES, Settings(turn_records=turn_records))
    with pytest.raises(Death):
        to_the_end(worker)
    to_the_end(worker_on(log, store))
    assert digests(log) == undisturbed()


@pytest.mark.parametrize("turns", range(1, 13))
def test_an_heir_with_an_emptied_store_repeats_both_views_from_the_log(turns):
    log = filled_log()
    first = worker_on(log, MemoryStore())
    for _ in range(turns):
        first.turn()
    to_the_end(worker_on(log, MemoryStore(), turn_records=5))
    assert digests(log) == undisturbed()


@pytest.mark.parametrize(("turn_records", "batch_size", "cached_sessions"), [(1, 1, 0), (7, 2, 64), (100, 8, 0)])
def test_answers_do_not_depend_on_how_the_log_is_cut_nor_on_what_a_worker_keeps(turn_records, batch_size, cached_sessions):
    log = filled_log()
    to_the_end(worker_on(log, MemoryStore(), turn_records=turn_records, batch_size=batch_size, cached_sessions=cached_sessions))
    assert digests(log) == undisturbed()

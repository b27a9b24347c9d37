"""A store that lost its states: the log gives them back, the answers go on as if nothing had happened, and what is gone is not guessed."""

from dataclasses import replace

import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import MemoryBus, MemoryLog
from psalm_stream.stream.codec import End, digest, kind_of, pack, unpack
from psalm_stream.stream.errors import StoreLost
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import MaskFrame
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, frames, mask_prompt

RULES = Rules(motion="off")
KEPT = 1000  # records of `frames` kept behind the commit


def story():
    """Three interleaved sessions: one prompted twice, one that ends and begins anew, one never prompted."""
    a, b, c = (frames(12, session=s) for s in "abc")
    messages = [mask_prompt(0, 1, session="a"), mask_prompt(0, 1, 2, session="b")]
    for index, trio in enumerate(zip(a, b, c, strict=True)):
        messages += [mask_prompt(5, 2, session="a")] if index == 5 else []
        messages += [End("b")] if index == 6 else []
        messages += [mask_prompt(8, 3, session="b")] if index == 8 else []
        messages += trio
    return messages


def filled_log(messages, retention=KEPT):
    log = MemoryLog(1, retention)
    for message in messages:
        session = message.session if isinstance(message, End) else message.key.session
        log.append("frames", session, kind_of(message), pack(message))
    return log


def worker_on(log, store, **settings):
    return SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, Settings(**{"turn_records": 3, "snapshot_every": 4} | settings))


def to_the_end(worker):
    while worker.turn() or worker.rebuilds:
        pass
    return worker


def answers(log):
    return [unpack(r.kind, r.data) for r in log.take("masks")]


def digests(log):
    """Per session, in log order; between sessions no order is promised."""
    found = {}
    for record in log.take("masks"):
        found.setdefault(record.key, []).append(digest(unpack(record.kind, record.data)))
    return found


def undisturbed():
    log = filled_log(story())
    to_the_end(worker_on(log, MemoryStore()))
    return digests(log)


@pytest.mark.parametrize("turns", range(1, 14))
def test_an_heir_with_an_emptied_store_answers_as_if_nothing_had_happened(turns):
    log = filled_log(story())
    first = worker_on(log, MemoryStore())
    for _ in range(turns):
        first.turn()
    to_the_end(worker_on(log, MemoryStore(), turn_records=5))
    assert digests(log) == undisturbed()


class ForgetfulStore(MemoryStore):
    """A store that is emptied by someone before the n-th prepare."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def prepare(self, claim, following, states):
        self.left -= 1
        if self.left == 0:
            self._partitions = {}
        super().prepare(claim, following, states)


@pytest.mark.parametrize("call", [1, 2, 5, 9, 12])
def test_a_living_owner_whose_store_is_emptied_goes_on_after_one_failed_turn(call):
    log = filled_log(story())
    worker = worker_on(log, ForgetfulStore(call))
    with pytest.raises(StoreLost):
        to_the_end(worker)
    to_the_end(worker)
    assert digests(log) == undisturbed()


def test_a_rebuild_spreads_over_turns_and_holds_its_partition_meanwhile():
    log, store = filled_log(story()), MemoryStore()
    to_the_end(worker_on(log, store, snapshot_every=1000))
    log.append("frames", "a", "frame", pack(frames(13, session="a")[12]))
    answers(log)
    heir = worker_on(log, MemoryStore(), turn_budget_s=1e-9)
    turns = 0
    while not (found := answers(log)):
        heir.turn()
        turns += 1
    assert turns > 10
    assert [a.key.index for a in found] == [12]


def test_a_rebuild_asks_the_model_no_more_often_than_frames_lie_after_the_snapshot():
    log = filled_log(story())
    to_the_end(worker_on(log, MemoryStore(), snapshot_every=5))
    heir = worker_on(log, MemoryStore())
    asked = []
    heir.repeater.model.segment = lambda requests, segment=heir.repeater.model.segment: asked.extend(requests) or segment(requests)
    to_the_end(heir)
    assert len({r.frame.key for r in asked}) == len(asked)
    assert 0 < len(asked) <= 2 * 5


def test_what_neither_snapshot_nor_frames_hold_is_answered_lost_until_the_next_prompt():
    messages = story()
    log = filled_log(messages, retention=2)
    to_the_end(worker_on(log, MemoryStore(), snapshot_every=1000))
    before = answers(log)
    log.append("frames", "a", "frame", pack(frames(13, session="a")[12]))
    log.append("frames", "a", "prompt", pack(mask_prompt(13, 1, session="a")))
    log.append("frames", "a", "frame", pack(frames(14, session="a")[13]))
    log.append("frames", "c", "frame", pack(frames(13, session="c")[12]))
    to_the_end(worker_on(log, MemoryStore()))
    lost, applied, found, unprompted = answers(log)
    assert len(before) == len(messages)
    assert (lost.status, lost.objects) == ("lost_state", ())
    assert "name the objects again" in lost.message
    assert applied.kind == "applied"
    assert [o.object_id for o in found.objects] == [1]
    assert unprompted.status == "no_prompt"  # nothing was known of it, so nothing is lost


def test_a_late_answer_is_not_decided_again_by_a_rebuild():
    clock = {"now": 0.0}
    live = [replace(f, live=True) for f in frames(8, session="a")]

    def answered(disturbed):
        log, clock["now"] = MemoryLog(1, KEPT), 0.0
        make = lambda: SegmentWorker(  # noqa: E731
            MemoryBus(log), MemoryStore(), DriftSegmenter(), RULES, Settings(turn_records=1, max_lag_s=1.0), lambda: clock["now"]
        )
        worker = make()
        for index, message in enumerate([mask_prompt(0, 1, session="a"), *live]):
            log.append("frames", "a", kind_of(message), pack(message))
            clock["now"] = 1e12 if index in (2, 3) else 0.0
            if disturbed and index == 6:
                worker = make()
            to_the_end(worker)
        return [a for a in answers(log) if isinstance(a, MaskFrame)]

    calm = answered(disturbed=False)
    assert [str(a.status) for a in calm[:4]] == ["ok", "late", "late", "ok"]
    assert answered(disturbed=True) == calm


def scribbled(data):
    """A state as another release may have written it."""
    return data and data.replace(b"\xa1v\x01", b"\xa1v\x63")


class ForeignStore(MemoryStore):
    """A store whose states are of another release."""

    def load(self, claim, session):
        return scribbled(super().load(claim, session))

    def restore(self, claim, states):
        super().restore(claim, states)
        if states:
            self.load = super().load


def test_states_that_cannot_be_read_are_repeated_from_the_log():
    log, store = filled_log(story()), ForeignStore()
    first = worker_on(log, store, cached_sessions=0)
    with pytest.raises(StoreLost, match="schema version 99"):
        to_the_end(first)
    to_the_end(first)
    assert digests(log) == undisturbed()


def test_a_snapshot_that_cannot_be_read_is_a_lost_state():
    log = filled_log(story())
    to_the_end(worker_on(log, MemoryStore()))
    answers(log)
    log.states[0]["a"] = replace(log.states[0]["a"], data=scribbled(log.states[0]["a"].data))
    log.append("frames", "a", "frame", pack(frames(13, session="a")[12]))
    log.append("frames", "b", "frame", pack(frames(13, session="b")[12]))
    to_the_end(worker_on(log, MemoryStore()))
    assert [(a.key.session, str(a.status)) for a in answers(log)] == [("a", "lost_state"), ("b", "ok")]

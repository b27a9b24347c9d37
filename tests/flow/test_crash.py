"""A worker that dies anywhere in a turn, and its heir on the same log and store: one answer a record, as if nothing had happened."""

from dataclasses import replace

import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import MemoryBus, MemoryLog
from psalm_stream.stream.codec import End, digest, kind_of, pack, unpack
from psalm_stream.stream.errors import Fenced, StoreLost
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Frame, MaskFrame
from psalm_stream.workers.segment import SegmentWorker, one_a_session
from psalm_stream.workers.settings import Settings
from scene import ColourSegmenter, DriftSegmenter, frames, mask_prompt

RULES = Rules(motion="off")  # nothing but the model says where an object is, so a wrong state cannot go unnoticed


class Death(BaseException):
    """The end of a worker, here in its own process: nothing of it runs on."""


class Mortal:
    """A model, bus or store that dies before or after the n-th call of one of its methods, and else is what it wraps."""

    def __init__(self, inner, method, when, call):
        self.inner, self.method, self.when, self.left = inner, method, when, call

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        return self.deadly(found) if name == self.method else found

    def deadly(self, method):
        def call(*arguments):
            self.left -= 1
            if self.left == 0 and self.when == "before":
                raise Death
            result = method(*arguments)
            if self.left == 0:
                raise Death
            return result

        return call

    def recover(self):
        """Of a dead process nothing tidies up."""


KILL_POINTS = [
    ("bus", "poll", "after"),
    ("store", "claim", "after"),
    ("model", "segment", "before"),
    ("model", "segment", "after"),
    ("bus", "publish", "after"),
    ("store", "prepare", "before"),
    ("store", "prepare", "after"),
    ("bus", "commit", "before"),
    ("bus", "commit", "after"),
]


def two_sessions():
    """A log's content: two interleaved sessions, one prompted twice, one with a broken frame, one that ends and begins anew."""
    a, b = frames(7, session="a"), frames(7, session="b")
    b[3] = replace(b[3], data=b"no picture")
    messages = [mask_prompt(0, 1, session="a"), mask_prompt(0, 1, 2, session="b")]
    for index, pair in enumerate(zip(a, b, strict=True)):
        messages += [mask_prompt(4, 2, session="a")] if index == 4 else []
        messages += [End("b")] if index == 5 else []
        messages += pair
    return messages


def filled_log(messages, partitions):
    log = MemoryLog(partitions)
    for message in messages:
        session = message.session if isinstance(message, End) else message.key.session
        log.append("frames", session, kind_of(message), pack(message))
    return log


def run_to_the_end(log, store, settings):
    worker = SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, settings)
    while worker.turn():
        pass
    return worker


def answered(log):
    """Per session, the answers in every field but ms, in log order."""
    found = {}
    for record in log.take("masks"):
        found.setdefault(record.key, []).append(digest(unpack(record.kind, record.data)))
    return found


def undisturbed(messages, partitions=1):
    log = filled_log(messages, partitions)
    run_to_the_end(log, MemoryStore(), Settings(turn_records=1))
    return answered(log)


def live_and_die(log, store, point, call, turn_records):
    """A worker that dies at a kill point; returns whether it got there."""
    what, method, when = point
    parts = {"bus": MemoryBus(log), "store": store, "model": DriftSegmenter()}
    parts = {name: Mortal(part, method, when, call) if name == what else part for name, part in parts.items()}
    if what != "bus":
        parts["bus"] = Mortal(parts["bus"], "", "", 0)
    worker = SegmentWorker(parts["bus"], parts["store"], parts["model"], RULES, Settings(turn_records=turn_records))
    try:
        while worker.turn():
            pass
    except Death:
        return True
    return False


@pytest.mark.parametrize("point", KILL_POINTS, ids="-".join)
@pytest.mark.parametrize(("call", "turn_records"), [(1, 3), (2, 1), (2, 5)])
def test_an_heir_answers_what_its_predecessor_did_not_and_nothing_twice(point, call, turn_records):
    if point[1] == "claim":
        call = 1
    messages = two_sessions()
    log, store = filled_log(messages, 1), MemoryStore()
    assert live_and_die(log, store, point, call, turn_records)
    run_to_the_end(log, store, Settings(turn_records=4))
    assert answered(log) == undisturbed(messages)


@pytest.mark.parametrize("cuts", [(5, 2), (2, 5), (1, 16)])
@pytest.mark.parametrize("point", [p for p in KILL_POINTS if p[1] in ("prepare", "commit")], ids="-".join)
def test_two_deaths_in_a_row_with_different_turns_leave_the_answers_as_they_are(point, cuts):
    messages = two_sessions()
    log, store = filled_log(messages, 1), MemoryStore()
    for turn_records in cuts:
        live_and_die(log, store, point, 1, turn_records)
    run_to_the_end(log, store, Settings(turn_records=3))
    assert answered(log) == undisturbed(messages)


@pytest.mark.parametrize("point", [p for p in KILL_POINTS if p[1] != "claim"], ids="-".join)
def test_a_death_among_several_partitions_is_made_good_in_each(point):
    messages = two_sessions()
    log, store = filled_log(messages, 5), MemoryStore()
    live_and_die(log, store, point, 2, 5)
    run_to_the_end(log, store, Settings(turn_records=4))
    assert answered(log) == undisturbed(messages, 5)


def test_a_worker_whose_turn_failed_goes_on_from_what_is_committed():
    messages = two_sessions()
    log = filled_log(messages, 1)
    store = Mortal(MemoryStore(), "prepare", "after", 2)
    worker = SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, Settings(turn_records=3))
    worker.turn()
    with pytest.raises(Death):
        worker.turn()
    while worker.turn():
        pass
    assert answered(log) == undisturbed(messages)


def test_a_zombie_that_wakes_up_after_its_heir_finished_changes_nothing():
    messages = two_sessions()
    log, store = filled_log(messages, 1), MemoryStore()
    zombie = SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, Settings(turn_records=2))
    zombie.turn()
    run_to_the_end(log, store, Settings(turn_records=3))
    log.append("frames", "a", "frame", pack(frames(8, session="a")[7]))
    with pytest.raises((Fenced, StoreLost)):
        zombie.turn()
    assert answered(log) == undisturbed(messages)


def test_a_worker_that_gets_a_partition_back_starts_from_what_others_left():
    messages = two_sessions()
    log, store = filled_log(messages, 1), MemoryStore()
    bus = MemoryBus(log)
    first = SegmentWorker(bus, store, DriftSegmenter(), RULES, Settings(turn_records=4))
    first.turn()
    SegmentWorker(MemoryBus(log), store, DriftSegmenter(), RULES, Settings(turn_records=4)).turn()
    bus.recover()  # what a rebalance does to a member
    while first.turn():
        pass
    assert answered(log) == undisturbed(messages)


class WatchedStore(MemoryStore):
    """Notes which sessions each checkpoint wrote, per partition."""

    def __init__(self):
        super().__init__()
        self.written = []

    def prepare(self, claim, following, states):
        self.written.append((claim.partition, sorted(states)))
        super().prepare(claim, following, states)


def test_a_checkpoint_writes_the_sessions_its_turn_changed_each_in_its_own_partition():
    log = filled_log([frame for trio in zip(*(frames(2, session=s) for s in "abc"), strict=True) for frame in trio], 4)
    homes = {record.key: record.partition for queue in log.topic("frames") for record in queue}
    store = WatchedStore()
    run_to_the_end(log, store, Settings(turn_records=100))
    assert len(set(homes.values())) > 1
    assert sorted(store.written) == sorted((p, [s for s in "abc" if homes[s] == p]) for p in set(homes.values()))


def test_a_state_names_the_last_record_it_contains_even_when_that_was_no_picture():
    broken = replace(frames(1, session="a")[0], data=b"no picture")
    log, store = filled_log([mask_prompt(0, 1, session="a"), broken], 1), MemoryStore()
    worker = run_to_the_end(log, store, Settings())
    assert unpack("track_state", store.load(worker.claims[0], "a")).applied == 1


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("turn_records", [1, 4, 100])
def test_answers_do_not_depend_on_how_the_log_is_cut(batch_size, turn_records):
    messages = two_sessions()
    log = filled_log(messages, 1)
    run_to_the_end(log, MemoryStore(), Settings(batch_size=batch_size, turn_records=turn_records))
    assert answered(log) == undisturbed(messages)


def test_a_batch_holds_one_frame_of_each_session():
    log = filled_log([m for m in two_sessions() if isinstance(m, Frame)], 1)
    model = ColourSegmenter()
    log.append("frames", "c", "prompt", pack(mask_prompt(0, 1, session="c")))
    worker = SegmentWorker(MemoryBus(log), MemoryStore(), model, Rules(), Settings(batch_size=3, turn_records=100))
    worker.turn()
    assert all(len(set(batch)) == len(batch) for batch in model.batches)


def test_the_model_answers_frames_of_distinct_sessions_together():
    log = filled_log([m for s in "abc" for m in (mask_prompt(0, 1, session=s), *frames(2, session=s))], 1)
    model = ColourSegmenter()
    SegmentWorker(MemoryBus(log), MemoryStore(), model, Rules(), Settings(batch_size=3, turn_records=100)).turn()
    assert model.batches == [["a", "b", "c"], ["a", "b", "c"]]


@pytest.mark.parametrize(("size", "batches"), [(1, ["a", "a", "b", "a"]), (2, ["ab", "a", "a"]), (9, ["ab", "a", "a"])])
def test_a_turn_is_cut_into_batches_that_keep_every_session_in_order(size, batches):
    a, b = frames(3, session="a"), frames(1, session="b")
    records = filled_log([a[0], a[1], b[0], a[2]], 1).topic("frames")[0]
    cut = list(one_a_session(list(records), size))
    assert sorted("".join(sorted(r.key for r in batch)) for batch in cut) == sorted(batches)
    assert [r.offset for batch in cut for r in batch if r.key == "a"] == sorted(r.offset for r in records if r.key == "a")


def test_the_end_of_a_view_forgets_that_view_alone():
    views = ("left", "right")
    messages = [mask_prompt(0, 1, session="a", view=v) for v in views]
    messages += [frames(1, session="a", view=v)[0] for v in views]
    messages += [End("a", "left"), *(frames(2, session="a", view=v)[1] for v in views)]
    messages = [replace(m, t_ns=m.t_ns + 10**12) if isinstance(m, Frame) and m.key.view == "left" else m for m in messages]  # not joined
    log = filled_log(messages, 1)
    run_to_the_end(log, MemoryStore(), Settings())
    found = [answer for answer in (unpack(r.kind, r.data) for r in log.take("masks")) if isinstance(answer, MaskFrame)]
    assert [(a.key.view, a.status.value) for a in found[2:]] == [("left", "no_prompt"), ("right", "ok")]

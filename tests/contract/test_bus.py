"""What every Bus promises. No test assumes that offsets follow each other."""

import threading
import time
from dataclasses import replace

import pytest
from psalm_stream.stream.bus import MemoryBus, MemoryLog
from psalm_stream.stream.errors import BadConfig, Fenced

POLL_S = 0.5
DEADLINE_S = 90.0


def poll(bus, limit=8, timeout_s=POLL_S):
    polled = bus.poll(limit, timeout_s)
    assert not (polled.changed and polled.records)
    assert len(polled.records) <= limit
    return polled


def poll_all(bus, count, partitions=0):
    """Records of a bus until there are `count` and `partitions` are held, and every partition gained on the way."""
    gained, records, deadline = {}, [], time.monotonic() + DEADLINE_S
    while len(records) < count or len(gained) < partitions:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records, {len(gained)} partitions"
        polled = poll(bus, max(1, count - len(records)))
        gained |= {claim.partition: claim for claim in polled.gained}
        records += polled.records
    return gained, records


def committed(bus, gained, record, checkpoint="n1"):
    """Commit up to a record; returns the claims then."""
    gained = gained | {record.partition: after(gained[record.partition], record, checkpoint)}
    bus.commit([gained[record.partition]])
    return gained


def after(claim, record, checkpoint):
    """The claim that says: everything up to this record is answered."""
    return replace(claim, offset=record.offset + 1, checkpoint=checkpoint)


class Polling:
    """A member that polls in a thread of its own, as a worker does; `held` and `records` grow and shrink with what it is told."""

    def __init__(self, bus, held=()):
        self.bus, self.held, self.records, self.failed = bus, dict(held), [], []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            while not self.stop.is_set():
                polled = poll(self.bus, timeout_s=0.05)
                for partition in polled.lost:
                    del self.held[partition]
                self.held |= {claim.partition: claim for claim in polled.gained}
                assert {r.partition for r in polled.records} <= self.held.keys()
                self.records += polled.records
        except BaseException as error:
            self.failed.append(error)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        assert not self.failed


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def fill(broker, *sessions):
    for number, session in enumerate(sessions):
        broker.append(session, "frame", b"%d" % number)


def test_a_poll_returns_what_was_appended_as_it_was(broker_factory):
    broker = broker_factory(1)
    broker.append("a", "frame", b"\x00\xff")
    _, (record,) = poll_all(broker.join(), 1)
    assert (record.topic, record.partition, record.key, record.kind, record.data) == ("frames", 0, "a", "frame", b"\x00\xff")


def test_the_first_poll_gains_every_partition_from_its_beginning(broker_factory):
    broker = broker_factory(3)
    fill(broker, *"abcdef")
    gained, _ = poll_all(broker.join(), 6)
    assert sorted(gained) == [0, 1, 2]
    assert {claim.checkpoint for claim in gained.values()} == {None}


def test_records_of_a_session_stay_in_order_in_one_partition(broker_factory):
    broker = broker_factory(3)
    fill(broker, *"abcabcabc")
    _, records = poll_all(broker.join(), 9)
    for session in "abc":
        own = [r for r in records if r.key == session]
        assert len({r.partition for r in own}) == 1
        assert [r.data for r in own] == sorted(r.data for r in own)
        assert [r.offset for r in own] == sorted(r.offset for r in own)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_polls_of_any_limit_read_every_record_once(broker_factory, limit):
    broker = broker_factory(2)
    fill(broker, *"abcab")
    bus = broker.join()
    read = []
    while len(read) < 5:
        read += poll(bus, limit).records
    assert sorted(r.data for r in read) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_partition_with_much_to_read_does_not_keep_the_others_from_being_read(broker_factory):
    broker = broker_factory(2)
    bus = broker.join()
    poll_all(bus, 0, partitions=2)
    long, short = (next(s for s in map(str, range(20)) if bus.partition_of(s) == p) for p in (0, 1))
    bus.hold([0, 1])
    fill(broker, *[long] * 20, *[short] * 4)
    bus.hold([])
    poll_all(bus, 2)
    taken = poll_all(bus, 6)[1]
    assert sum(r.partition == 1 for r in taken) >= 2


def test_an_empty_log_is_polled_without_records(broker_factory):
    assert poll(broker_factory(1).join(), timeout_s=0.01).records == ()


def test_nothing_published_is_seen_before_the_commit(broker_factory):
    broker = broker_factory(1)
    fill(broker, "a")
    bus = broker.join()
    gained, (record,) = poll_all(bus, 1)
    bus.publish("masks", record, "masks", b"answer")
    assert broker.answers() == []
    bus.commit([after(gained[0], record, "n1")])
    assert [a.data for a in broker.answers()] == [b"answer"]


def test_an_answer_has_key_and_partition_of_the_record_it_answers(broker_factory):
    broker = broker_factory(4)
    fill(broker, *"abcdefgh")
    bus = broker.join()
    gained, records = poll_all(bus, 8)
    for record in records:
        bus.publish("masks", record, "masks", record.data)
    ends = {r.partition: after(gained[r.partition], r, "n1") for r in records}
    bus.commit(list(ends.values()))
    assert {(a.key, a.partition, a.data) for a in broker.answers()} == {(r.key, r.partition, r.data) for r in records}


def test_answers_are_read_in_the_order_they_were_published(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aaaa")
    bus = broker.join()
    gained, records = poll_all(bus, 4)
    for record in records:
        bus.publish("masks", record, "masks", record.data)
    bus.commit([after(gained[0], records[-1], "n1")])
    assert [a.data for a in broker.answers()] == [b"0", b"1", b"2", b"3"]


def test_an_heir_starts_at_the_committed_offset_and_learns_its_checkpoint(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aaa")
    bus = broker.join()
    gained, records = poll_all(bus, 3)
    bus.commit([after(gained[0], records[0], "n1")])
    bus.close()
    heir_gained, heir_records = poll_all(broker.join(), 2)
    assert [r.data for r in heir_records] == [b"1", b"2"]
    assert heir_gained[0].checkpoint == "n1"
    assert heir_gained[0].generation > gained[0].generation


def test_recovery_forgets_what_was_published_and_reads_again_from_the_commit(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aa")
    bus = broker.join()
    _, records = poll_all(bus, 2)
    bus.publish("masks", records[0], "masks", b"of a turn that failed")
    bus.recover()
    gained, again = poll_all(bus, 2)
    assert [r.data for r in again] == [b"0", b"1"]
    bus.commit([after(gained[0], again[-1], "n1")])
    assert broker.answers() == []


def test_a_member_with_an_heir_is_fenced_and_its_answers_are_never_seen(broker_factory):
    broker = broker_factory(1)
    fill(broker, "a")
    zombie = broker.join()
    gained, (record,) = poll_all(zombie, 1)
    heir = broker.join()
    assert poll_all(heir, 1)[1] == [record]
    zombie.publish("masks", record, "masks", b"late")
    with pytest.raises(Fenced, match="generation"):
        zombie.commit([after(gained[0], record, "n1")])
    heir.close()
    assert broker.answers() == []
    assert poll_all(broker.join(), 1)[1] == [record]


def test_committing_one_partition_leaves_the_others_where_they_were(broker_factory):
    broker = broker_factory(2)
    sessions = [str(i) for i in range(8)]
    fill(broker, *sessions)
    bus = broker.join()
    gained, records = poll_all(bus, 8)
    done = [r for r in records if r.partition == 0]
    bus.commit([after(gained[0], done[-1], "n1")])
    bus.close()
    _, rest = poll_all(broker.join(), 8 - len(done))
    assert {r.partition for r in rest} == {1}


def test_recovery_reads_nothing_twice_of_what_waits_to_be_polled(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aaaaaa")
    bus = broker.join()
    poll_all(bus, 2)
    bus.recover()
    assert [r.data for r in poll_all(bus, 6)[1]] == [b"%d" % number for number in range(6)]
    assert poll(bus, timeout_s=0.2).records == ()


def test_recovery_gains_every_partition_anew_as_committed(broker_factory):
    broker = broker_factory(2)
    sessions = [str(i) for i in range(6)]
    fill(broker, *sessions)
    bus = broker.join()
    gained, records = poll_all(bus, 6)
    last = [r for r in records if r.partition == 0][-1]
    committed(bus, gained, last)
    bus.recover()
    again, rest = poll_all(bus, 6 - len([r for r in records if r.partition == 0]))
    assert (again[0].checkpoint, again[1].checkpoint) == ("n1", None)
    assert {r.partition for r in rest} == {1}


def test_a_session_belongs_where_its_records_are_put(broker_factory):
    broker = broker_factory(5)
    sessions = [f"session-{i}" for i in range(12)]
    fill(broker, *sessions)
    bus = broker.join()
    _, records = poll_all(bus, 12)
    assert {r.key: r.partition for r in records} == {session: bus.partition_of(session) for session in sessions}


def test_no_records_come_of_a_partition_on_hold(broker_factory):
    broker = broker_factory(2)
    bus = broker.join()
    poll_all(bus, 0, partitions=2)
    bus.hold([0])
    fill(broker, *map(str, range(8)))
    _, records = poll_all(bus, sum(bus.partition_of(str(i)) == 1 for i in range(8)))
    assert {r.partition for r in records} == {1}
    assert poll(bus, timeout_s=0.2).records == ()


def test_nothing_is_lost_of_a_partition_put_on_hold_while_it_is_read(broker_factory):
    broker = broker_factory(2)
    fill(broker, *map(str, range(12)))
    bus = broker.join()
    _, first = poll_all(bus, 2)
    for held in ([0, 1], [0], [1], []):
        bus.hold(held)
        first += poll(bus, 1, timeout_s=0.2).records
    _, rest = poll_all(bus, 12 - len(first))
    assert sorted(int(r.data) for r in [*first, *rest]) == list(range(12))


def test_recovery_ends_a_hold(broker_factory):
    broker = broker_factory(1)
    fill(broker, "a")
    bus = broker.join()
    poll_all(bus, 0, partitions=1)
    bus.hold([0])
    bus.recover()
    assert len(poll_all(bus, 1)[1]) == 1


def test_snapshots_are_the_latest_committed_of_each_session_of_a_partition(broker_factory):
    broker = broker_factory(2)
    fill(broker, *"abcabc")
    bus = broker.join()
    gained, records = poll_all(bus, 6)
    for record in records:
        bus.publish("state", record, "state", record.data)
    bus.commit([after(gained[p], [r for r in records if r.partition == p][-1], "n1") for p in {r.partition for r in records}])
    found = {key: (p, s.data) for p in (0, 1) for key, s in bus.snapshots(p).items()}
    assert found == {"a": (bus.partition_of("a"), b"3"), "b": (bus.partition_of("b"), b"4"), "c": (bus.partition_of("c"), b"5")}


def test_a_session_that_ended_has_no_snapshot(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"abab")
    bus = broker.join()
    gained, records = poll_all(bus, 4)
    for record in records[:2]:
        bus.publish("state", record, "state", b"alive")
    gained = committed(bus, gained, records[1])
    bus.recover()
    gained, records = poll_all(bus, 2)
    bus.publish("state", records[0], "state", None)
    committed(bus, gained, records[0], "n2")
    assert list(bus.snapshots(0)) == ["b"]


def test_a_snapshot_that_was_not_committed_is_not_there(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aa")
    bus = broker.join()
    gained, records = poll_all(bus, 2)
    bus.publish("state", records[0], "state", b"committed")
    committed(bus, gained, records[0])
    bus.publish("state", records[1], "state", b"of a turn that failed")
    assert [s.data for s in bus.snapshots(0).values()] == [b"committed"]
    bus.recover()
    assert [s.data for s in bus.snapshots(0).values()] == [b"committed"]


def test_history_goes_from_a_start_to_before_the_claim(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aaaaa")
    bus = broker.join()
    gained, records = poll_all(bus, 5)
    claim = committed(bus, gained, records[3])[0]
    assert list(bus.history(claim, records[1].offset)) == records[1:4]
    assert list(bus.history(claim, claim.offset)) == []
    assert list(bus.history(claim, bus.earliest(0))) == records[:4]


def test_reading_history_moves_nothing(broker_factory):
    broker = broker_factory(1)
    fill(broker, *"aaa")
    bus = broker.join()
    gained, records = poll_all(bus, 1)
    claim = committed(bus, gained, records[0])[0]
    assert [r.data for r in bus.history(claim, 0)] == [b"0"]
    assert [r.data for r in poll_all(bus, 2)[1]] == [b"1", b"2"]


def test_a_partition_has_one_member_once_another_has_joined(broker_factory):
    broker = broker_factory(4)
    first, second = broker.join(), broker.join()
    gained, _ = poll_all(first, 0, partitions=4)
    with Polling(first, gained) as one, Polling(second) as other:
        if broker.shares:
            wait_until(lambda: len(other.held) == 2 and sorted([*one.held, *other.held]) == [0, 1, 2, 3])
            assert not one.held.keys() & other.held.keys()
        else:
            wait_until(lambda: sorted(other.held) == [0, 1, 2, 3])
            assert sorted(other.held) == [0, 1, 2, 3]


def test_a_member_that_joins_reads_on_where_the_others_committed(broker_factory):
    broker = broker_factory(2)
    fill(broker, *map(str, range(8)))
    first = broker.join()
    gained, records = poll_all(first, 8)
    ends = {r.partition: after(gained[r.partition], r, f"n{r.partition}") for r in records}
    first.commit(list(ends.values()))
    fill(broker, *map(str, range(8)))
    with Polling(first, gained), Polling(broker.join()) as other:
        wait_until(lambda: other.held and len(other.records) >= sum(first.partition_of(str(i)) in other.held for i in range(8)))
    assert {p: (c.offset, c.checkpoint) for p, c in other.held.items()} == {p: (ends[p].offset, ends[p].checkpoint) for p in other.held}
    assert all(r.offset >= ends[r.partition].offset for r in other.records)


def test_a_member_that_joins_costs_the_others_no_record_of_what_they_keep(broker_factory):
    broker = broker_factory(2)
    fill(broker, *map(str, range(12)))
    first = broker.join()
    gained, records = poll_all(first, 3)
    with Polling(first, gained) as one, Polling(broker.join()) as other:
        wait_until(lambda: other.held and len({*records, *one.records, *other.records}) == 12)
    assert {int(record.data) for record in (*records, *one.records, *other.records)} == set(range(12))


def test_a_log_without_partitions_is_refused():
    with pytest.raises(BadConfig, match="0 partitions"):
        MemoryLog(0)


def test_a_memory_log_keeps_no_frame_that_is_answered_and_no_answer_that_was_taken():
    log = MemoryLog()
    bus = MemoryBus(log)
    claim = bus.poll(1, 0).gained[0]
    for number in range(50):
        log.append("frames", "a", "frame", b"x")
        (record,) = bus.poll(1, 0).records
        bus.publish("masks", record, "masks", b"y")
        claim = after(claim, record, str(number))
        bus.commit([claim])
        assert len(log.take("masks")) == 1
        assert [len(queue) for name in ("frames", "masks") for queue in log.topic(name)] == [0, 0]

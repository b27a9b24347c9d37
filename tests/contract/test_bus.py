"""What every Bus promises. No test assumes that offsets follow each other."""

from dataclasses import replace

import pytest
from psalm_stream.stream.bus import MemoryBus, MemoryLog
from psalm_stream.stream.errors import BadConfig, Fenced

POLL_S = 5.0


def poll_all(bus, count):
    """Records of a bus until there are `count`, and every partition gained on the way."""
    gained, records = {}, []
    while len(records) < count:
        polled = bus.poll(count - len(records), POLL_S)
        gained |= {claim.partition: claim for claim in polled.gained}
        records += polled.records
    return gained, records


def after(claim, record, checkpoint):
    """The claim that says: everything up to this record is answered."""
    return replace(claim, offset=record.offset + 1, checkpoint=checkpoint)


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
        records = bus.poll(limit, POLL_S).records
        assert len(records) <= limit
        read += records
    assert sorted(r.data for r in read) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_empty_log_is_polled_without_records(broker_factory):
    assert broker_factory(1).join().poll(8, 0.01).records == ()


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
    poll_all(broker.join(), 1)
    zombie.publish("masks", record, "masks", b"late")
    with pytest.raises(Fenced, match="generation"):
        zombie.commit([after(gained[0], record, "n1")])
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
    _, rest = poll_all(broker.join(), 8 - len(done))
    assert {r.partition for r in rest} == {1}


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

"""What KafkaBus promises beyond the contract, on a real broker: fences, outages, undecided transactions, gaps, lost and odd records."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka_log import DEADLINE_S, SESSION_S, KafkaLog, gain, poll_until, read
from psalm_stream.stream.errors import BadConfig, BadRecord, BusFailed, Fenced, LogLost, PsalmStreamError
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import headers, named_errors, open_cluster


@pytest.fixture
def log(servers):
    """A log of one partition. A test that failed with the broker down fails alone."""
    if not servers.kafka.running:
        servers.kafka.start()
    log = KafkaLog(servers.kafka.address)
    yield log
    log.close()


def after(claim, record, checkpoint="n1"):
    return replace(claim, offset=record.offset + 1, checkpoint=checkpoint)


def answer(bus, claim, *records, checkpoint="n1"):
    """Answer records with what they hold, in one commit; returns the claim then."""
    for record in records:
        bus.publish("masks", record, "masks", record.data)
    bus.commit([after(claim, records[-1], checkpoint)])
    return after(claim, records[-1], checkpoint)


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


# -- fences ------------------------------------------------------------------------------------------------------------


def expelled(log):
    """A member with a record at hand that was not at rest for too long, its claims, the record, and the heir that has answered it."""
    log.append("a", "frame", b"0")
    zombie = log.join(max_poll_interval_s=2.0)
    claims, (record,) = read(zombie, 1)
    wait_until(lambda: zombie._consumer.group_metadata().generation_id < 0)
    heir = log.join()
    heir_claims, _ = read(heir, 1)
    answer(heir, heir_claims[0], record, checkpoint="of the heir")
    return zombie, claims[0], record


def test_a_member_that_was_expelled_during_its_turn_is_fenced_by_the_broker(log):
    zombie, claim, record = expelled(log)
    zombie.publish("masks", record, "masks", b"late")
    with pytest.raises(Fenced, match=r"generation \d+") as refused:
        zombie.commit([after(claim, record)])
    assert type(refused.value.__cause__).__name__ == "CommitFailedError"
    assert [a.data for a in log.answers()] == [b"0"]


def test_a_membership_that_was_asked_for_after_the_expulsion_is_refused_before_anything_is_sent(log):
    zombie, claim, record = expelled(log)
    zombie.publish("masks", record, "masks", b"late")
    zombie._membership = zombie._consumer.group_metadata()  # the trap: the broker would take it
    with pytest.raises(Fenced, match="expelled"):
        zombie.commit([after(claim, record)])
    assert [a.data for a in log.answers()] == [b"0"]
    assert gain(log.join(slot="another"))[0].checkpoint == "of the heir"


def test_a_member_that_was_expelled_claims_nothing_when_it_comes_back(log, monkeypatch):
    zombie, _, _ = expelled(log)
    (assignor,) = zombie._consumer._coordinator._assignors.values()
    told, metadata = [], assignor.metadata
    monkeypatch.setattr(assignor, "metadata", lambda topics: told.append(metadata(topics)) or told[-1])
    zombie.recover()
    poll_until(zombie, lambda gained, records: told)
    assert [claims.owned_partitions for claims in told] == [[]] * len(told)


ZOMBIE = """
import sys
from dataclasses import replace
from psalm_stream.stream.errors import Fenced
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import open_cluster

bus = KafkaBus(open_cluster(sys.argv[1], prefix=sys.argv[2]), Member("group", "zombie", 60.0, session_timeout_s=float(sys.argv[3])))
claim = None
while not (polled := bus.poll(1, 1.0)).records:
    claim = next(iter(polled.gained), claim)
print("has a record", flush=True)
sys.stdin.readline()
bus.publish("masks", polled.records[0], "masks", b"late")
try:
    bus.commit([replace(claim, offset=1, checkpoint="late")])
    print("committed")
except Fenced:
    print("fenced")
"""


def test_a_process_that_was_stopped_for_longer_than_its_session_is_fenced(log):
    log.append("a", "frame", b"0")
    arguments = [sys.executable, "-c", ZOMBIE, log.cluster.servers, log.cluster.prefix, str(SESSION_S)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zombie:
        try:
            assert zombie.stdout.readline() == "has a record\n"
            os.kill(zombie.pid, signal.SIGSTOP)
            heir = log.join()
            claims, records = read(heir, 1)
            answer(heir, claims[0], *records)
            os.kill(zombie.pid, signal.SIGCONT)
            told, _ = zombie.communicate("\n", timeout=DEADLINE_S)
        finally:
            zombie.kill()
    assert told == "fenced\n"
    assert [a.data for a in log.answers()] == [b"0"]


def test_a_worker_of_the_same_slot_fences_the_one_before(log):
    log.append("a", "frame", b"0")
    first = log.join(slot="one")
    claims, records = read(first, 1)
    log.join(slot="one")._open_producer()  # the first thing it does
    with pytest.raises(Fenced, match="transactional id group-one") as refused:
        answer(first, claims[0], *records)
    assert type(refused.value.__cause__).__name__ == "ProducerFencedError"
    assert log.answers() == []


def test_a_claim_of_before_a_rebalance_that_took_the_partition_is_refused(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    claims, records = read(bus, 1)
    with pytest.raises(Fenced, match="generation 99"):
        answer(bus, replace(claims[0], generation=99), *records)


@pytest.fixture
def pair(servers):
    """Two members on a log of two partitions with 40 records: the one holds both and polls when asked, the other polls by itself.

    Yields the first, and what the second was told to hold.
    """
    log = KafkaLog(servers.kafka.address, partitions=2)
    stop, held = threading.Event(), {}
    for number in range(40):
        log.append("a", "frame", b"%d" % number, partition=number % 2)
    first, second = log.join(), log.join()
    gain(first, 2)

    def poll_on():
        while not stop.is_set():
            held.update({claim.partition: claim for claim in second.poll(8, 0.1).gained})

    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(poll_on)
        yield first, held
        stop.set()
        polling.result()
    log.close()


def test_a_member_that_works_between_short_polls_keeps_its_place_in_a_rebalance(pair):
    first, held = pair
    began, lost = time.monotonic(), set()
    while not held and time.monotonic() < began + 20.0:
        lost |= set(first.poll(8, 0.0).lost)
        time.sleep(0.3)  # as in the steps of a rebuild
    assert len(held) == 1
    assert held.keys() == lost


def test_nothing_comes_of_a_partition_after_it_was_lost(pair):
    first, _ = pair
    deadline, lost = time.monotonic() + DEADLINE_S, ()
    while not (lost := lost or first.poll(1, 0.1).lost):
        assert time.monotonic() < deadline
        first.hold([0, 1])  # they wait to be polled
    first.hold([])
    rest = [record for _ in range(10) for record in first.poll(1, 0.5).records]
    assert {record.partition for record in rest} == {0, 1} - set(lost)


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before a poll", "before a commit"])
def test_a_broker_that_is_killed_loses_and_doubles_nothing(servers, log, moment):
    for number in range(20):
        log.append("a", "frame", b"%d" % number)
    bus = log.join(transaction_timeout_s=2.0, max_poll_interval_s=30.0)
    claim, answered, failures = None, 0, 0
    deadline = time.monotonic() + 2 * DEADLINE_S
    while answered < 20:
        assert time.monotonic() < deadline
        try:
            polled = bus.poll(3, 0.2)
            claim = next(iter(polled.gained), claim)
            if polled.records:
                if moment == "before a commit" and answered == 6 and not failures:
                    servers.kafka.kill()
                claim = answer(bus, claim, *polled.records, checkpoint=f"n{polled.records[-1].offset}")
                answered = polled.records[-1].offset + 1
                if moment == "before a poll" and answered == 6:
                    servers.kafka.kill()
        except PsalmStreamError:
            failures += 1
            bus.recover()
        if not servers.kafka.running and (failures or moment == "before a poll"):
            servers.kafka.start()
    assert [a.data for a in log.answers()] == [b"%d" % number for number in range(20)]


def test_a_broker_that_is_away_is_told_of_and_waited_for(servers, log):
    log.append("a", "frame", b"0")
    bus = log.join()
    claims, records = read(bus, 1)
    servers.kafka.kill()
    try:
        with pytest.raises(BusFailed, match="start the broker"):
            poll_until(bus, lambda *_: False)
        bus.recover()
        with pytest.raises(BusFailed, match="start the broker"):
            bus.poll(1, 0.1)
    finally:
        servers.kafka.start()
    claims, records = read(bus, 1)
    answer(bus, claims[0], *records)
    assert [a.data for a in log.answers()] == [b"0"]


def test_a_member_without_partitions_asks_after_its_broker_too(log):
    bus = log.join()
    bus._looked = 0.0
    bus._look_around()
    assert bus._looked > 0


def test_a_broker_that_does_not_answer_a_commit_is_not_waited_for_forever(servers, log):
    log.append("a", "frame", b"0")
    bus = log.join(transaction_timeout_s=1.0)
    claims, records = read(bus, 1)
    servers.kafka.pause()
    began = time.monotonic()
    try:
        with pytest.raises(BusFailed):
            answer(bus, claims[0], *records)
        bus.recover()
    finally:
        servers.kafka.resume()
    assert time.monotonic() - began < 10.0
    claims, records = read(bus, 1)
    answer(bus, claims[0], *records)
    assert [a.data for a in log.answers()] == [b"0"]


# -- undecided transactions --------------------------------------------------------------------------------------------


def dead_in_its_transaction(log, **knobs):
    """A member that read a record and died when it had sent its offset and its answer; returns when its transaction began."""
    log.append("a", "frame", b"0")
    bus = log.join(**knobs)
    read(bus, 1)
    began = time.monotonic()
    send_all_but_the_end(log, bus)
    bus.close()
    return began


def send_all_but_the_end(log, bus):
    bus._producer.begin_transaction()
    offset = {TopicPartition(log.cluster.topic("frames"), 0): OffsetAndMetadata(1, "undecided", -1)}
    bus._producer.send_offsets_to_transaction(offset, bus._membership)
    bus._producer.send(log.cluster.topic("masks"), b"undecided", b"a", headers("masks"), 0).get(timeout=10)


def test_an_heir_waits_for_its_predecessors_transaction_to_be_decided(log):
    began = dead_in_its_transaction(log, slot="dead", transaction_timeout_s=5.0)
    heir = log.join(slot="heir")
    claim = gain(heir)[0]
    assert time.monotonic() - began >= 5.0
    assert (claim.offset, claim.checkpoint) == (0, None)
    assert log.answers() == []


def test_a_restarted_worker_settles_its_own_transaction_at_once(log):
    began = dead_in_its_transaction(log, slot="one", transaction_timeout_s=60.0)
    claim = gain(log.join(slot="one"))[0]
    assert time.monotonic() - began < 30.0
    assert (claim.offset, claim.checkpoint) == (0, None)
    assert log.answers() == []


def test_a_commit_whose_outcome_was_not_heard_is_settled_by_recovery(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    read(bus, 1)
    send_all_but_the_end(log, bus)
    bus._producer._transaction_manager.begin_commit()  # on its way, and nobody waits for the answer
    bus._producer._sender.wakeup()
    bus.recover()
    claim = gain(bus)[0]
    assert ((claim.offset, claim.checkpoint), [a.data for a in log.answers()]) in [((0, None), []), ((1, "undecided"), [b"undecided"])]


# -- gaps and losses ---------------------------------------------------------------------------------------------------


def transaction(log, *values, commit):
    """Records of a source's own transaction."""
    source = log.cluster.producer(transactional_id=f"{log.cluster.prefix}source", transaction_timeout_ms=10_000)
    source.init_transactions()
    source.begin_transaction()
    for value in values:
        source.send(log.cluster.topic("frames"), value, b"a", headers("frame"), 0).get(timeout=10)
    (source.commit_transaction if commit else source.abort_transaction)()
    source.abandon()


def test_transactions_of_sources_are_read_when_they_are_committed(log):
    transaction(log, b"0", b"1", commit=True)
    transaction(log, b"never", commit=False)
    transaction(log, b"2", commit=True)
    _, records = read(log.join(), 3)
    assert [r.data for r in records] == [b"0", b"1", b"2"]
    assert records[2].offset > records[1].offset + 1


def test_history_ends_at_the_claim_though_nothing_but_an_abort_stands_before_it(log):
    log.append("a", "frame", b"0")
    transaction(log, b"never", b"never", commit=False)
    log.append("a", "frame", b"1")
    bus = log.join()
    claims, records = read(bus, 2)
    claim = answer(bus, claims[0], *records)
    assert [r.data for r in bus.history(claim, 1)] == [b"1"]
    assert list(bus.history(replace(claim, offset=records[1].offset), 1)) == []


def test_snapshots_end_though_the_last_transaction_was_aborted(log):
    log.append("a", "frame", b"0")
    log.append("a", "frame", b"1")
    bus = log.join()
    claims, records = read(bus, 2)
    bus.publish("state", records[0], "state", b"committed")
    answer(bus, claims[0], records[0])
    bus._producer.begin_transaction()
    bus._producer.send(log.cluster.topic("state"), b"aborted", b"a", headers("state"), 0).get(timeout=10)
    bus.recover()
    gain(bus)
    assert [s.data for s in bus.snapshots(0).values()] == [b"committed"]


def test_snapshots_wait_for_a_transaction_that_is_not_decided(log):
    bus = log.join()
    gain(bus)
    before = log.cluster.producer(transactional_id="before", transaction_timeout_ms=30_000)
    before.init_transactions()
    before.begin_transaction()
    before.send(log.cluster.topic("state"), b"of a commit on its way", b"a", headers("state"), 0).get(timeout=10)
    with ThreadPoolExecutor(1) as threads:
        snapshots = threads.submit(bus.snapshots, 0)
        time.sleep(1.0)
        assert not snapshots.done()
        before.commit_transaction()
        assert [s.data for s in snapshots.result().values()] == [b"of a commit on its way"]
    before.abandon()


def delete_before(log, offset):
    with closing(log.cluster.admin()) as admin:
        admin.delete_records({TopicPartition(log.cluster.topic("frames"), 0): offset})


def test_records_deleted_before_they_were_answered_are_named(log):
    for number in range(6):
        log.append("a", "frame", b"%d" % number)
    bus = log.join()
    claims, records = read(bus, 6)
    answer(bus, claims[0], *records[:2])
    bus.close()
    delete_before(log, 5)
    heir = log.join()
    with pytest.raises(LogLost, match=r"offsets 2 to 4 were deleted .*kafka-consumer-groups --group group .*frames:0"):
        gain(heir)
    assert heir.earliest(0) == 5


def test_a_partition_whose_records_were_deleted_does_not_keep_the_others_from_going_on(servers, caplog):
    with closing(KafkaLog(servers.kafka.address, partitions=2)) as log:
        for _ in range(6):
            log.append("a", "frame", b"0", partition=0)
        first = log.join()
        claim = gain(first, 2)[0]
        (record, *_) = read(first, 1)[1]
        answer(first, claim, record)
        first.close()
        delete_before(log, 5)
        heir = log.join()
        assert gain(heir).keys() == {1}
        log.append("b", "frame", b"1", partition=1)
        assert [record.data for record in read(heir, 1)[1]] == [b"1"]
        assert "offsets 1 to 4 were deleted" in caplog.text


def test_records_deleted_under_a_reader_are_named(log):
    for number in range(6):
        log.append("a", "frame", b"%d" % number)
    bus = log.join()
    claims, records = read(bus, 6)
    answer(bus, claims[0], *records[:2])
    bus.recover()
    gain(bus)
    bus.hold([0])
    delete_before(log, 5)
    bus.hold([])
    with pytest.raises(LogLost, match="offsets 2 to 4"):
        poll_until(bus, lambda gained, records: records)


def test_history_deleted_while_it_is_read_is_named(log):
    for _ in range(99):
        log.source.send(log.cluster.topic("frames"), bytes(100_000), b"a", headers("frame"))
    log.append("a", "frame", b"last")
    bus = log.join()
    claim = gain(bus)[0]
    history = bus.history(replace(claim, offset=100), 0)
    next(history)
    delete_before(log, 99)
    with pytest.raises(LogLost, match="was deleted while it was read"):
        list(history)


def test_a_topic_that_does_not_exist_is_named_with_the_command_that_makes_it(servers):
    with pytest.raises(BusFailed, match=r"absent\.frames; psalm-stream topics create"):
        KafkaBus(open_cluster(servers.kafka.address, prefix="absent."), Member("group", "0", 10.0))


def test_after_its_offsets_were_reset_a_group_goes_on_without_a_checkpoint_it_knows(log):
    log.append("a", "frame", b"0")
    log.append("a", "frame", b"1")
    bus = log.join()
    claims, records = read(bus, 2)
    answer(bus, claims[0], records[0])
    bus.close()
    with closing(log.cluster.consumer(group_id="group")) as tool:
        tool.commit({TopicPartition(log.cluster.topic("frames"), 0): OffsetAndMetadata(2, "", -1)})
    claim = gain(log.join())[0]
    assert (claim.offset, claim.checkpoint) == (2, "")  # not None: there were states, and the store must not discard them


def test_a_changed_number_of_partitions_stops_a_worker(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    read(bus, 1)
    with closing(log.cluster.admin()) as admin:
        admin.create_partitions({log.cluster.topic("frames"): 3})
    bus._consumer._cluster.request_update()  # it asks by itself every five minutes
    with pytest.raises(BadConfig, match="has 3 partitions, 1 when"):
        poll_until(bus, lambda *_: log.append("a", "frame", b"1", partition=0))


# -- odd records -------------------------------------------------------------------------------------------------------


def test_a_record_without_key_and_headers_is_read_and_answered_where_it_lies(log):
    log.source.send(log.cluster.topic("frames"), b"bare").get(timeout=10)
    bus = log.join()
    claims, (record,) = read(bus, 1)
    assert (record.key, record.kind, record.data) == ("", "", b"bare")
    answer(bus, claims[0], record)
    assert [(a.key, a.partition, a.data) for a in log.answers()] == [("", 0, b"bare")]


def test_a_key_that_is_no_text_counts_as_none(log):
    log.append(b"\xff\xfe", "frame", b"0")
    _, (record,) = read(log.join(), 1)
    assert record.key == ""


def test_a_tombstone_is_a_record_without_data(log):
    log.append("a", "frame", None)
    _, (record,) = read(log.join(), 1)
    assert (record.key, record.data) == ("a", None)


def test_answers_carry_their_kind_and_the_schema_version(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    claims, records = read(bus, 1)
    answer(bus, claims[0], *records)
    log.answers()
    log.subscriber.seek(log.masks[0], 0)
    ((message,),) = log.subscriber.poll(timeout_ms=5000).values()
    assert message.headers == [("kind", b"masks"), ("schema", b"1")]


def test_the_time_of_a_record_is_the_brokers(log):
    log.append("a", "frame", b"0", timestamp_ms=1)
    _, (record,) = read(log.join(), 1)
    assert abs(record.t_ms / 1000 - time.time()) < 60


def test_a_picture_of_nearly_four_megabytes_passes_beside_small_ones(servers):
    log = KafkaLog(servers.kafka.address, partitions=2)
    try:
        large = os.urandom((4 << 20) - 1000)
        for number in range(12):
            log.append(f"{number}", "frame", large if number % 4 == 0 else b"small")
        _, records = read(log.join(), 12)
        assert sorted(len(r.data) for r in records) == [5] * 9 + [len(large)] * 3
    finally:
        log.close()


def test_a_record_larger_than_its_topic_takes_is_refused_by_name(log):
    with pytest.raises(BadRecord, match="larger than its topic takes"), named_errors("send a frame"):
        log.append("a", "frame", bytes(5 << 20))


def test_an_answer_larger_than_its_topic_takes_is_refused_and_the_turn_can_be_repeated(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    claims, (record,) = read(bus, 1)
    with pytest.raises(BadRecord, match="larger than its topic takes"):
        answer(bus, claims[0], replace(record, data=bytes(5 << 20)))
    bus.recover()
    claims, (record,) = read(bus, 1)
    answer(bus, claims[0], record)
    assert [a.data for a in log.answers()] == [b"0"]


def test_a_state_may_be_larger_than_a_picture(log):
    log.append("a", "frame", b"0")
    bus = log.join()
    claims, (record,) = read(bus, 1)
    state = os.urandom(9 << 20)
    bus.publish("state", record, "state", state)
    answer(bus, claims[0], record)
    assert bus.snapshots(0)["a"].data == state

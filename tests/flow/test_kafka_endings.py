"""Transactions that are over for their coordinator and marked nowhere, as a broker leaves them that was killed between the two."""

from contextlib import closing

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.producer.transaction_manager import TxnOffsetCommitHandler
from kafka_log import KafkaLog, gain, read
from psalm_stream.stream.codec import pack
from psalm_stream.stream.errors import Fenced
from psalm_stream.stream.kafka_client import headers, open_cluster
from psalm_stream.stream.kafka_endings import OFFSETS, end_for_others
from psalm_stream.stream.kafka_sources import SourceLog
from psalm_stream.stream.wanted import Position

BROKER = "1"
VERIFICATION = "transaction.partition.verification.enable"  # without it a broker takes what its coordinator was not told of


@pytest.fixture
def log(servers):
    """A log of one partition, on a broker that lets transactions be made that nobody marks."""
    with closing(open_cluster(servers.kafka.address).admin()) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, BROKER, configs={VERIFICATION: "false"})])
        log = KafkaLog(servers.kafka.address)
        yield log
        log.close()
        admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, BROKER, configs={VERIFICATION: "true"})])


def end_unmarked(log, bus, committed):
    """Answer the first frame in a transaction that its coordinator ends, and marks neither in `masks` nor among the group's offsets."""
    producer, manager = bus._producer, bus._producer._transaction_manager
    masks, frames = (TopicPartition(log.cluster.topic(topic), 0) for topic in ("masks", "frames"))
    producer.begin_transaction()
    producer.send(log.cluster.topic("state"), b"1", b"a", headers("state"), 0).get(timeout=10)
    manager._partitions_in_transaction.add(masks)
    producer.send(masks.topic, b"answer", b"a", headers("masks"), 0).get(timeout=10)
    manager._pending_txn_offset_commits[frames] = OffsetAndMetadata(1, "n1", -1)
    offset = TxnOffsetCommitHandler(manager, bus._membership, dict(manager._pending_txn_offset_commits), None)
    manager._enqueue_request(offset)
    producer._wait(offset.result)
    producer._wait(manager.begin_commit() if committed else manager.begin_abort())


def undecided(log, **knobs):
    """A member whose transaction was ended so."""
    log.append("a", "frame", b"0")
    bus = log.join(slot="0")
    read(bus, 1)
    end_unmarked(log, bus, **knobs)
    return bus


OUTCOMES = [(True, (1, "n1"), [b"answer"]), (False, (0, None), [])]


@pytest.mark.parametrize(("committed", "at", "answers"), OUTCOMES, ids=["committed", "aborted"])
def test_a_worker_that_recovers_ends_its_transaction_as_it_was_decided(log, committed, at, answers):
    bus = undecided(log, committed=committed)
    bus.recover()
    claim = gain(bus)[0]
    assert ((claim.offset, claim.checkpoint), [a.data for a in log.answers()]) == (at, answers)


@pytest.mark.parametrize(("committed", "at", "answers"), OUTCOMES, ids=["committed", "aborted"])
def test_an_heir_ends_the_transaction_of_one_that_never_comes_back(log, committed, at, answers):
    undecided(log, committed=committed).close()
    claim = gain(log.join(slot="heir", transaction_timeout_s=1.0))[0]
    assert ((claim.offset, claim.checkpoint), [a.data for a in log.answers()]) == (at, answers)


def test_one_whose_transaction_was_ended_by_another_is_fenced(log):
    bus = undecided(log, committed=True)
    end_for_others(log.cluster, "group-", 1.0, [log.cluster.topic("masks"), OFFSETS])
    with pytest.raises(Fenced):
        bus.commit([bus._claims[0]])


def test_a_transaction_that_goes_on_is_left_alone(log):
    log.append("a", "frame", b"0")
    bus = log.join(slot="0")
    read(bus, 1)
    bus._producer.begin_transaction()
    bus._producer.send(log.cluster.topic("masks"), b"answer", b"a", headers("masks"), 0).get(timeout=10)
    end_for_others(log.cluster, "group-", 1.0, [log.cluster.topic("masks"), OFFSETS])
    bus._producer.commit_transaction()
    assert [a.data for a in log.answers()] == [b"answer"]


def end_source_unmarked(source, topic, committed):
    """Publish a frame and a position in a transaction that its coordinator ends, and does not mark in one of the two topics."""
    producer, manager = source._producer, source._producer._transaction_manager
    frames = TopicPartition(source.cluster.topic("frames"), 0)
    position = pack(Position("s", "main", index=7))
    sent = [(frames, b"hidden", b"s", headers("frame")), (source._positions, position, b"s/main", headers("position"))]
    producer.begin_transaction()
    for at, value, key, more in sorted(sent, key=lambda record: record[0].topic.endswith(topic)):
        if at.topic.endswith(topic):
            manager._partitions_in_transaction.add(at)
        producer.send(at.topic, value, key, more, at.partition).get(timeout=10)
    producer._wait(manager.begin_commit() if committed else manager.begin_abort())


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "aborted"])
def test_a_source_ends_its_transaction_before_it_reads_its_position(log, committed):
    with closing(SourceLog(log.cluster, "s", "main")) as source:
        end_source_unmarked(source, "positions", committed)
    with closing(SourceLog(log.cluster, "s", "main")) as source:
        assert source.position().index == (7 if committed else Position("s", "main").index)


@pytest.mark.parametrize(("committed", "seen"), [(True, [b"hidden", b"next"]), (False, [b"next"])], ids=["committed", "aborted"])
def test_a_worker_ends_the_transaction_of_a_source_that_hides_what_follows(log, committed, seen):
    with closing(SourceLog(log.cluster, "s", "main")) as source:
        end_source_unmarked(source, "frames", committed)
    log.append("a", "frame", b"next")
    assert [record.data for record in read(log.join(), len(seen))[1]] == seen

"""A subscriber on a real broker: committed answers of its session, in order, from where it says, through a restart of the broker."""

import uuid
from contextlib import closing

import pytest
from answers import abort, commit, masks, notice, partition_of, transaction
from kafka import TopicPartition
from psalm_stream.stream.codec import End, Kind, pack
from psalm_stream.stream.errors import BadConfig, BadRecord, BusFailed, LogLost
from psalm_stream.stream.kafka_client import open_cluster
from psalm_stream.stream.kafka_topics import create_topics
from psalm_stream.stream.reader import MaskReader
from psalm_stream.stream.types import NoticeKind

PARTITIONS = 3
NEIGHBOUR = next(name for name in map(str, range(99)) if partition_of(name, PARTITIONS) == partition_of("s", PARTITIONS))
STRANGER = next(name for name in map(str, range(99)) if partition_of(name, PARTITIONS) != partition_of("s", PARTITIONS))
DEADLINE_S = 30


@pytest.fixture
def cluster(servers):
    cluster = open_cluster(servers.kafka.address, prefix=f"{uuid.uuid4().hex[:8]}.")
    create_topics(cluster, PARTITIONS)
    return cluster


@pytest.fixture
def broker(servers):
    """A broker that may be killed."""
    yield servers.kafka
    if not servers.kafka.running:
        servers.kafka.start()


def answered(cluster, *messages):
    commit(cluster, PARTITIONS, "masks", *messages)


def read_all(cluster, session="s", **how):
    with MaskReader(cluster, session, **how) as reader:
        return list(reader)


def test_the_answers_of_a_session_come_in_order_and_the_reader_ends(cluster):
    said = [notice(), *map(masks, range(60)), notice(NoticeKind.ENDED)]
    answered(cluster, *said[:7])
    answered(cluster, *said[7:])
    assert read_all(cluster) == said


def test_other_sessions_in_the_partition_are_left_out(cluster):
    answered(cluster, masks(0), masks(0, NEIGHBOUR), masks(0, STRANGER), masks(1))
    assert read_all(cluster) == [masks(0), masks(1)]


def test_all_sessions_are_read_when_none_is_named(cluster):
    answered(cluster, masks(0), masks(0, NEIGHBOUR), masks(0, STRANGER), masks(1))
    found = read_all(cluster, None)
    assert [a for a in found if a.key.session != STRANGER] == [masks(0), masks(0, NEIGHBOUR), masks(1)]
    assert masks(0, STRANGER) in found


def test_a_view_comes_with_the_notices_of_the_whole_session(cluster):
    answered(cluster, masks(0), masks(0, view="left"), notice(view="left"), notice(NoticeKind.ENDED, view=None))
    assert read_all(cluster, view="main") == [masks(0), notice(NoticeKind.ENDED, view=None)]


def test_what_was_aborted_or_is_undecided_is_not_read(cluster):
    answered(cluster, masks(0))
    abort(cluster, PARTITIONS, "masks", masks(1))
    answered(cluster, masks(2))
    with transaction(cluster, PARTITIONS) as send:
        send("masks", masks(3))
        assert read_all(cluster) == [masks(0), masks(2)]
    assert read_all(cluster) == [masks(0), masks(2), masks(3)]


def test_a_log_that_ends_in_an_aborted_transaction_ends_the_reader_too(cluster):
    abort(cluster, PARTITIONS, "masks", *map(masks, range(3)))
    assert read_all(cluster) == []


def test_a_reader_goes_on_where_another_was_after_each_answer(cluster):
    said = [*map(masks, range(6))]
    for message in said[:3]:  # each with the mark of its own transaction after it
        answered(cluster, message)
    answered(cluster, *said[3:])
    for count in range(1, 7):
        with MaskReader(cluster, "s") as first:
            before = [first.read(5.0) for _ in range(count)]
        assert before + read_all(cluster, start=first.offset) == said


def test_a_reader_that_ends_does_not_pass_over_what_was_answered_meanwhile(cluster):
    answered(cluster, masks(0))
    with MaskReader(cluster, "s") as reader:
        answered(cluster, masks(1))
        assert list(reader) == [masks(0)]
        assert read_all(cluster, start=reader.offset) == [masks(1)]


def test_latest_leaves_out_what_was_answered_before(cluster):
    answered(cluster, masks(0))
    with MaskReader(cluster, "s", start="latest", follow=True) as reader:
        answered(cluster, masks(1))
        assert reader.read(10.0) == masks(1)


def test_following_gives_answers_as_they_are_committed_and_never_ends(cluster):
    with MaskReader(cluster, "s", follow=True) as reader:
        for index in range(3):
            answered(cluster, masks(index))
            assert reader.read(10.0) == masks(index)
        assert reader.read(0.3) is None
        assert not reader.ended


@pytest.mark.parametrize(("kind", "data", "said"), [("notice", b"\xc1", "msgpack"), ("", b"\x80", "kind"), ("end", None, "mask_frame")])
def test_an_answer_that_cannot_be_read_is_named_by_its_place(cluster, kind, data, said):
    answered(cluster, masks(0), ("s", kind, data or pack(End("s"))), masks(1))
    place = f"topic {cluster.topic('masks')}, partition {partition_of('s', PARTITIONS)}, offset 1: .*{said}"
    with MaskReader(cluster, "s") as reader:
        assert reader.read(5.0) == masks(0)
        with pytest.raises(BadRecord, match=place):
            reader.read(5.0)
        assert list(reader) == [masks(1)]


def test_answers_that_cannot_be_read_are_passed_over_when_somebody_takes_them(cluster):
    answered(cluster, masks(0), ("s", Kind.NOTICE, b"?"), masks(1))
    bad = []
    assert read_all(cluster, on_bad=bad.append) == [masks(0), masks(1)]
    assert ["offset 1" in str(error) for error in bad] == [True]


@pytest.mark.parametrize("start", ["first", -1, 1.5])
def test_a_start_that_is_none_is_refused(cluster, start):
    with pytest.raises(BadConfig, match=f"{start!r}, expected earliest, latest or an offset"):
        MaskReader(cluster, "s", start=start)


def test_an_offset_belongs_to_one_session(cluster):
    with pytest.raises(BadConfig, match="name a session"):
        MaskReader(cluster, None, start=3)


def test_a_start_behind_the_end_names_what_is_there(cluster):
    answered(cluster, masks(0))
    with pytest.raises(LogLost, match=r"offset 99 is never there.* holds 0 to 2"):
        MaskReader(cluster, "s", start=99)


def test_a_missing_topic_is_named_with_the_remedy(servers):
    with pytest.raises(BusFailed, match=r"none\.masks.*psalm-stream topics create"):
        MaskReader(open_cluster(servers.kafka.address, prefix="none."), "s")


def test_what_retention_deleted_is_named_with_what_is_left(cluster):
    answered(cluster, *map(masks, range(3)))
    with MaskReader(cluster, "s", follow=True) as reader, closing(cluster.admin()) as admin:
        admin.delete_records({TopicPartition(cluster.topic("masks"), partition_of("s", PARTITIONS)): 2})
        with pytest.raises(LogLost, match=r"offset 0 is deleted by retention.* holds 2 to 4; start at earliest"):
            reader.read(DEADLINE_S)
        with pytest.raises(LogLost, match=r"offset 1 is deleted by retention.* holds 2 to 4; start at earliest"):
            MaskReader(cluster, "s", start=1)


def test_a_damaged_record_is_found_by_its_checksum(cluster, servers):
    answered(cluster, masks(0))
    answered(cluster, masks(1, message="something to damage"))
    partition = partition_of("s", PARTITIONS)
    (log,) = (servers.kafka.data / f"{cluster.topic('masks')}-{partition}").glob("*.log")
    with log.open("r+b") as file:
        file.seek(file.read().index(b"something to damage"))
        file.write(b"S")
    with MaskReader(cluster, "s") as reader:
        assert reader.read(5.0) == masks(0)
        with pytest.raises(BadRecord, match=rf"masks.*partition={partition}.*offset 2 failed crc"):
            reader.read(5.0)


def test_a_reader_rides_out_a_broker_that_is_killed_and_started_again(cluster, broker):
    answered(cluster, masks(0))
    with MaskReader(cluster, "s", follow=True) as reader:
        assert reader.read(10.0) == masks(0)
        broker.kill()
        assert reader.read(3.0) is None
        broker.start()
        answered(cluster, masks(1))
        assert reader.read(DEADLINE_S) == masks(1)


def test_a_broker_that_stays_away_is_given_up_by_name(cluster, broker):
    with MaskReader(cluster, "s", follow=True) as reader:
        reader._tail.patience_s = 3.0
        broker.kill()
        with pytest.raises(BusFailed, match=rf"{broker.address}.*given up after 3 s"):
            reader.read(DEADLINE_S)

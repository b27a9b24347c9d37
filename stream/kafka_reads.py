"""Parts of a topic, read outside any group: where a partition begins and ends, and its committed records between two offsets.

Offsets have gaps, where transactions end and where records were aborted or compacted away: an end is reached by position, never by
counting. Members of a group are kafka_bus.py's, those who follow a topic kafka_tail.py's.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import closing

from kafka import TopicPartition, errors

from .bus import Record
from .errors import LogLost
from .kafka_client import Cluster, Consumer, named_errors, record_of

ANSWER_S = 5.0  # for an offset that is asked for
SLICE_S = 0.1  # of waiting for records
STALLED_S = 30.0  # without progress; a transaction is decided after 10
POLLED = 50  # records at most


def first_offset(consumer: Consumer, at: TopicPartition) -> int:
    """Of the records that are kept. Raises KafkaTimeoutError."""
    return consumer.beginning_offsets([at], timeout_ms=int(ANSWER_S * 1000))[at]


def end_offset(consumer: Consumer, at: TopicPartition) -> int:
    """Before the first record of an undecided transaction, for a consumer of committed records. Raises KafkaTimeoutError."""
    return ends(consumer, [at])[at]


def ends(consumer: Consumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """`end_offset` of each. Raises KafkaTimeoutError."""
    return consumer.end_offsets(list(partitions), timeout_ms=int(ANSWER_S * 1000))


def end_of_all(cluster: Cluster, topic: str, partition: int) -> int:
    """The end of a partition with undecided transactions: a commit is over before its records can be read. Raises BusFailed."""
    at = TopicPartition(cluster.topic(topic), partition)
    everything = cluster.consumer(isolation_level="read_uncommitted")
    with named_errors(f"ask for the end of {at.topic} {partition}"), closing(everything) as reader:
        return end_offset(reader, at)


def read(cluster: Cluster, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
    """The kept, committed records from offset `start` to before `end`; waits while one before it is undecided.

    Raises BusFailed; LogLost when records are deleted while they are read.
    """
    at = TopicPartition(cluster.topic(topic), partition)
    with named_errors(f"read topic {at.topic} {partition}"), closing(cluster.consumer(max_poll_records=POLLED)) as reader:
        reader.assign([at])
        reader.seek(at, max(start, first_offset(reader, at)))
        moved = time.monotonic()
        while (position := reader.position(at)) < end:
            try:
                messages = reader.poll(timeout_ms=int(SLICE_S * 1000)).get(at, ())
            except errors.OffsetOutOfRangeError as error:
                raise LogLost(f"topic {at.topic} {partition}: offset {position} was deleted while it was read, up to {end}") from error
            yield from (record_of(topic, message) for message in messages if message.offset < end)
            if reader.position(at) > position:
                moved = time.monotonic()
            elif time.monotonic() > moved + STALLED_S:
                raise errors.KafkaTimeoutError(f"at offset {position} of {end} for {STALLED_S:g} s")

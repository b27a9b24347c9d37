"""Answers written to a real broker as a worker's commit writes them, for tests of those who read them."""

import uuid
from contextlib import contextmanager

import numpy as np
from kafka.partitioner import murmur2
from psalm_stream.stream import rle
from psalm_stream.stream.codec import kind_of, pack
from psalm_stream.stream.kafka_client import headers
from psalm_stream.stream.types import FrameKey, FrameStatus, MaskFrame, Notice, NoticeKind, ObjectMask, ObjectStatus

SIZE_HW = (72, 96)


def mask_of(index):
    """A block that moves right by two pixels a frame."""
    mask = np.zeros(SIZE_HW, bool)
    mask[8:40, 2 * index % 48 : 2 * index % 48 + 40] = True
    return mask


def masks(index, session="s", view="main", status=FrameStatus.OK, **other):
    """The answer to frame `index`: object 1 is there, object 2 is not."""
    objects = (ObjectMask(1, "cup", ObjectStatus.SEEN, 0.75, rle.encode(mask_of(index))), ObjectMask(2, "", ObjectStatus.ABSENT, 0.0, None))
    key, t_ns = FrameKey(session, view, index), index * 40_000_000
    return MaskFrame(key, t_ns, other.pop("size_hw", SIZE_HW), status, objects, "sha256:00", ms={"model": 1.5}, **other)


def notice(kind=NoticeKind.APPLIED, session="s", view="main", message="prompt p"):
    return Notice(kind, session, view, None, message, ("frames", 0, 0))


def session_of(message):
    return message.session if hasattr(message, "session") else message.key.session


def partition_of(session, partitions):
    return (murmur2(session.encode()) & 0x7FFFFFFF) % partitions


@contextmanager
def transaction(cluster, partitions, end="commit_transaction"):
    """A function that sends messages, or (key, kind, bytes), to a topic in one transaction that ends as said."""
    producer = cluster.producer(transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    producer.begin_transaction()

    def send(topic, *messages):
        for message in messages:
            key, kind, data = message if isinstance(message, tuple) else (session_of(message), kind_of(message), pack(message))
            sent = producer.send(cluster.topic(topic), data, key.encode(), headers(kind), partition_of(key, partitions))
            producer.flush()
            sent.get(timeout=10)

    try:
        yield send
        getattr(producer, end)()
    finally:
        producer.close()


def commit(cluster, partitions, topic, *messages):
    with transaction(cluster, partitions) as send:
        send(topic, *messages)


def abort(cluster, partitions, topic, *messages):
    with transaction(cluster, partitions, "abort_transaction") as send:
        send(topic, *messages)

"""A log of its own on a real Kafka, for one test: its topics, its sources, its members, and what a subscriber reads of it."""

import time
import uuid
from itertools import count

from kafka import TopicPartition
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import headers, open_cluster, record_of
from psalm_stream.stream.kafka_topics import create_topics

SESSION_S = 6.0  # the least a broker takes
DEADLINE_S = 90.0  # on a machine that runs everything else, too
POLL_INTERVAL_S = 5.0  # a member that does not poll for so long is expelled


class KafkaLog:
    def __init__(self, servers, partitions=1):
        self.cluster = open_cluster(servers, prefix=f"t{uuid.uuid4().hex[:8]}.")
        self.partitions = partitions
        create_topics(self.cluster, partitions)
        self.source = self.cluster.producer()
        self.slots = count()
        self.opened = []
        self.subscriber = self.cluster.consumer()
        self.everything = self.cluster.consumer(isolation_level="read_uncommitted")
        self.masks = [TopicPartition(self.cluster.topic("masks"), p) for p in range(partitions)]
        self.subscriber.assign(self.masks)
        self.subscriber.seek_to_beginning()

    def append(self, session, kind, data, topic="frames", **more):
        """A record as a source sends it, accepted when this returns."""
        key = session.encode() if isinstance(session, str) else session
        self.source.send(self.cluster.topic(topic), data, key, headers(kind), **more).get(timeout=10)

    def join(self, **knobs):
        """A new member of the group."""
        slot = knobs.pop("slot", None) or str(next(self.slots))
        member = Member("group", slot, **{"max_poll_interval_s": POLL_INTERVAL_S, "session_timeout_s": SESSION_S} | knobs)
        self.opened.append(KafkaBus(self.cluster, member))
        return self.opened[-1]

    def answers(self):
        """Committed records of `masks` that were not seen yet; waits for transactions that are not decided."""
        ends = self.everything.end_offsets(self.masks)
        found = []
        while any(self.subscriber.position(at) < ends[at] for at in self.masks):
            for messages in self.subscriber.poll(timeout_ms=100).values():
                found += [record_of("masks", message) for message in messages]
        return found

    def close(self):
        for bus in self.opened:
            bus.close()
        self.source.abandon()
        self.subscriber.close()
        self.everything.close()


def poll_until(bus, done):
    """Poll until `done(gained, records)`; returns both."""
    gained, records, deadline = {}, [], time.monotonic() + DEADLINE_S
    while not done(gained, records):
        assert time.monotonic() < deadline, (gained, len(records))
        polled = bus.poll(8, 0.2)
        gained |= {claim.partition: claim for claim in polled.gained}
        records += polled.records
    return gained, records


def read(bus, count):
    return poll_until(bus, lambda gained, records: len(records) >= count)


def gain(bus, partitions=1):
    return poll_until(bus, lambda gained, records: len(gained) >= partitions)[0]

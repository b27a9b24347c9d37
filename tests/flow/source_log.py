"""A log with what a test says to its sources and what they published, and ingest workers in threads."""

import threading
import time
from contextlib import closing

from kafka import OffsetAndMetadata, TopicPartition
from kafka_log import KafkaLog
from psalm_stream.stream.codec import Kind, pack, unpack
from psalm_stream.stream.kafka_client import record_of
from psalm_stream.stream.kafka_sources import home
from psalm_stream.workers.health import Flow
from psalm_stream.workers.ingest import IngestMetrics, IngestWorker, turn_until

GROUP = "psalm-segment"
ALL = 1 << 40  # behind every offset


class SourceTestLog(KafkaLog):
    """A log, what a reader of its committed frames has found so far, and what can be said to it."""

    def __init__(self, servers):
        super().__init__(servers, partitions=2)
        self.reader = self.cluster.consumer()
        self.reader.assign([TopicPartition(self.cluster.topic("frames"), p) for p in range(self.partitions)])
        self.reader.seek_to_beginning()
        self.messages = []

    def read(self, timeout_s=0.0):
        for found in self.reader.poll(timeout_ms=int(timeout_s * 1000), max_records=500).values():
            self.messages += [unpack(r.kind, r.data) for r in (record_of("frames", message) for message in found)]
        return self.messages

    def until(self, enough, timeout_s=180.0):
        """All messages so far, once `enough` says so of them."""
        deadline = time.monotonic() + timeout_s
        while not enough(self.messages):
            assert time.monotonic() < deadline, self.messages[-5:]
            self.read(0.1)
        return self.messages

    def want(self, wanted):
        self.append(wanted.name, Kind.WANTED, pack(wanted), "ingest", partition=home(wanted.session, self.partitions))

    def stop(self, session, view):
        self.append(f"{session}/{view}", Kind.WANTED, None, "ingest", partition=home(session, self.partitions))

    def answered(self, session, offset=ALL):
        """Say for the segment workers that everything before an offset is answered."""
        at = TopicPartition(self.cluster.topic("frames"), home(session, self.partitions))
        with closing(self.cluster.consumer(group_id=self.cluster.topic(GROUP))) as consumer:
            consumer.commit({at: OffsetAndMetadata(offset, "", -1)})

    def close(self):
        self.reader.close()
        super().close()


class Stop(threading.Event):
    """The stop of a worker that is a thread of the test."""

    asked = property(threading.Event.is_set)


class IngestThreads:
    """Ingest workers of a log, each in a thread of its own."""

    def __init__(self, log):
        self.log, self.stop, self.workers, self.threads = log, Stop(), [], []

    def start(self):
        worker = IngestWorker(self.log.cluster, self.log.cluster.topic(GROUP), f"worker-{len(self.workers)}", IngestMetrics())
        self.workers.append(worker)
        self.threads.append(threading.Thread(target=turn_until, args=(self.stop, worker, Flow(60.0))))
        self.threads[-1].start()
        return worker

    def close(self):
        self.stop.set()
        for thread, worker in zip(self.threads, self.workers, strict=True):
            thread.join()
            worker.close()

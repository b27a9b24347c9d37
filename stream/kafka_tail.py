"""Tail: the committed records of a topic, read by one consumer without a group, for subscribers and tools.

It looks and changes nothing: no offset is committed, nobody waits for it. A broker that restarts is waited for; the members of the group
that answers `frames` are kafka_bus.py's, what the records mean is reader.py's.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from kafka import TopicPartition, errors
from kafka.partitioner import murmur2

from .bus import Record
from .errors import BadConfig, BadRecord, BusFailed, LogLost
from .kafka_client import Cluster, named_errors, record_of

log = logging.getLogger(__name__)

EARLIEST, LATEST = "earliest", "latest"
ANSWER_S = 2.0  # for an offset that is asked for while reading; at the start the client's own timeout counts
IDLE_S = 2.0  # without a record, after which the broker is asked whether it is still there
SLICE_S = 0.5  # of a poll
POLLED = 50  # records at most: of 1080p JPEGs that is 25 MB
CLOSE_S = 2.0


class Tail:
    """The records of a key's partition, or of all partitions, from `start` on, in log order per partition; a context manager.

    start: earliest, latest, or an offset (of a key's partition alone). patience_s: how long a broker may be away.
    Raises BusFailed, LogLost for an offset that is not kept, BadConfig for a start that is none.
    """

    patience_s = 60.0

    def __init__(self, cluster: Cluster, topic: str, key: str | None = None, start: str | int = EARLIEST) -> None:
        self.topic, self.name, self._servers = topic, cluster.topic(topic), cluster.servers
        if start not in (EARLIEST, LATEST) and (not isinstance(start, int) or start < 0 or key is None):
            whole = "" if key is not None else "; an offset belongs to one partition, name a session"
            raise BadConfig(f"start of topic {self.name} is {start!r}, expected {EARLIEST}, {LATEST} or an offset from 0{whole}")
        self._consumer = cluster.consumer(max_poll_records=POLLED)
        self._heard = time.monotonic()  # of the broker, while polling
        self._failing: dict[str, float] = {}  # what, and since when
        try:
            with named_errors(f"read topic {self.name} at {cluster.servers}"):
                self._begin(key, start)
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float) -> list[Record]:
        """The next records, an empty list when none came in time. Raises BusFailed for a broker that is away for too long, LogLost,
        and BadRecord for bytes that do not have their checksum."""
        until = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, until - time.monotonic())
            try:
                with named_errors(f"read topic {self.name} at {self._servers}"):
                    found = self._consumer.poll(timeout_ms=int(min(left_s, SLICE_S) * 1000))
                self._failing.pop("poll", None)
            except BusFailed as failed:
                self._judge("poll", failed)
                time.sleep(min(left_s, SLICE_S))
                found = {}
            if found:
                self._heard = time.monotonic()
                return [record_of(self.topic, message) for messages in found.values() for message in messages]
            if time.monotonic() - self._heard > IDLE_S:
                self._ask()  # a broker that is away looks to the client's poll like one without news
            if time.monotonic() >= until:
                return []

    @property
    def positions(self) -> dict[int, int]:
        """Per partition the offset that is read next."""
        return {at.partition: self._consumer.position(at) for at in self._at}

    def ends(self) -> dict[int, int]:
        """Per partition the stable end: before the first record that is not decided yet, or after the last. Raises BusFailed."""
        while (found := self._ask()) is None:
            pass
        return found

    def close(self) -> None:
        """Let go of the broker. May be called twice."""
        with suppress(errors.KafkaError):
            self._consumer.close(timeout_ms=int(CLOSE_S * 1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _begin(self, key: str | None, start: str | int) -> None:
        if not (partitions := self._consumer.partitions_for_topic(self.name)):
            raise errors.UnknownTopicOrPartitionError(self.name)
        home = partitions if key is None else {(murmur2(key.encode()) & 0x7FFFFFFF) % len(partitions)}
        self._at = [TopicPartition(self.name, partition) for partition in sorted(home)]
        self._consumer.assign(self._at)
        first, end = self._consumer.beginning_offsets(self._at), self._consumer.end_offsets(self._at)
        for at in self._at:
            offset = {EARLIEST: first, LATEST: end}[start][at] if isinstance(start, str) else start
            if not first[at] <= offset <= end[at]:
                raise self._lost(at, offset, first[at], end[at])
            self._consumer.seek(at, offset)

    def _ask(self) -> dict[int, int] | None:
        """The ends, or None when the broker did not answer in time, which it may not do for longer than patience lasts."""
        try:
            with named_errors(f"read topic {self.name} at {self._servers}"):
                found = self._consumer.end_offsets(self._at, timeout_ms=int(ANSWER_S * 1000))
        except BusFailed as failed:
            self._judge("ends", failed)
            return None
        self._failing.pop("ends", None)
        self._heard = time.monotonic()
        return {at.partition: offset for at, offset in found.items()}

    def _judge(self, doing: str, failed: BusFailed) -> None:
        """Go on after an error that may pass by itself, until patience ends; raise any other."""
        cause = failed.__cause__
        if isinstance(cause, errors.OffsetOutOfRangeError | errors.LogTruncationError):
            self._raise_lost(failed)
        if isinstance(cause, errors.CorruptRecordError):
            raise BadRecord(f"{failed} (next offsets {self.positions}); the broker's copy is damaged, start behind it") from cause
        if not cause.retriable:
            raise failed
        if doing not in self._failing:
            self._failing[doing] = time.monotonic()
            log.warning("%s; trying for %g s", failed, self.patience_s)
        if time.monotonic() - self._failing[doing] > self.patience_s:
            raise BusFailed(f"{failed}; given up after {self.patience_s:g} s of this") from cause

    def _raise_lost(self, failed: BusFailed) -> None:
        first, end = self._consumer.beginning_offsets(self._at), self._consumer.end_offsets(self._at)
        for at in self._at:
            if not first[at] <= (wanted := self._consumer.position(at)) <= end[at]:
                raise self._lost(at, wanted, first[at], end[at]) from failed
        raise failed

    def _lost(self, at: TopicPartition, wanted: int, first: int, end: int) -> LogLost:
        said = "deleted by retention" if wanted < first else "never there, or the topic was made anew"
        return LogLost(
            f"topic {self.name}, partition {at.partition}: offset {wanted} is {said}, it holds {first} to {end}; start at {EARLIEST}, "
            "or at one of these"
        )

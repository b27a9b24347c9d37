"""Endings: the markers of ended transactions that a broker forgot when it was killed and came back.

A transaction is decided in its coordinator's log, then marked in every partition it wrote to. A broker that is killed between the two
and comes back with nobody to take over takes its partitions for deleted while it registers, skips their markers, and files the
transaction as complete (Kafka 4.3.0 and 4.3.1, every second or third time). Records and positions then stay undecided for good. What is
missing is written here, as it was decided, before the producer that knows the transactional id goes on.
Source: KIP-664, which lets an administrator write markers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import AbortTransactionSpec, ProducerState, TransactionDescription, TransactionState

from .errors import PsalmStreamError
from .kafka_client import CONNECT_TIMEOUT_S, Cluster, Producer

log = logging.getLogger(__name__)
T = TypeVar("T")

OFFSETS = "__consumer_offsets"
SOURCE = "psalm-source-"  # begins the transactional id of one
ENDED = {TransactionState.COMPLETE_COMMIT: True, TransactionState.COMPLETE_ABORT: False}  # whether it was committed
ENDING = {TransactionState.PREPARE_COMMIT: True, TransactionState.PREPARE_ABORT: False, TransactionState.PREPARE_EPOCH_FENCE: False}
NOT_KNOWN = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailedError,
    errors.UnsupportedVersionError,
    errors.IncompatibleBrokerVersion,
)
RETRY_S = 0.1


def open_producer(cluster: Cluster, transactional_id: str, timeout_s: float, topics: Collection[str], **knobs: object) -> Producer:
    """A producer whose predecessor is fenced, and whose predecessor's last transaction is over in every partition of `topics`.

    timeout_s: until the broker ends a transaction by itself. Raises BusFailed, and what the client raises.
    """
    producer = cluster.producer(transactional_id=transactional_id, transaction_timeout_ms=int(timeout_s * 1000), **knobs)
    try:
        with closing(cluster.admin(_Admin)) as admin:
            last, at, hanging = None, [], False
            with _told_if_not_known(transactional_id):  # before the coordinator forgets the outcome
                if last := _last_ended(admin, transactional_id):
                    at = [TopicPartition(topic, p) for topic in topics for p in producer.partitions_for(topic) or ()]
                    hanging = any(open_one.producer_id == last.producer_id for _, open_one in _undecided(admin, at))
            producer.init_transactions()  # from here on nobody else writes under this id
            if hanging:
                with _told_if_not_known(transactional_id):
                    _end(admin, transactional_id, last, at)
    except BaseException:
        producer.abandon()
        raise
    return producer


def end_for_others(cluster: Cluster, prefix: str, timeout_s: float, topics: Collection[str]) -> None:
    """The same for every transactional id that begins with `prefix`: its owner may never come back. One who does is fenced.

    Says so where that cannot be found out, and raises nothing.
    """
    try:
        with closing(cluster.admin(_Admin)) as admin, closing(cluster.consumer()) as reader:
            at = [TopicPartition(topic, p) for topic in topics for p in reader.partitions_for_topic(topic) or ()]
            if not (before := _open_places(admin, at)):
                return
            listed = admin.list_transactions(producer_id_filters={producer_id for _, producer_id, _ in before})
            hanging = {producer_id for _, producer_id, _ in before & _open_places(admin, at)}  # open before it was ended, and after
        for found in (found for of_a_broker in listed.values() for found in of_a_broker):
            if found.transactional_id.startswith(prefix) and found.state in ENDED and found.producer_id in hanging:
                open_producer(cluster, found.transactional_id, timeout_s, topics).abandon()
    except (errors.KafkaError, PsalmStreamError) as error:
        log.warning("whether a transaction of %s* hangs is not known: %s", prefix, error)


class _Admin(KafkaAdminClient):
    """Ends transactions either way; the client knows aborting alone."""

    committed = False

    def _abort_transaction_request(self, spec: AbortTransactionSpec) -> object:
        request = super()._abort_transaction_request(spec)
        request.markers[0].transaction_result = self.committed
        return request


@contextmanager
def _told_if_not_known(transactional_id: str) -> Iterator[None]:
    try:
        yield
    except NOT_KNOWN as error:
        log.warning(
            "whether the last transaction of %s is marked everywhere is not known: %s; allow Read of its topics and Alter of the cluster, "
            "on brokers from 3.0 on",
            transactional_id,
            error,
        )


def _last_ended(admin: KafkaAdminClient, transactional_id: str) -> TransactionDescription | None:
    """The last transaction of an id, if it is decided; None: there was none, or it is open."""

    def described() -> TransactionDescription | None:
        try:
            return admin.describe_transactions([transactional_id])[transactional_id]
        except errors.TransactionalIdNotFoundError:
            return None

    until = time.monotonic() + CONNECT_TIMEOUT_S
    while (last := _patiently(described)) is not None and last.state in ENDING and time.monotonic() < until:
        time.sleep(RETRY_S)
    return last if last is not None and last.state in ENDED | ENDING else None


def _undecided(admin: KafkaAdminClient, partitions: Collection[TopicPartition]) -> list[tuple[TopicPartition, ProducerState]]:
    """The partitions with an open transaction, and the state of its producer there."""
    found = _patiently(lambda: admin.describe_producers(partitions))
    return [(at, p) for at, state in found.items() for p in state.active_producers if p.current_transaction_start_offset >= 0]


def _open_places(admin: KafkaAdminClient, partitions: Collection[TopicPartition]) -> set[tuple[TopicPartition, int, int]]:
    """The same as partition, number of the producer, and the offset at which its transaction begins."""
    return {(at, p.producer_id, p.current_transaction_start_offset) for at, p in _undecided(admin, partitions)}


def _end(admin: _Admin, transactional_id: str, last: TransactionDescription, partitions: Collection[TopicPartition]) -> None:
    """Write the markers that are missing. The id is ours and idle: what is open under its number is its last transaction."""
    now = _patiently(lambda: admin.describe_transactions([transactional_id]))[transactional_id]
    if (now.producer_id, now.producer_epoch) != (last.producer_id, last.producer_epoch + 1):
        log.error("%s had another transaction meanwhile; what hangs of the one before is left to kafka-transactions.sh", transactional_id)
        return
    admin.committed = (ENDED | ENDING)[last.state]
    said = f"the last transaction of {transactional_id}, {'committed' if admin.committed else 'aborted'}"
    for at, producer in _undecided(admin, partitions):
        if producer.producer_id == now.producer_id:
            log.warning("%s, was never marked in %s %d, as after a broker's death; it is now", said, at.topic, at.partition)
            spec = AbortTransactionSpec(at, now.producer_id, now.producer_epoch, max(0, producer.coordinator_epoch))
            _patiently(lambda spec=spec: admin.abort_transaction(spec))


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again while a broker or coordinator is on its way up."""
    until = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            return ask()
        except errors.KafkaError as error:
            if not error.retriable or time.monotonic() > until:
                raise
        time.sleep(RETRY_S)

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
from collections.abc import Collection, Iterable
from contextlib import closing

from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import AbortTransactionSpec, TransactionState

from .kafka_client import CONNECT_TIMEOUT_S, Cluster, Producer

log = logging.getLogger(__name__)

OFFSETS = "__consumer_offsets"
SOURCE = "psalm-source-"  # begins the transactional id of one
ENDED = {TransactionState.COMPLETE_COMMIT: True, TransactionState.COMPLETE_ABORT: False}
ENDING = (TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT, TransactionState.PREPARE_EPOCH_FENCE)
NOT_ALLOWED = (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError)
RETRY_S = 0.1


def open_producer(cluster: Cluster, transactional_id: str, timeout_s: float, topics: Collection[str], **knobs: object) -> Producer:
    """A producer whose predecessor is fenced, and whose predecessor's last transaction is over in every partition of `topics`.

    timeout_s: until the broker ends a transaction by itself. Raises BusFailed, and what the client raises.
    """
    producer = cluster.producer(transactional_id=transactional_id, transaction_timeout_ms=int(timeout_s * 1000), **knobs)
    try:
        with closing(cluster.admin(_Admin)) as admin:
            committed = _last_outcome(admin, transactional_id)
            producer.init_transactions()  # from here on nobody else writes under this id
            if committed is not None:
                at = [TopicPartition(topic, p) for topic in topics for p in producer.partitions_for(topic) or ()]
                _end(admin, transactional_id, committed, at)
    except BaseException:
        producer.abandon()
        raise
    return producer


def end_for_others(cluster: Cluster, prefix: str, timeout_s: float, topics: Collection[str]) -> None:
    """The same for every transactional id that begins with `prefix`: its owner may never come back. One who does is fenced.

    Raises BusFailed, and what the client raises.
    """
    with closing(cluster.admin(_Admin)) as admin, closing(cluster.consumer()) as reader:
        at = [TopicPartition(topic, p) for topic in topics for p in reader.partitions_for_topic(topic) or ()]
        producers = {producer.producer_id for _, producer in _undecided(admin, at)}
        listed = admin.list_transactions(producer_id_filters=producers) if producers else {}
    for found in (found for of_a_broker in listed.values() for found in of_a_broker):
        if found.transactional_id.startswith(prefix) and found.state in ENDED:
            open_producer(cluster, found.transactional_id, timeout_s, topics).abandon()


class _Admin(KafkaAdminClient):
    """Ends transactions either way; the client knows aborting alone."""

    committed = False

    def _abort_transaction_request(self, spec: AbortTransactionSpec) -> object:
        request = super()._abort_transaction_request(spec)
        request.markers[0].transaction_result = self.committed
        return request


def _last_outcome(admin: KafkaAdminClient, transactional_id: str) -> bool | None:
    """Whether the last transaction was committed (True) or aborted (False); None: there was none, or it is not decided."""
    until = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            state = admin.describe_transactions([transactional_id])[transactional_id].state
            if state not in ENDING:
                return ENDED.get(state)
        except errors.TransactionalIdNotFoundError:
            return None
        except errors.KafkaError as error:  # the coordinator loads after a restart
            if not error.retriable or time.monotonic() > until:
                raise
        if time.monotonic() > until:
            return None  # `init_transactions` waits for its end
        time.sleep(RETRY_S)


def _undecided(admin: KafkaAdminClient, partitions: Iterable[TopicPartition]) -> list[tuple[TopicPartition, object]]:
    """The partitions with an open transaction, and the state of its producer there."""
    found = admin.describe_producers(partitions)
    return [(at, p) for at, state in found.items() for p in state.active_producers if p.current_transaction_start_offset >= 0]


def _end(admin: _Admin, transactional_id: str, committed: bool, partitions: Iterable[TopicPartition]) -> None:
    """Write the markers that are missing. The id is ours and idle: what is open under its number is its last transaction."""
    now = admin.describe_transactions([transactional_id])[transactional_id]
    admin.committed = committed
    said = f"the last transaction of {transactional_id}, {'committed' if committed else 'aborted'}"
    try:
        for at, producer in _undecided(admin, partitions):
            if producer.producer_id == now.producer_id:
                log.warning("%s, was never marked in %s %d, as after a broker's death; it is now", said, at.topic, at.partition)
                admin.abort_transaction(AbortTransactionSpec(at, now.producer_id, now.producer_epoch, max(0, producer.coordinator_epoch)))
    except NOT_ALLOWED as error:
        log.warning("whether %s, is marked everywhere is not known: %s; allow Read of its topics and Alter of the cluster", said, error)

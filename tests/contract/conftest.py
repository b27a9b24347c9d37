"""The transports the contract suite runs over, each as a factory: another one joins by adding its factory to the table."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from kafka_log import KafkaLog
from psalm_stream.stream.bus import Bus, MemoryBus, MemoryLog, Record
from psalm_stream.stream.redis_store import RedisStore
from psalm_stream.stream.store import MemoryStore, Store


@dataclass
class Broker:
    """A log under test.

    append: as a source does; join: a new member of the group; answers: committed, not seen yet. shares: whether members who poll share
    the partitions; else the last one to join holds all of them.
    """

    append: Callable[[str, str, bytes], None]
    join: Callable[[], Bus]
    answers: Callable[[], list[Record]]
    shares: bool


def memory_brokers(request) -> Callable[[int], Broker]:
    def fresh(partitions: int) -> Broker:
        log = MemoryLog(partitions, retention=1000)
        return Broker(
            append=lambda session, kind, data: log.append("frames", session, kind, data),
            join=lambda: MemoryBus(log),
            answers=lambda: log.take("masks"),
            shares=False,
        )

    return fresh


def kafka_brokers(request) -> Callable[[int], Broker]:
    servers = request.getfixturevalue("servers")

    def fresh(partitions: int) -> Broker:
        log = KafkaLog(servers.kafka.address, partitions)
        request.addfinalizer(log.close)
        return Broker(append=log.append, join=log.join, answers=log.answers, shares=True)

    return fresh


def memory_stores(request) -> Callable[[], Store]:
    return MemoryStore


def redis_stores(request) -> Callable[[], Store]:
    servers = request.getfixturevalue("servers")

    def fresh() -> RedisStore:
        store = RedisStore(servers.redis_url, f"cluster/{uuid.uuid4().hex}/group")
        request.addfinalizer(store.close)
        return store

    return fresh


BROKERS = {"memory": memory_brokers, "kafka": kafka_brokers}
STORES = {"memory": memory_stores, "redis": redis_stores}


@pytest.fixture(params=BROKERS)
def broker_factory(request) -> Callable[[int], Broker]:
    """partitions -> a fresh log."""
    return BROKERS[request.param](request)


@pytest.fixture(params=STORES)
def store_factory(request) -> Callable[[], Store]:
    """A fresh, empty store."""
    return STORES[request.param](request)

"""The transports the contract suite runs over, each as a factory: another one joins by adding its factory to the table."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from psalm_stream.stream.bus import Bus, MemoryBus, MemoryLog, Record
from psalm_stream.stream.store import MemoryStore, Store


@dataclass
class Broker:
    """A log under test. append: as a source does; join: a new member of the group; answers: committed, not seen yet."""

    append: Callable[[str, str, bytes], None]
    join: Callable[[], Bus]
    answers: Callable[[], list[Record]]


def memory_broker(partitions: int) -> Broker:
    log = MemoryLog(partitions)
    return Broker(
        append=lambda session, kind, data: log.append("frames", session, kind, data),
        join=lambda: MemoryBus(log),
        answers=lambda: log.take("masks"),
    )


BROKERS = {"memory": memory_broker}
STORES = {"memory": MemoryStore}


@pytest.fixture(params=BROKERS)
def broker_factory(request) -> Callable[[int], Broker]:
    """partitions -> a fresh log."""
    return BROKERS[request.param]


@pytest.fixture(params=STORES)
def store_factory(request) -> Callable[[], Store]:
    """A fresh, empty store."""
    return STORES[request.param]

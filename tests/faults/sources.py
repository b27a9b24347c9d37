"""The sources of a run that has its own killed: the product's way into the log, a SourceLog for each session, with points to die at.

Whoever publishes goes on where the position of each session says that its predecessor was; the story is the same for both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import groupby
from multiprocessing.connection import Connection

from psalm_stream.stream.codec import unpack
from psalm_stream.stream.kafka_client import Cluster
from psalm_stream.stream.kafka_sources import SourceLog
from story import NO_RECORD, Entry, story
from worker import Fault, Tell, Trap, WatchedCluster

VIEW = "main"
LARGEST = 12  # entries of the story that are sent together, a transaction for each session among them


def transactions(rng: random.Random) -> list[tuple[Entry, ...]]:
    """The story, cut by lot into what is sent at once; without what is no message, which no source can send."""
    told = [entry for entry in story() if entry[2] != NO_RECORD]
    found = []
    while told:
        count = rng.randint(1, LARGEST)
        together, told = sorted(told[:count], key=lambda entry: entry[0]), told[count:]
        found += [tuple(entries) for _, entries in groupby(together, key=lambda entry: entry[0])]
    return found


def publish(cluster: Cluster, told: Sequence[tuple[Entry, ...]]) -> None:
    """Send what is not there yet."""
    with ExitStack() as stack:
        logs, positions, before = {}, {}, Counter()
        for entries in told:
            session = entries[0][0]
            if session not in logs:
                logs[session] = stack.enter_context(closing(SourceLog(cluster, session, VIEW)))
                positions[session] = logs[session].position()
            new = entries[max(0, positions[session].taken - before[session]) :]
            before[session] += len(entries)
            if new:
                messages = [unpack(kind, data) for _, kind, data in new]
                positions[session] = logs[session].publish(messages, replace(positions[session], taken=before[session]))


def publish_until_killed(cluster: Cluster, told: Sequence[tuple[Entry, ...]], fault: Fault, runner: Connection) -> None:
    """The life of a source, in a process of its own."""
    watched = WatchedCluster(cluster.servers, cluster.prefix).watch(Trap((fault,), Tell(runner)))
    publish(watched, told)

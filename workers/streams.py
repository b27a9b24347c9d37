"""What is said to running streams, and what they look like from outside: `psalm-stream ingest`, `stop`, `prompt` and `streams`
without their screen.

Everything goes through the log: no process is called. Running sources is ingest.py's, answering segment.py's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from ..stream.bus import FRAMES, MASKS
from ..stream.codec import End, Kind, kind_of, pack, unpack
from ..stream.errors import BadConfig, BadRecord, LogLost
from ..stream.kafka_client import Cluster, headers, named_errors
from ..stream.kafka_sources import GROUP, Backlog, home
from ..stream.kafka_tail import EARLIEST, LATEST, Tail
from ..stream.kafka_topics import INGEST, POSITIONS
from ..stream.reader import MaskReader
from ..stream.types import MaskFrame, Notice, NoticeKind, ObjectMask, Prompt
from ..stream.wanted import Position, Wanted

SEND_S = 10.0
LAST_ANSWERS = 300  # of a partition of `masks`, among which the latest masks of a view are looked for
FAR = 1 << 62  # behind any offset


@dataclass(frozen=True, slots=True)
class Stream:
    """A source as it runs. worker: "" when nobody holds its partition; fps: published; lag: offsets not answered; last: newest masks."""

    wanted: Wanted
    partition: int
    worker: str
    position: Position | None
    fps: float
    lag: int
    objects: tuple[ObjectMask, ...]


def want(cluster: Cluster, wanted: Wanted) -> None:
    """Say that a source is to run, from now on and whichever worker runs it. Raises BusFailed."""
    _send(cluster, INGEST, wanted.name, wanted.session, Kind.WANTED, pack(wanted))


def stop(cluster: Cluster, session: str, view: str | None, wait_s: float) -> tuple[list[str], list[str]]:
    """Stop a session's sources, or one of them, and forget what was tracked.

    Returns the views that were stopped, and those of them that no ingest worker has confirmed within wait_s. Raises BusFailed.
    """
    views = [w.view for w in wanted_now(cluster).values() if w.session == session and view in (None, w.view)]
    for name in views:
        _send(cluster, INGEST, f"{session}/{name}", session, Kind.WANTED, None)
    waiting = _until_stopped(cluster, session, views, wait_s)
    if view is None:
        _send(cluster, FRAMES, session, session, Kind.END, pack(End(session)))
    return views, waiting


def prompt(cluster: Cluster, said: Prompt, wait_s: float) -> Iterator[Notice | MaskFrame]:
    """Send a prompt and yield what becomes of it: the notice that answers it, then, if it applies, the masks of the frame it applies to.

    Ends early when an answer takes longer than wait_s. Raises BusFailed.
    """
    until = time.monotonic() + wait_s
    with MaskReader(cluster, said.key.session, start=LATEST, follow=True) as answers:
        partition, offset = _send(cluster, FRAMES, said.key.session, said.key.session, kind_of(said), pack(said))
        applied = False
        while (left_s := until - time.monotonic()) > 0:
            answer = answers.read(left_s)
            if isinstance(answer, Notice) and answer.record == (FRAMES, partition, offset):
                yield answer
                applied = answer.kind == NoticeKind.APPLIED
                if not applied:
                    return
            elif applied and isinstance(answer, MaskFrame) and answer.key.view == said.key.view:
                yield answer
                return


def wanted_now(cluster: Cluster) -> dict[str, Wanted]:
    """What is wanted of every source, by session/view. Raises BusFailed."""
    return _table(cluster, INGEST, Kind.WANTED)


def positions_now(cluster: Cluster) -> dict[str, Position]:
    """Up to where every source is published, by session/view. Raises BusFailed."""
    return _table(cluster, POSITIONS, Kind.POSITION)


def streams(cluster: Cluster, segment_group: str, measure_s: float = 2.0) -> list[Stream]:
    """Every wanted source as it runs now, its rate measured for measure_s. Raises BusFailed."""
    wanted = wanted_now(cluster)
    before, began = positions_now(cluster), time.monotonic()
    objects = {name: _objects(cluster, w.session, w.view) for name, w in wanted.items()}
    workers = _workers(cluster)
    time.sleep(max(0.0, began + measure_s - time.monotonic()))
    after, passed_s = positions_now(cluster), time.monotonic() - began
    found = []
    with closing(Backlog(cluster, segment_group)) as backlog:
        counts = {topic: _partitions(cluster, topic) for topic in (INGEST, FRAMES)}
        for name, w in sorted(wanted.items()):
            partition, position = home(w.session, counts[INGEST]), after.get(name)
            published = position.index - (before[name].index if name in before else -1) if position else 0
            lag = max(0, backlog.ahead(home(w.session, counts[FRAMES]), FAR))
            found.append(Stream(w, partition, workers.get(partition, ""), position, published / passed_s, lag, objects[name]))
    return found


def _until_stopped(cluster: Cluster, session: str, views: list[str], wait_s: float) -> list[str]:
    """Wait until no view has a run any more; the views that still have one."""
    until = time.monotonic() + wait_s
    while True:
        known = positions_now(cluster)
        waiting = [view for view in views if (at := known.get(f"{session}/{view}")) and at.run]
        if not waiting or time.monotonic() > until:
            return waiting
        time.sleep(0.2)


def _objects(cluster: Cluster, session: str, view: str) -> tuple[ObjectMask, ...]:
    """The objects of a view's latest masks, of those among the last answers of its partition."""
    with Tail(cluster, MASKS, session, LATEST) as tail:
        (end,) = tail.ends().values()
    try:
        tail = Tail(cluster, MASKS, session, max(0, end - LAST_ANSWERS))
    except LogLost:
        tail = Tail(cluster, MASKS, session, EARLIEST)
    with tail:
        found = [r for r in _all(tail) if r.key == session and r.kind == Kind.MASK_FRAME]
    answers = (unpack(r.kind, r.data) for r in reversed(found))
    return next((answer.objects for answer in answers if answer.key.view == view), ())


def _workers(cluster: Cluster) -> dict[int, str]:
    """Which ingest worker holds a partition, by the name it gave itself."""
    group, topic = cluster.topic(GROUP), cluster.topic(INGEST)
    with named_errors(f"ask for the members of group {group}"), closing(cluster.admin()) as admin:
        members = admin.describe_groups([group])[group]["members"]
    return {
        partition: member["client_id"]
        for member in members
        for assigned in (member["member_assignment"] or {}).get("assigned_partitions", ())
        if assigned["topic"] == topic
        for partition in assigned["partitions"]
    }


def _table(cluster: Cluster, topic: str, kind: Kind) -> dict:
    found: dict[str, bytes | None] = {}
    with Tail(cluster, topic) as tail:
        for record in _all(tail):
            found[record.key] = record.data
    return {name: noun for name, data in found.items() if data is not None and (noun := _readable(kind, data)) is not None}


def _readable(kind: Kind, data: bytes) -> Wanted | Position | None:
    try:
        return unpack(kind, data)
    except BadRecord:
        return None  # the worker that owns it says so in its log


def _all(tail: Tail) -> Iterator:
    """The records up to where the topic ends now."""
    ends = tail.ends()
    while _before(tail.positions, ends):
        yield from tail.poll(0.2)


def _before(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return any(position < ends[partition] for partition, position in positions.items())


def _partitions(cluster: Cluster, topic: str) -> int:
    name = cluster.topic(topic)
    with named_errors(f"ask for the partitions of topic {name}"), closing(cluster.admin()) as admin:
        (found,) = admin.describe_topics([name])
    if found["error_code"]:
        raise BadConfig(f"topic {name} does not exist on Kafka at {cluster.servers}; psalm-stream topics create")
    return len(found["partitions"])


def _send(cluster: Cluster, topic: str, key: str, session: str, kind: Kind, data: bytes | None) -> tuple[int, int]:
    """Put a record where those of its session lie, and return partition and offset once it is accepted."""
    partition, name = home(session, _partitions(cluster, topic)), cluster.topic(topic)
    producer = cluster.producer()
    try:
        with named_errors(f"send a {kind} to topic {name}"):
            accepted = producer.send(name, data, key.encode(), headers(kind), partition).get(timeout=SEND_S)
    finally:
        producer.abandon()
    return accepted.partition, accepted.offset

"""The segment worker: the one loop between the log and the model, the same in one process and on a cluster.

A turn takes a prefix of what the log holds, answers it in batches of at most one record a session, and ends in one checkpoint. Nothing
leaves the process before that; whatever goes wrong on the way, the worker forgets the turn and starts from what is committed.
Answers are answering.py's, transport is stream/bus.py's, memory between turns stream/store.py's.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..psalm.tracker import Rules
from ..stream.bus import ENVELOPE, LARGEST_STATE, MASKS, STATE, Bus, Claim, Polled, Record
from ..stream.codec import Kind, kind_of, pack, unpack
from ..stream.errors import BadRecord, StoreLost
from ..stream.store import StateVersion, Store
from ..stream.types import TrackState
from .answering import Answered, Answerer, Model, packed_answer
from .heap import give_back
from .rebuild import Rebuild
from .settings import Settings

log = logging.getLogger(__name__)
TRIMMED_EVERY = 8  # records
POLL_S = 0.2  # a poll waits no longer for the first record
LAST_TURNS = 0.3  # weight of the newest turn in a running mean


@dataclass(frozen=True, slots=True)
class Change:
    """A session's state after a record of this turn, not committed yet. state None: it has ended; keep: it is due in topic `state`."""

    record: Record
    state: TrackState | None
    keep: bool


class SegmentWorker:
    """Answers the records of every session of the partitions its bus holds.

    now: the clock that tells a late frame; on_commit, to be set: is told what each turn answered once it is committed.
    """

    def __init__(
        self, bus: Bus, store: Store, model: Model, rules: Rules, settings: Settings, now: Callable[[], float] = time.time
    ) -> None:
        self.bus, self.store, self.settings = bus, store, settings
        self.answerer = Answerer(model, rules, bus.partition_of, settings.max_lag_s, now)
        self.repeater = Answerer(model, rules, bus.partition_of)
        self.claims: dict[int, Claim] = {}
        self.rebuilds: dict[int, Rebuild] = {}
        self.unreadable: set[int] = set()  # partitions with a state in the store that makes no sense
        self.states: dict[str, TrackState] = {}  # as committed; the least recently changed first
        self.changes: dict[str, Change] = {}  # of this turn
        self.steps: list[Answered] = []  # of this turn
        self.record_s = 0.0  # of one that asks the model, running mean
        self.untrimmed = 0  # records since memory was given back
        self.failed = False  # the last turn did
        self.on_commit: Callable[[Sequence[Answered]], None] = lambda steps: None

    def turn(self) -> int:
        """Answer a prefix of what the log holds, then one checkpoint. Returns how many records that were.

        After any exception the turn has not happened: the next one starts from what is committed.
        """
        try:
            if self.failed:
                self._forget()
            self._rebuild()
            while (polled := self.bus.poll(self._limit(), 0 if self.rebuilds else POLL_S)).changed:
                self._take_over(polled)
                self._rebuild()
            if polled.records:
                began = time.monotonic()
                for batch in one_a_session(polled.records, self.settings.batch_size):
                    self._answer(batch)
                self._pace(time.monotonic() - began)
                self._checkpoint(polled.records)
                self._trim(len(polled.records))
        except BaseException:
            self.failed = True
            raise
        return len(polled.records)

    def _forget(self) -> None:
        """Drop everything that is not committed; the next poll gains every partition anew, which drops the rest."""
        self.changes, self.rebuilds, self.steps = {}, {}, []
        self.bus.recover()
        self.failed = False

    def _limit(self) -> int:
        """As many records as the budget of a turn has time for by what the last ones took, at least one."""
        affordable = self.settings.turn_budget_s / self.record_s if self.record_s else self.settings.turn_records
        return max(1, min(self.settings.turn_records, int(affordable)))

    def _pace(self, answering_s: float) -> None:
        """The checkpoint does not count: it costs a turn the same whatever its length, and a slow one must not make the turns shorter.

        Nor do records that ask nothing of the model: after many of those a turn would take more frames than it has time for.
        """
        if asked := sum(step.request is not None for step in self.steps):
            record_s = answering_s / asked
            self.record_s = record_s if not self.record_s else (1 - LAST_TURNS) * self.record_s + LAST_TURNS * record_s

    def _trim(self, records: int) -> None:
        self.untrimmed += records
        if self.untrimmed >= TRIMMED_EVERY:
            self.untrimmed = 0
            give_back()

    def _take_over(self, polled: Polled) -> None:
        """Start from what is committed in the partitions gained. Which session lies where is not known: all kept states are dropped."""
        self.states = {}
        for partition in polled.lost:
            self.claims.pop(partition, None)
            self.rebuilds.pop(partition, None)
        for claim in polled.gained:
            self.claims[claim.partition] = claim
            self.rebuilds.pop(claim.partition, None)
            try:
                if claim.partition in self.unreadable:
                    raise StoreLost(f"state of partition {claim.partition}: the store holds what this release cannot read")
                self.store.claim(claim)
            except StoreLost as lost:
                log.warning("%s; its states are repeated from the log", lost)
                self.rebuilds[claim.partition] = Rebuild(self.bus, claim, self.repeater)
        self.bus.hold(self.rebuilds.keys())

    def _rebuild(self) -> None:
        """Go on repeating what the store lost, for at most the budget of a turn, so that the group sees this member alive."""
        until = time.monotonic() + self.settings.turn_budget_s
        for partition, rebuild in list(self.rebuilds.items()):
            while rebuild.step():
                if time.monotonic() > until:
                    return
            self.store.restore(rebuild.claim, rebuild.versions())
            self.unreadable.discard(partition)
            del self.rebuilds[partition]
            self.bus.hold(self.rebuilds.keys())

    def _answer(self, batch: Sequence[Record]) -> None:
        """Answer a batch of records of distinct sessions, asking the model once."""
        steps = self.answerer.answer(batch, self._state)
        self.steps += steps
        for step in steps:
            data = packed_answer(step)
            self.bus.publish(MASKS, step.record, kind_of(step.answer), data)
            if step.changed:
                self._change(step)

    def _change(self, step: Answered) -> None:
        session, every = step.record.key, self.settings.snapshot_every
        state = step.state and replace(step.state, applied=step.record.offset)
        due = step.keep or (step.frame is not None and bool(state.views) and state.answered % every == 0)
        before = self.changes.get(session)
        self.changes[session] = Change(step.record, state, due or (before is not None and before.keep))

    def _state(self, record: Record) -> TrackState:
        """What is remembered of the record's session: from this turn, the turns before, or the store."""
        session = record.key
        if session in self.changes:
            return self.changes[session].state or TrackState(session)
        if session in self.states:
            return self.states[session]
        data = self.store.load(self.claims[record.partition], session)
        try:
            return TrackState(session) if data is None else unpack(Kind.TRACK_STATE, data)
        except BadRecord as error:
            self.unreadable.add(record.partition)
            raise StoreLost(f"state of session {session!r} in partition {record.partition}: {error}") from error

    def _checkpoint(self, records: Sequence[Record]) -> None:
        """Make the turn true: states to the store, answers and offsets in one commit, and only then this worker's own memory."""
        checkpoint = uuid.uuid4().hex
        offsets = {record.partition: record.offset + 1 for record in records}
        following = {p: replace(self.claims[p], offset=offset, checkpoint=checkpoint) for p, offset in offsets.items()}
        packed = {session: None if change.state is None else pack(change.state) for session, change in self.changes.items()}
        for partition, claim in following.items():
            self.store.prepare(self.claims[partition], claim, self._versions(partition, packed))
        for session, change in self.changes.items():
            if change.keep and self._fits(session, packed[session]):
                self.bus.publish(STATE, change.record, Kind.TRACK_STATE, packed[session])
        self.bus.commit(list(following.values()))
        self.claims |= following
        for session, change in self.changes.items():
            self.states.pop(session, None)
            if change.state is not None:
                self.states[session] = change.state
        for session in list(self.states)[: max(0, len(self.states) - self.settings.cached_sessions)]:
            del self.states[session]
        self.on_commit(self.steps)
        self.changes, self.steps = {}, []

    def _fits(self, session: str, state: bytes | None) -> bool:
        """Whether the log takes a state. Without its snapshot a session is repeated from the one before, as long as its frames are kept."""
        if state is not None and len(state) > LARGEST_STATE - ENVELOPE:
            said = f"its state takes {len(state):,} bytes, the log takes {LARGEST_STATE - ENVELOPE:,}"
            log.warning("no snapshot of session %r: %s; send smaller pictures", session, said)
            return False
        return True

    def _versions(self, partition: int, packed: Mapping[str, bytes | None]) -> Mapping[str, StateVersion]:
        return {
            session: StateVersion(change.record.offset, packed[session])
            for session, change in self.changes.items()
            if change.record.partition == partition
        }


def one_a_session(records: Sequence[Record], size: int) -> Iterator[list[Record]]:
    """Cut a turn into batches of at most `size` records, never two of one session; each session's records stay in order."""
    waiting: dict[str, deque[Record]] = {}
    for record in records:
        waiting.setdefault(record.key, deque()).append(record)
    while waiting:
        yield [waiting[session].popleft() for session in list(waiting)[:size]]
        waiting = {session: queue for session, queue in waiting.items() if queue}

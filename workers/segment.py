"""The segment worker: the one loop between the log and the model, the same in one process and on a cluster.

A turn takes a prefix of what the log holds, answers it in batches of at most one frame a session, and ends in one checkpoint. Nothing
leaves the process before that; whatever goes wrong on the way, the worker forgets the turn and starts from what is committed.
Decisions are psalm/tracker.py's, transport is stream/bus.py's, memory between turns stream/store.py's.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..psalm.tracker import Rules, plan, prompted, settle
from ..stream.bus import MASKS, Bus, Claim, Polled, Record
from ..stream.codec import End, Kind, pack, unpack
from ..stream.errors import BadPrompt, Undecodable
from ..stream.store import StateVersion, Store
from ..stream.types import Frame, FrameStatus, MaskFrame, Prompt, Proposals, Request, TrackState
from .settings import Settings


class Model(Protocol):
    """Anything that answers requests. digest: names the weights, and is part of every answer."""

    digest: str

    def segment(self, requests: Sequence[Request]) -> Sequence[Proposals]:
        """One Proposals a request, in order."""


@dataclass(slots=True)
class Step:
    """A frame on its way through a turn. state: of its session before it; request None: there is nothing to ask; ms: per stage."""

    record: Record
    frame: Frame
    state: TrackState
    request: Request | None = None
    ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A session's state after a record of this turn, not committed yet. state None: the session has ended."""

    record: Record
    state: TrackState | None


class SegmentWorker:
    """Answers the frames of every session of the partitions its bus holds."""

    def __init__(self, bus: Bus, store: Store, model: Model, rules: Rules, settings: Settings) -> None:
        self.bus, self.store, self.model, self.rules, self.settings = bus, store, model, rules, settings
        self.claims: dict[int, Claim] = {}
        self.states: dict[str, TrackState] = {}  # as committed; the least recently changed first
        self.changes: dict[str, Change] = {}  # of this turn

    def turn(self) -> int:
        """Answer a prefix of what the log holds, then one checkpoint. Returns how many records that were.

        After any exception the turn has not happened: the next one starts from what is committed.
        """
        try:
            polled = self.bus.poll(self.settings.turn_records, self.settings.poll_timeout_s)
            self._take_over(polled)
            for batch in one_a_session(polled.records, self.settings.batch_size):
                self._answer(batch)
            if polled.records:
                self._checkpoint(polled.records)
        except BaseException:
            self.changes = {}
            self.bus.recover()  # the next poll gains every partition anew, which drops the rest
            raise
        return len(polled.records)

    def _take_over(self, polled: Polled) -> None:
        """Start from what is committed in the partitions gained. Which session lies where is not known: all kept states are dropped."""
        for claim in polled.gained:
            self.store.claim(claim)
            self.claims[claim.partition] = claim
            self.states = {}

    def _answer(self, batch: Sequence[Record]) -> None:
        """Apply a batch of records of distinct sessions, asking the model once."""
        steps = []
        for record in batch:
            match unpack(record.kind, record.data):
                case Frame() as frame:
                    steps += self._plan(Step(record, frame, self._state(record)))
                case Prompt() as prompt:
                    self._change(record, prompted(self._state(record), prompt))
                case End(view=None):
                    self.changes[record.key] = Change(record, None)
                case End(view=view):
                    state = self._state(record)
                    self._change(record, replace(state, views={name: v for name, v in state.views.items() if name != view}))
        asked = [step for step in steps if step.request is not None]
        with timed(asked, "model"):
            answers = iter(self.model.segment([step.request for step in asked]) if asked else ())
        for step in steps:
            self._settle(step, next(answers) if step.request is not None else None)

    def _plan(self, step: Step) -> list[Step]:
        """Decode the frame and decide what to ask. A frame that is no picture is answered here, and changes nothing: returns no step."""
        try:
            with timed([step], "decode"):
                step.frame.pixels()
        except Undecodable:
            frame = step.frame
            self._change(step.record, step.state)
            self._publish(step, MaskFrame(frame.key, frame.t_ns, frame.size_hw, FrameStatus.UNDECODABLE, (), self.model.digest))
            return []
        try:
            with timed([step], "plan"):
                step.request = plan(step.state, step.frame, self.rules)
        except BadPrompt as error:
            raise BadPrompt(f"frame {step.frame.key}: {error}") from error
        return [step]

    def _settle(self, step: Step, found: Proposals | None) -> None:
        """Turn the model's answer into ours, and into the next state."""
        with timed([step], "settle"):
            state, masks = settle(step.state, step.frame, step.request, found, self.rules, self.model.digest)
        self._change(step.record, state)
        self._publish(step, masks)

    def _publish(self, step: Step, masks: MaskFrame) -> None:
        self.bus.publish(MASKS, step.record, Kind.MASK_FRAME, pack(replace(masks, ms=step.ms)))

    def _state(self, record: Record) -> TrackState:
        """What is remembered of the record's session: from this turn, the turns before, or the store."""
        session = record.key
        if session in self.changes:
            return self.changes[session].state or TrackState(session)
        if session in self.states:
            return self.states[session]
        data = self.store.load(self.claims[record.partition], session)
        return TrackState(session) if data is None else unpack(Kind.TRACK_STATE, data)

    def _change(self, record: Record, state: TrackState) -> None:
        self.changes[record.key] = Change(record, replace(state, applied=record.offset))

    def _checkpoint(self, records: Sequence[Record]) -> None:
        """Make the turn true: states to the store, answers and offsets in one commit, and only then this worker's own memory."""
        checkpoint = uuid.uuid4().hex
        offsets = {record.partition: record.offset + 1 for record in records}
        following = {p: replace(self.claims[p], offset=offset, checkpoint=checkpoint) for p, offset in offsets.items()}
        for partition, claim in following.items():
            self.store.prepare(self.claims[partition], claim, self._versions(partition))
        self.bus.commit(list(following.values()))
        self.claims |= following
        for session, change in self.changes.items():
            self.states.pop(session, None)
            if change.state is not None:
                self.states[session] = change.state
        for session in list(self.states)[: max(0, len(self.states) - self.settings.cached_sessions)]:
            del self.states[session]
        self.changes = {}

    def _versions(self, partition: int) -> Mapping[str, StateVersion]:
        return {
            session: StateVersion(change.record.offset, None if change.state is None else pack(change.state))
            for session, change in self.changes.items()
            if change.record.partition == partition
        }


@contextmanager
def timed(steps: Iterable[Step], stage: str) -> Iterator[None]:
    """Note the milliseconds spent in the block as `stage` of every step it serves."""
    began = time.perf_counter()
    yield
    for step in steps:
        step.ms[stage] = (time.perf_counter() - began) * 1e3


def one_a_session(records: Sequence[Record], size: int) -> Iterator[list[Record]]:
    """Cut a turn into batches of at most `size` records, never two of one session; each session's records stay in order."""
    waiting: dict[str, deque[Record]] = {}
    for record in records:
        waiting.setdefault(record.key, deque()).append(record)
    while waiting:
        yield [waiting[session].popleft() for session in list(waiting)[:size]]
        waiting = {session: queue for session, queue in waiting.items() if queue}

"""States of a partition anew from the log: what a store lost is repeated from the latest snapshots, step by step, and never guessed.

The snapshot of a session is followed by the frames after it, through the same plan, segment and settle, without an answer. Whether frames
after it are gone is not always to be known: a session whose snapshot is older than the oldest frame kept counts as lost.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from ..stream.bus import Bus, Claim, Record
from ..stream.codec import Kind, pack, unpack
from ..stream.errors import BadRecord
from ..stream.store import StateVersion
from ..stream.types import TrackState
from .answering import Answerer

log = logging.getLogger(__name__)


class Rebuild:
    """The states of one partition on their way to being true at `claim`. The answerer must not look at the clock."""

    def __init__(self, bus: Bus, claim: Claim, answerer: Answerer) -> None:
        earliest = bus.earliest(claim.partition)
        self.claim, self.answerer = claim, answerer
        self.states: dict[str, TrackState | None] = {
            session: _snapshot(session, record, earliest) for session, record in bus.snapshots(claim.partition).items()
        }
        self.records = bus.history(claim, min((s.applied + 1 for s in self.states.values() if not s.lost), default=claim.offset))

    def step(self) -> bool:
        """Repeat one record; whether there was one left."""
        record = next(self.records, None)
        if record is None:
            return False
        state = self.states.get(record.key)  # one without a snapshot never had a prompt, and nothing worth repeating
        if state is not None and record.offset > state.applied:
            (step,) = self.answerer.answer([record], lambda _: state)
            if step.changed:
                self.states[record.key] = step.state and replace(step.state, applied=record.offset)
        return True

    def versions(self) -> dict[str, StateVersion]:
        """What the store is to hold, once no step is left."""
        return {session: StateVersion(state.applied, pack(state)) for session, state in self.states.items() if state is not None}


def _snapshot(session: str, record: Record, earliest: int) -> TrackState:
    """The state a snapshot holds; a lost one where it cannot be read, or where records after it are not kept."""
    try:
        state = unpack(Kind.TRACK_STATE, record.data)
    except BadRecord as error:
        log.warning("snapshot of session %r at offset %d: %s", session, record.offset, error)
        return TrackState(session, lost=True)
    return state if state.applied + 1 >= earliest else replace(state, views={}, lost=True)

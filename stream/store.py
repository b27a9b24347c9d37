"""Where the state of a session lives between two turns, and between two workers.

The commit of the log decides which state is true; a store only has to keep both that a decision can fall on. So a checkpoint first
*prepares*: beside the state that is true now stands the one that will be true if the commit succeeds. Whoever takes a partition over
*claims* it with the committed id, and what that id does not vouch for is dropped. States are bytes here (codec.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .bus import Claim
from .errors import Fenced, StoreLost


@dataclass(frozen=True, slots=True)
class StateVersion:
    """A packed TrackState. applied: offset of the last record it contains; data None: that record ended the session."""

    applied: int
    data: bytes | None = field(repr=False)


class Store(Protocol):
    """States of the sessions of every partition: the true one of each, and one that waits for its commit."""

    def claim(self, claim: Claim) -> None:
        """Take a partition over as it is committed: later writes of older generations are refused. Raises StoreLost.

        Without a checkpoint nothing was ever committed: what is kept for the partition is of another log, and is discarded.
        """

    def load(self, claim: Claim, session: str) -> bytes | None:
        """The packed state of a session that is true at `claim`; None: the session is not known, or has ended.

        Raises Fenced, StoreLost.
        """

    def prepare(self, claim: Claim, following: Claim, states: Mapping[str, StateVersion]) -> None:
        """Write the states that are true once `following` is committed, beside those true at `claim`; again does no harm.

        Raises Fenced, StoreLost.
        """

    def restore(self, claim: Claim, states: Mapping[str, StateVersion]) -> None:
        """Replace whatever is kept for the partition by the states that are true at `claim`, and take it over."""

    def close(self) -> None:
        """Let the connection go; what was prepared stays."""


@dataclass(slots=True)
class _Partition:
    """base, latest: the checkpoint last known as committed, and the one prepared on it; versions: per session, oldest first."""

    generation: int
    base: str | None
    latest: str | None
    versions: dict[str, list[StateVersion]] = field(default_factory=dict)

    def keep_true(self, offset: int) -> None:
        """Of each session keep the version that is true when everything before `offset` is answered; forget the ended ones."""
        for session, versions in list(self.versions.items()):
            true = [v for v in versions if v.applied < offset][-1:]
            if true and true[0].data is not None:
                self.versions[session] = true
            else:
                del self.versions[session]


class MemoryStore:
    """A Store inside one process."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def claim(self, claim: Claim) -> None:
        """See Store."""
        if claim.checkpoint is None:
            self.restore(claim, {})
            return
        held = self._partitions.get(claim.partition)
        if held is None or claim.checkpoint not in (held.base, held.latest):
            raise lost(claim, held and (held.base, held.latest))
        held.keep_true(claim.offset)
        held.generation, held.base, held.latest = claim.generation, claim.checkpoint, claim.checkpoint

    def load(self, claim: Claim, session: str) -> bytes | None:
        """See Store."""
        versions = self._held(claim).versions.get(session, [])
        true = [v for v in versions if v.applied < claim.offset][-1:]
        return true[0].data if true else None

    def prepare(self, claim: Claim, following: Claim, states: Mapping[str, StateVersion]) -> None:
        """See Store."""
        held = self._held(claim)
        held.keep_true(claim.offset)
        for session, version in states.items():
            held.versions.setdefault(session, []).append(version)
        held.base, held.latest = claim.checkpoint, following.checkpoint

    def restore(self, claim: Claim, states: Mapping[str, StateVersion]) -> None:
        """See Store."""
        versions = {session: [version] for session, version in states.items()}
        self._partitions[claim.partition] = held = _Partition(claim.generation, claim.checkpoint, claim.checkpoint, versions)
        held.keep_true(claim.offset)

    def close(self) -> None:
        """See Store."""

    def _held(self, claim: Claim) -> _Partition:
        held = self._partitions.get(claim.partition)
        if held is not None and claim.generation < held.generation:
            raise fenced(claim, held.generation)
        if held is None or claim.checkpoint not in (held.base, held.latest):
            raise lost(claim, held and (held.base, held.latest))
        return held


def fenced(claim: Claim, generation: int) -> Fenced:
    """The refusal of a member whose partition a newer generation has claimed."""
    return Fenced(
        f"state of partition {claim.partition}: this member is of generation {claim.generation}, the partition was claimed by "
        f"generation {generation}; drop the turn and start from what is committed"
    )


def lost(claim: Claim, known: tuple[str | None, str | None] | None) -> StoreLost:
    """What a store says that does not know the claim's checkpoint but `known`, base and latest of the partition (None: nothing)."""
    knows = f"checkpoints {known[0]} and {known[1]}" if known else "nothing"
    return StoreLost(
        f"state of partition {claim.partition}: the log is committed at checkpoint {claim.checkpoint}, the store knows {knows}; "
        "it was emptied, rolled back, or belongs to another log"
    )

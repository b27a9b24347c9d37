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
        """Take a partition over as it is committed: later writes of older generations are refused. Raises StoreLost."""

    def load(self, claim: Claim, session: str) -> bytes | None:
        """The state of a session that is true at `claim`, packed; None: the session is not known, or has ended."""

    def prepare(self, claim: Claim, following: Claim, states: Mapping[str, StateVersion]) -> None:
        """Write the states that are true once `following` is committed, beside those true at `claim`. Raises Fenced, StoreLost."""

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
        held = self._partitions.get(claim.partition)
        if claim.checkpoint is None:
            held = _Partition(claim.generation, None, None)  # nothing was ever committed: what was kept belongs to another log
        elif held is None or claim.checkpoint not in (held.base, held.latest):
            raise StoreLost(self._disagrees(claim))
        held.generation, held.base, held.latest = claim.generation, claim.checkpoint, claim.checkpoint
        self._partitions[claim.partition] = held

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

    def close(self) -> None:
        """See Store."""

    def _held(self, claim: Claim) -> _Partition:
        held = self._partitions.get(claim.partition)
        if held is None or claim.checkpoint not in (held.base, held.latest):
            raise StoreLost(self._disagrees(claim))
        if claim.generation < held.generation:
            raise Fenced(
                f"state of partition {claim.partition}: this member is of generation {claim.generation}, the partition was claimed by "
                f"generation {held.generation}; drop the turn and start from what is committed"
            )
        return held

    def _disagrees(self, claim: Claim) -> str:
        held = self._partitions.get(claim.partition)
        known = f"checkpoints {held.base} and {held.latest}" if held else "nothing"
        return (
            f"state of partition {claim.partition}: the log is committed at checkpoint {claim.checkpoint}, the store knows {known}; "
            "it was emptied, rolled back, or belongs to another log"
        )

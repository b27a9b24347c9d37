"""What came of a run: counts, times per stage, and one digest over all answers.

Sizes do not grow with the number of frames, so a camera may be followed for days.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field, replace

from ..stream.codec import pack
from ..stream.types import MaskFrame, ObjectStatus

BINS_PER_E = 50  # of the times: a bin is 2 % wide


@dataclass(slots=True)
class Times:
    """Durations in milliseconds, kept as counts per bin of 2 %."""

    bins: Counter[int] = field(default_factory=Counter)

    def add(self, ms: float) -> None:
        """Count one duration; less than a microsecond counts as one."""
        self.bins[round(math.log(max(ms, 1e-3)) * BINS_PER_E)] += 1

    def quantile(self, share: float) -> float:
        """The duration that `share` (0..1) of all do not exceed, within 1 %; nan without any."""
        wanted = share * self.bins.total()
        passed = 0
        for position in sorted(self.bins):
            passed += self.bins[position]
            if passed >= wanted:
                return math.exp(position / BINS_PER_E)
        return math.nan


@dataclass(slots=True)
class Tally:
    """The sum of all answers so far. views: where to count those of some views for themselves as well."""

    frames: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    objects: set[int] = field(default_factory=set)
    times: dict[str, Times] = field(default_factory=dict)
    views: dict[str, Tally] = field(default_factory=dict)
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, answer: MaskFrame) -> None:
        """Count one answer."""
        if answer.key.view in self.views:
            self.views[answer.key.view].add(answer)
        self.frames += 1
        self.statuses[answer.status.value] += 1
        self.masks.update(o.status.value for o in answer.objects)
        self.objects.update(o.object_id for o in answer.objects)
        for stage, ms in answer.ms.items():
            self.time(stage, ms)
        self._digest.update(pack(replace(answer, ms={})))

    def time(self, stage: str, ms: float) -> None:
        """Count what one frame spent in a stage."""
        self.times.setdefault(stage, Times()).add(ms)

    def digest(self) -> str:
        """SHA-256 over every answer in every field but `ms`: equal for equal runs."""
        return self._digest.hexdigest()

    def as_json(self) -> dict[str, object]:
        """Plain values for run.json."""
        return {
            "frames": self.frames,
            "statuses": dict(self.statuses),
            "objects": sorted(self.objects),
            "masks": {status.value: self.masks[status.value] for status in ObjectStatus},
            "answers_sha256": self.digest(),
            "ms": {
                stage: {name: round(times.quantile(share), 3) for name, share in (("p50", 0.5), ("p95", 0.95))}
                for stage, times in self.times.items()
            },
        }

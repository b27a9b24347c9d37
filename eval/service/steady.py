"""Is the service as it was? Samples of a soak, and what they say of memory and lag: flat, and bounded.

Judges numbers that soak.py has sampled; whether answers are lost or doubled is verdict.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

AGES_S = (30, 60, 110, 230)  # of a worker, at which its memory is compared; of two workers each lives for 240 s
SETTLED_S = 110.0  # age from which the memory of one life may not grow
LEAST_LIFE_S = 60.0  # after that, for a life to be judged by itself
MEMORY_GROWTH = 0.1  # the same worker had 909 to 969 MB, 7 % apart, in 20 minutes without a leak
MAX_LAG_S = 30.0  # of a frame, after which it is answered late, without masks: what came in it is the most that may wait at any time
LAST_LAG_S = 10.0  # what came in it may wait in the middle of the last quarter, deaths and all; 1 s did


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one moment. t_s: since the start; rss_mb: resident memory by process, age_s: of the workers."""

    t_s: float
    accepted: int
    answered: int
    rss_mb: dict[str, float]
    age_s: dict[str, float]

    @property
    def lag(self) -> int:
        """Records behind."""
        return self.accepted - self.answered


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure against its bound. good: whether it keeps to it, or could not be told."""

    said: str
    good: bool = True

    def __str__(self) -> str:
        return f"{'good' if self.good else 'BAD'}: {self.said}"


def at_age(samples: Sequence[Sample], age_s: float) -> list[float]:
    """Resident megabytes of each worker life when it was `age_s` old, in the order of the lives; lives that were shorter are left out."""
    found = []
    for before, after in pairwise(samples):
        found += [after.rss_mb[worker] for worker, age in after.age_s.items() if before.age_s.get(worker, age_s) < age_s <= age]
    return found


def lives(samples: Sequence[Sample]) -> list[list[tuple[float, float]]]:
    """(age in seconds, resident megabytes) over each worker life, in the order of their first samples."""
    found: list[list[tuple[float, float]]] = []
    current: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for worker, age_s in sample.age_s.items():
            if not sample.rss_mb[worker]:  # it has just ended
                continue
            if worker not in current or age_s < current[worker][-1][0]:
                current[worker] = []
                found.append(current[worker])
            current[worker].append((age_s, sample.rss_mb[worker]))
    return found


def judge_memory(samples: Sequence[Sample]) -> list[Finding]:
    """Whether workers need what they needed: the last life at each age as the first, and each life at its end as once it had settled."""
    between = [
        (f"worker at {age_s} s, first life to last", found[0], found[-1]) for age_s in AGES_S if len(found := at_age(samples, age_s)) > 1
    ]
    within = []
    for number, life in enumerate(lives(samples), 1):
        settled = [mb for age_s, mb in life if age_s >= SETTLED_S]
        if settled and life[-1][0] >= SETTLED_S + LEAST_LIFE_S:
            within.append((f"life {number}, {SETTLED_S:.0f} s to {life[-1][0]:.0f} s", settled[0], settled[-1]))
    if not between and not within:
        return [Finding(f"memory not judged: no two workers reached an age of {AGES_S[0]} s, and none {SETTLED_S + LEAST_LIFE_S:.0f} s")]
    return [_growth(*found) for found in (*between, *within)]


def judge_lag(samples: Sequence[Sample], records_s: float) -> list[Finding]:
    """Whether as many records wait as may, of `records_s` that come each second: ever, and half of the time towards the end."""
    most, last = max(s.lag for s in samples), median(s.lag for s in samples[-max(1, len(samples) // 4) :])
    return [
        _waiting(*found, records_s) for found in (("lag at most", most, MAX_LAG_S), ("lag in the last quarter, median", last, LAST_LAG_S))
    ]


def _growth(name: str, before_mb: float, after_mb: float) -> Finding:
    growth = after_mb / before_mb - 1
    said = f"{name}: {before_mb:.0f} to {after_mb:.0f} MB, {100 * growth:+.1f} %, bound {100 * MEMORY_GROWTH:+.0f} %"
    return Finding(said, growth <= MEMORY_GROWTH)


def _waiting(name: str, records: float, bound_s: float, records_s: float) -> Finding:
    bound = bound_s * records_s
    return Finding(f"{name}: {records:.0f} records, bound {bound:.0f}, those of {bound_s:.0f} s", records <= bound)

"""The tally of a run: quantiles, counts, and a digest that only the times may leave alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
from psalm_stream.stream.types import FrameKey, FrameStatus, MaskFrame, ObjectMask, ObjectStatus
from psalm_stream.workers.tally import Tally, Times


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 1.0])
def test_a_quantile_is_within_a_hundredth_of_the_exact_one(share):
    durations = np.random.default_rng(5).lognormal(2, 2, 3001)
    times = Times()
    for ms in durations:
        times.add(ms)
    exact = np.sort(durations)[math.ceil(share * 3001) - 1]
    assert times.quantile(share) == pytest.approx(exact, rel=0.0101)


def test_a_duration_of_nothing_counts_as_a_microsecond():
    times = Times()
    times.add(0.0)
    assert times.quantile(0.5) == pytest.approx(1e-3, rel=0.01)


def test_a_stage_never_entered_has_no_quantile():
    assert math.isnan(Times().quantile(0.5))


def answer(index, **changes):
    key = FrameKey("s", "main", index)
    objects = (ObjectMask(1, "", ObjectStatus.ABSENT, 0.0, None), ObjectMask(4, "", ObjectStatus.ABSENT, 0.0, None))
    return replace(MaskFrame(key, 0, (2, 2), FrameStatus.OK, objects, "w", ms={"model": 3.0}), **changes)


def test_answers_are_counted_by_status_and_object():
    tally = Tally()
    tally.add(answer(0))
    tally.add(answer(1, status=FrameStatus.UNDECODABLE, objects=()))
    found = tally.as_json()
    assert (found["frames"], found["objects"], found["statuses"]) == (2, [1, 4], {"ok": 1, "undecodable": 1})
    assert found["masks"] == {"seen": 0, "carried": 0, "absent": 2}
    assert found["ms"]["model"]["p50"] == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "same"), [({"ms": {"model": 99.0}}, True), ({"t_ns": 1}, False), ({"objects": ()}, False), ({"model": "other"}, False)]
)
def test_the_digest_depends_on_every_field_but_the_times(changes, same):
    first, second = Tally(), Tally()
    first.add(answer(0))
    second.add(answer(0, **changes))
    assert (first.digest() == second.digest()) is same

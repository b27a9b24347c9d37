"""Every kind of fault once, on a real broker and a real Redis: one answer a record, as if nothing had happened. At length: run.py."""

from functools import partial

import pytest
from lanes import Outcome
from points import POINTS, Point, failure, redis_rolled_back
from run import LEAST_HITS, judged
from story import Verdict, compare

TWICE = ("twice after offsets", "twice during commit")
SHORT = [p for name, p in POINTS.items() if name in TWICE or not name.startswith(("twice", "stopped", "slow"))]  # test_zombies.py has these
FORWARD = Point("failed turns, never going back", partial(failure, mutants=("forward",), patience_s=8.0))
TRUSTING = Point("redis rolled back, and trusted", partial(redis_rolled_back, mutants=("trusting",), cached_sessions=0))

CALM = {"a": [("a/0", "x"), ("a/1", "y"), ("a/2", "z")]}


@pytest.mark.parametrize("point", SHORT, ids=lambda point: point.name)
def test_every_record_is_answered_once_and_as_if_nothing_had_happened(ran, point):
    outcome = ran(point)
    assert outcome.hits
    assert outcome.clean, outcome.error or outcome.verdict


@pytest.mark.parametrize("point", [FORWARD], ids=lambda point: point.name)
def test_a_worker_that_does_not_go_back_after_a_failure_loses_records(ran, point):
    assert ran(point).verdict.lost > 0


@pytest.mark.parametrize("point", [TRUSTING], ids=lambda point: point.name)
def test_a_worker_that_trusts_a_store_gives_wrong_answers(ran, point):
    assert ran(point).verdict.differing > 0


@pytest.mark.parametrize(
    ("answered", "verdict"),
    [
        ([0, 1, 2], Verdict()),
        ([0, 2], Verdict(lost=1)),
        ([0, 1, 1, 2, 0], Verdict(doubled=2)),
        ([1, 0, 2], Verdict(disordered=1)),
        ([], Verdict(lost=3)),
    ],
)
def test_what_is_lost_doubled_and_disordered_is_counted(answered, verdict):
    assert compare(CALM, {"a": [CALM["a"][i] for i in answered]}) == verdict


def test_answers_that_differ_and_answers_to_nothing_are_counted():
    assert compare(CALM, {"a": [("a/0", "x"), ("a/1", "other"), ("a/2", "z")], "b": [("b/0", "x")]}) == Verdict(differing=1, strange=1)


def test_a_point_that_is_hit_too_seldom_fails_a_full_run():
    outcomes = [Outcome(name, "", hits=LEAST_HITS) for name in list(POINTS)[1:]]
    assert judged(outcomes, full=True) == [f"{next(iter(POINTS))} was hit 0 times, expected at least {LEAST_HITS}"]
    assert judged(outcomes, full=False) == []

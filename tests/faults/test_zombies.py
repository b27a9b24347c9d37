"""Workers that were given up and go on: what they do late is refused, by Redis and by Kafka, and each fence is missed when it is taken out.

A zombie's answers are doubled when it has no fence; that its heir must rebuild states shows that it wrote into the store.
"""

from functools import cache, partial

import pytest
from points import Pause, Point, zombie

IN_THE_MODEL, SLOW = Pause("model"), Pause("model", slow=True)
PREPARED, BEGUN = Pause("ready"), Pause("begun")
UNDECIDED = Pause("flushed")
FORGOTTEN = Pause("flushed", transaction_s=4.0)  # longer than the broker waits for the end of a transaction
REPLACED = Pause("flushed", same_slot=True)


@cache  # tests that look at the same zombie look at one run
def a(pause, *without, heirs=()):
    """A run with a zombie that lacks some of the fences, or whose heir does."""
    said = f"{pause.stage}{' slow' * pause.slow}{' replaced' * pause.same_slot}{' forgotten' * (pause is FORGOTTEN)}"
    return Point(" ".join([said, *without, *heirs]), partial(zombie, pause=pause, mutants=without, heirs=heirs))


def by(point):
    return point.name


def late_word(outcome):
    """What the zombie's late turn ended with."""
    return next((text for number, name, text in outcome.failures if number == 0 and name in ("Fenced", "StoreLost")), "a commit")


@pytest.mark.parametrize("point", [a(IN_THE_MODEL), a(SLOW)], ids=by)
def test_redis_refuses_what_a_zombie_prepares(ran, point):
    outcome = ran(point)
    assert outcome.clean, outcome.error or outcome.verdict
    assert late_word(outcome).startswith("state of partition")
    assert outcome.rebuilds == 0


@pytest.mark.parametrize("point", [a(IN_THE_MODEL, "unfenced"), a(SLOW, "unfenced")], ids=by)
def test_without_the_fence_of_redis_a_zombie_overwrites_the_states_of_its_heir(ran, point):
    assert ran(point).rebuilds > 0


@pytest.mark.parametrize("point", [a(PREPARED), a(BEGUN), a(IN_THE_MODEL, "unfenced"), a(SLOW, "unfenced")], ids=by)
def test_kafka_refuses_what_a_zombie_commits(ran, point):
    outcome = ran(point)
    assert outcome.clean, outcome.error or outcome.verdict
    assert late_word(outcome).startswith("commit of")


@pytest.mark.parametrize(
    "point", [a(PREPARED, "late"), a(BEGUN, "late"), a(IN_THE_MODEL, "unfenced", "late"), a(SLOW, "unfenced", "late")], ids=by
)
def test_without_the_generation_of_the_poll_a_zombie_answers_again(ran, point):
    assert ran(point).verdict.doubled > 0


@pytest.mark.parametrize("point", [a(IN_THE_MODEL, "late"), a(SLOW, "late")], ids=by)
def test_redis_alone_keeps_a_zombie_from_answering(ran, point):
    outcome = ran(point)
    assert outcome.clean, outcome.error or outcome.verdict


@pytest.mark.parametrize("point", [a(FORGOTTEN), a(REPLACED)], ids=by)
def test_kafka_refuses_a_transaction_that_it_ended_meanwhile_or_whose_owner_was_replaced(ran, point):
    outcome = ran(point)
    assert outcome.clean, outcome.error or outcome.verdict
    assert late_word(outcome).startswith("commit of")


@pytest.mark.parametrize("point", [a(FORGOTTEN, "loose")], ids=by)
def test_without_a_transaction_what_a_zombie_sent_is_seen(ran, point):
    assert ran(point).verdict.doubled > 0


@pytest.mark.parametrize("point", [a(UNDECIDED)], ids=by)
def test_an_heir_waits_for_a_transaction_that_is_not_decided(ran, point):
    outcome = ran(point)
    assert outcome.clean, outcome.error or outcome.verdict
    assert late_word(outcome) == "a commit"


@pytest.mark.parametrize("point", [a(UNDECIDED, heirs=("hasty",))], ids=by)
def test_an_heir_that_does_not_wait_answers_again(ran, point):
    assert ran(point).verdict.doubled > 0

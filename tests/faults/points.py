"""The table of faults: what is done to the workers of a run, to their servers, or to their source, and when.

Each line is a story told on a Run; what it draws by lot (turns, hits, places, partitions) comes from the run's own seed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

from ground import PATIENCE_S, SPAWN, Run, Stalled, Worker
from redis import Redis
from sources import publish, publish_until_killed, transactions
from story import IDLE_FROM, LATER, Verdict, story
from worker import Fault

STAGES = {
    "model": "in the model call",
    "prepared": "after Redis prepare",  # of one partition of those in the turn
    "ready": "after every Redis prepare",
    "begun": "after begin",
    "offsets": "after offsets",
    "sent": "after a send",
    "flushed": "after all sends",
    "committing": "during commit",
    "committed": "after commit, before memory",
}
ONCE_A_TURN = ("ready", "begun", "flushed", "offsets", "committed")
OF_A_SOURCE = ("begun", "sent", "flushed", "committing", "committed")  # its frames, then its position, are sent and flushed
HALF_LATER = LATER + 8
ENDED_S = 10.0  # a transaction of that many seconds is ended by the broker before its owner is resumed
BROKER_BACK_S = 180.0  # 6 s on a quiet machine, more than 60 when ten others want its two cores
REST_S = 3.0  # of a zombie once resumed, in which its heartbeat thread notices that it was expelled
SHORT_POLL_INTERVAL_S = 3.0
ON_THE_WIRE_S = (0.0, 0.0, 0.0005, 0.001, 0.002, 0.004, 0.008)  # after the commit is handed to the network, which sends it at once


def fault(run: Run, stage: str, action: str = "kill", latest: int = 4, **more: float) -> Fault:
    """A fault at a stage, at a turn and, inside the commit, at a moment drawn by lot."""
    if stage == "committing":
        more.setdefault("delay_s", run.rng.choice(ON_THE_WIRE_S))
    return Fault(stage, 1 if stage == "claimed" else run.rng.randint(1, latest), action, **more)


def death(run: Run, stage: str) -> Verdict:
    """A worker dies; its heir comes later, in its place or another, or was there all the time."""
    peer = run.rng.random() < 1 / 3 and stage != "claimed"
    if not peer:
        run.accept(story())
    doomed = run.start(fault(run, stage), **({"turn_records": 1} if peer else {}))  # it may get the partition with few records
    if peer:
        other = run.start()
        run.until(lambda: doomed.holds and other.holds and not doomed.holds & other.holds, "two workers sharing the partitions")
        run.accept(story())
    run.hit(doomed)
    if not peer:
        run.start(slot=place_of(run, doomed))
    return run.finish()


def deaths(run: Run, stage: str) -> Verdict:
    """Two die at one point, with turns of different length."""
    run.accept(story())
    first, second = run.rng.sample((1, 2, 3, 5, 7), 2)
    doomed = run.start(fault(run, stage, latest=3), turn_records=first)
    run.hit(doomed)
    doomed = run.start(fault(run, stage, latest=2), slot=place_of(run, doomed), turn_records=second)
    run.hit(doomed)
    run.start(slot=place_of(run, doomed))
    return run.finish()


def failure(run: Run, mutants: tuple[str, ...] = (), patience_s: float = PATIENCE_S / 2) -> Verdict:
    """Turns fail, the worker lives on."""
    run.accept(story())
    stages = run.rng.sample(("model", "prepared", "begun", "sent", "flushed", "offsets", "committed"), 3)
    run.start(*(fault(run, stage, "fail") for stage in stages), mutants=mutants)
    return run.finish(patience_s)


def forgetful(run: Run) -> Verdict:
    """Workers drop the states they keep after turns drawn by lot, and one of them dies."""
    run.accept(story())
    doomed = run.start(fault(run, run.rng.choice(list(STAGES)), latest=6), forget=run.rng.random(), cached_sessions=64)
    run.hit(doomed)
    run.start(slot=place_of(run, doomed), forget=run.rng.random(), cached_sessions=64)
    return run.finish()


def storm(run: Run) -> Verdict:
    """Three workers are to die, each at a stage of its own, as soon as it has work; Redis is emptied when the first has."""
    run.accept(story()[:IDLE_FROM])
    doomed = [run.start(fault(run, run.rng.choice(list(STAGES)))) for _ in range(3)]
    run.accept(story()[IDLE_FROM:])
    run.until(lambda: any(worker.dead for worker in doomed), "a first death")
    if run.rng.random() < 0.5:
        flush(run)
    run.start(slot=place_of(run, next(worker for worker in doomed if worker.dead)))
    return run.finish()


def rebuilder_dies(run: Run) -> Verdict:
    """Redis is empty when the heir comes, and that one dies while it repeats the log."""
    run.accept(story()[:IDLE_FROM])
    doomed = run.start()
    run.idle(doomed)
    doomed.set(fault(run, run.rng.choice(list(STAGES))))
    run.accept(story()[IDLE_FROM:])
    run.hit(doomed)
    flush(run)
    repeating = Fault("model", run.rng.randint(1, 5)) if run.rng.random() < 0.5 else Fault(run.rng.choice(("restoring", "restored")))
    doomed = run.start(repeating, slot=place_of(run, doomed))
    run.hit(doomed)
    run.start(slot=place_of(run, doomed))
    return run.finish()


def flush(run: Run) -> None:
    with Redis(port=run.place.redis.port) as client:
        client.flushall()


def redis_killed(run: Run) -> Verdict:
    """Redis dies under a worker and comes back with its append-only file; then the worker dies."""

    def restart(owner: Worker) -> None:
        run.place.redis.kill()
        owner.go_on()
        run.place.redis.start()

    return store_fault(run, restart)


def redis_emptied(run: Run) -> Verdict:
    """Everything in Redis is deleted under a worker, which then dies."""

    def empty(owner: Worker) -> None:
        flush(run)
        owner.go_on()

    return store_fault(run, empty)


def redis_rolled_back(run: Run, **knobs: object) -> Verdict:
    """Redis goes back to a copy of its data some turns old, under a worker, which then dies."""
    copy = run.folder / "redis"

    def save(owner: Worker) -> None:
        run.place.redis.save(copy)
        owner.go_on()

    def roll_back(owner: Worker) -> None:
        run.place.redis.roll_back(copy)
        owner.go_on()

    return store_fault(run, save, roll_back, **knobs)


def store_fault(run: Run, *acts: Callable[[Worker], None], **knobs: object) -> Verdict:
    """Do things to the store while an owner waits for them, a checkpoint or more between them; the owner lives on, and dies later.

    Session `door` has a state by then, and its next record comes after all that.
    """
    run.accept(story()[:IDLE_FROM])
    owner = run.start(turn_records=run.rng.randint(1, 3), **knobs)
    run.idle(owner)
    later = [Fault(run.rng.choice(ONCE_A_TURN), run.rng.randint(2, 4), "ask") for _ in acts[1:]]
    stage = run.rng.choice(("model", "prepared", *ONCE_A_TURN))
    owner.set(fault(run, stage, "ask", 3), *later, fault(run, run.rng.choice(list(STAGES)), latest=3))
    run.accept(story()[IDLE_FROM:LATER])
    for number, act in enumerate(acts, 1):
        run.hit(owner, number)
        act(owner)
    run.hit(owner, len(acts) + 1)
    run.start(slot=place_of(run, owner), **knobs)
    run.accept(story()[LATER:])
    return run.finish()


def broker_killed(run: Run) -> Verdict:
    """The broker dies under a worker, which waits at a stage for it, and comes back."""
    run.accept(story())
    worker = run.start(fault(run, run.rng.choice(list(STAGES)), "ask", delay_s=0.0))
    note = run.hit(worker)
    run.place.kafka.kill()
    run.events.append((note.t, worker.holds, None))
    worker.go_on()
    run.place.kafka.launch()
    run.place.kafka.wait(BROKER_BACK_S)
    return run.finish()


def source_killed(run: Run) -> Verdict:
    """A source dies in a transaction, or after one; its heir goes on from the positions in the log, and a worker dies as well."""
    told = transactions(run.rng)
    doomed = run.start(fault(run, run.rng.choice(list(STAGES))))
    here, there = SPAWN.Pipe()
    dying = fault(run, run.rng.choice(OF_A_SOURCE), latest=12)
    source = SPAWN.Process(target=publish_until_killed, args=(run.cluster, told, dying, there), daemon=True)
    source.start()
    run.until(lambda: source.exitcode is not None, "the death of the source")
    if source.exitcode != -signal.SIGKILL or not here.poll():
        raise Stalled(f"the source ended with exit code {source.exitcode}, expected it killed {STAGES[dying.point]}, time {dying.hit}")
    publish(run.cluster, told)
    run.accepted = sum(map(len, told))
    published = sorted(((record.key, record.data) for record in run.records()), key=itemgetter(0))
    if published != sorted(((session, data) for entries in told for session, _, data in entries), key=itemgetter(0)):
        raise AssertionError(f"topic frames holds {len(published)} committed records, which are not the {run.accepted} that were sent")
    run.hit(doomed)
    run.events.clear()  # it may have died long before the source's heir came: how soon another answers says nothing
    run.start(slot=place_of(run, doomed))
    return run.finish()


@dataclass(frozen=True)
class Pause:
    """How a zombie comes to be: stopped at a stage, or slow without a signal; and whether its heir takes its place."""

    stage: str
    slow: bool = False
    same_slot: bool = False
    transaction_s: float = 30.0  # until the broker ends a transaction that it leaves open

    @property
    def undecided(self) -> bool:
        """Whether its heir has to wait for it: its offsets are in a transaction that nobody ends while it stands still."""
        return self.stage in ("offsets", "sent", "flushed") and not self.same_slot and self.transaction_s > ENDED_S


def zombie(run: Run, pause: Pause, mutants: tuple[str, ...] = (), heirs: tuple[str, ...] = ()) -> Verdict:
    """A worker that is held up until its heir has answered everything, or cannot begin, goes on as if nothing had happened.

    What it does late would show in the answers, or in what its heir's heir finds in the store.
    """
    run.accept(story()[:LATER])
    knobs = {"poll_interval_s": SHORT_POLL_INTERVAL_S} if pause.slow else {"transaction_s": pause.transaction_s}
    action, rest_s = ("slow", 2 * SHORT_POLL_INTERVAL_S) if pause.slow else ("stop", REST_S)
    held_up = run.start(fault(run, pause.stage, action, 3, rest_s=rest_s), mutants=mutants, **knobs)
    note = run.hit(held_up)
    heir = run.start(slot=held_up.slot if pause.same_slot else None, mutants=heirs, **knobs)
    if pause.undecided and not heirs:
        run.until(lambda: heir.told("assigned"), "the heir being given the partitions")
    else:
        run.idle(heir)
    resumed = note.t if pause.slow else held_up.resume()
    run.word(held_up, resumed)  # from here on it is a worker like any other
    run.accept(story()[LATER:HALF_LATER])
    run.idle(heir)
    heir.leave()
    run.until(lambda: heir.dead, "the heir leaving")
    run.start()
    run.accept(story()[HALF_LATER:])
    return run.finish()


@dataclass(frozen=True)
class Point:
    """One line of the table. alone: no other run may go on meanwhile."""

    name: str
    happens: Callable[[Run], Verdict]
    alone: bool = False


POINTS = {
    point.name: point
    for point in (
        *(Point(said, partial(death, stage=stage)) for stage, said in STAGES.items()),
        Point("after a claim", partial(death, stage="claimed")),
        Point("after a poll", partial(death, stage="polled")),
        *(Point(f"twice {said}", partial(deaths, stage=stage)) for stage, said in STAGES.items()),
        Point("failed turns", failure),
        Point("dropped caches", forgetful),
        Point("several at once", storm),
        Point("while rebuilding", rebuilder_dies),
        Point("redis killed", redis_killed),
        Point("redis emptied", redis_emptied),
        Point("redis rolled back", redis_rolled_back),
        Point("source killed", source_killed),
        Point("stopped in the model call", partial(zombie, pause=Pause("model"))),
        Point("stopped after every Redis prepare", partial(zombie, pause=Pause("ready"))),
        Point("stopped after begin", partial(zombie, pause=Pause("begun"))),
        Point("stopped after offsets", partial(zombie, pause=Pause("offsets"))),
        Point("stopped after all sends", partial(zombie, pause=Pause("flushed", transaction_s=4.0))),
        Point("slow model call", partial(zombie, pause=Pause("model", slow=True))),
        Point("broker killed", broker_killed, alone=True),
    )
}


def place_of(run: Run, dead: Worker) -> str | None:
    """Where the heir runs: in the place of the dead, or another."""
    return dead.slot if run.rng.random() < 0.5 else None

"""The poison of test_answers.py on a real broker: each record is answered by name where it lies, and its partition goes on."""

import time
from contextlib import closing

import pytest
from kafka_log import DEADLINE_S, KafkaLog
from psalm_stream.stream.codec import kind_of, pack, unpack
from psalm_stream.stream.store import MemoryStore
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, mask_prompt
from test_answers import POISON, RULES, A, Service, said


@pytest.fixture
def log(servers):
    with closing(KafkaLog(servers.kafka.address, partitions=2)) as log:
        yield log


def answers(worker, log, *records):
    """What is answered to these (key, kind, bytes, partition), as (partition, message)."""
    for key, kind, data, partition in records:
        log.append(key, kind, data, partition=partition)
    found, deadline = [], time.monotonic() + DEADLINE_S
    while len(found) < len(records):
        assert time.monotonic() < deadline, f"{len(found)} of {len(records)} records were answered"
        worker.turn()
        found += [(record.partition, unpack(record.kind, record.data)) for record in log.answers()]
    return found


def test_every_poison_is_answered_by_name_on_a_real_broker_and_the_partitions_go_on(log):
    worker = SegmentWorker(log.join(), MemoryStore(), DriftSegmenter(), RULES, Settings())
    home = worker.bus.partition_of("a")

    def to_home(message):
        return ("a", kind_of(message), pack(message), home)

    before, after = [mask_prompt(0, 1, session="a"), A[0]], A[2]
    answers(worker, log, *map(to_home, before))
    for name, (sent, status, named) in POISON.items():
        record = (*sent[:3], home) if isinstance(sent, tuple) else to_home(sent)
        ((partition, answer),) = answers(worker, log, record)
        assert (partition, said([answer]), named in answer.message) == (home, [status], True), name
    untouched = Service()
    untouched.answers(*before)
    assert [answer for _, answer in answers(worker, log, to_home(after))] == untouched.answers(after)


def test_a_record_in_a_foreign_partition_is_refused_there_and_both_partitions_go_on(log):
    worker = SegmentWorker(log.join(), MemoryStore(), DriftSegmenter(), RULES, Settings())
    home = worker.bus.partition_of("a")
    neighbour = next(name for name in map(str, range(99)) if worker.bus.partition_of(name) != home)
    ((partition, answer),) = answers(worker, log, ("a", "frame", pack(A[0]), 1 - home))
    assert (partition, said([answer])) == (1 - home, ["refused"])
    assert f"session 'a' lies in partition {1 - home}, expected {home}" in answer.message
    prompted = [mask_prompt(0, 1, session=name) for name in ("a", neighbour)]
    records = [(p.key.session, kind_of(p), pack(p), worker.bus.partition_of(p.key.session)) for p in prompted]
    assert sorted((partition, *said([answer])) for partition, answer in answers(worker, log, *records)) == [(0, "applied"), (1, "applied")]

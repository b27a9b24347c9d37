"""Health by flow: what the probes of a worker say, from its turns alone."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from psalm_stream.stream.bus import Record
from psalm_stream.stream.errors import BadConfig
from psalm_stream.stream.types import FrameKey, FrameStatus, MaskFrame, Notice, NoticeKind, ObjectMask, ObjectStatus
from psalm_stream.workers.answering import Answered
from psalm_stream.workers.health import Flow, HealthServer, Metrics
from psalm_stream.workers.slot import own_slot


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def probed():
    """A flow that stalls after 10 s on a clock of its own, its metrics, and how they are asked over HTTP."""
    clock = Clock()
    flow, metrics = Flow(10.0, clock), Metrics()
    with HealthServer(0, flow, metrics) as server:

        def get(path):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as reply:
                    return reply.status, reply.read().decode()
            except urllib.error.HTTPError as refusal:
                with refusal:
                    return refusal.code, refusal.read().decode()

        yield clock, flow, metrics, get


def test_a_worker_is_healthy_while_turns_come_to_their_end_and_not_when_they_stall(probed):
    clock, flow, _, get = probed
    flow.good(ready=True)
    clock.now = 9.9
    assert get("/healthz")[0] == 200
    clock.now = 10.0
    assert get("/healthz")[0] == 503


def test_turns_that_only_fail_are_no_flow_and_their_trouble_is_named(probed):
    clock, flow, _, get = probed
    flow.good(ready=True)
    clock.now = 11.0
    flow.bad(ConnectionError("no broker"))
    status, said = get("/healthz")
    assert (status, "no broker" in said) == (503, True)
    flow.good(ready=True)
    assert get("/healthz")[0] == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_a_worker_is_ready_once_no_partition_waits_for_its_states(probed, ready, status):
    _, flow, _, get = probed
    assert get("/readyz")[0] == 503
    flow.good(ready=ready)
    assert get("/readyz")[0] == status


def test_an_unknown_page_says_which_there_are(probed):
    status, said = probed[3]("/")
    assert (status, "/healthz" in said) == (404, True)


def test_the_metrics_count_what_a_turn_answered(probed):
    _, _, metrics, get = probed
    found = tuple(ObjectMask(i, "", ObjectStatus.ABSENT, 0.0, None) for i in (1, 2))
    masks = MaskFrame(FrameKey("s", "v", 0), 0, (1, 1), FrameStatus.OK, found, "m")
    record = Record("frames", 0, 0, "s", "frame", b"")
    metrics.answered(
        [
            Answered(record, None, masks, ms={"model": 30.0}),
            Answered(record, None, Notice(NoticeKind.REFUSED, "s", None, None, "")),
        ]
    )
    page = get("/metrics")[1]
    for line in (
        'psalm_frames_total{status="ok"} 1.0',
        'psalm_objects_total{status="absent"} 2.0',
        'psalm_notices_total{kind="refused"} 1.0',
        'psalm_stage_seconds_bucket{le="0.05",stage="model"} 1.0',
        'psalm_stage_seconds_bucket{le="0.025",stage="model"} 0.0',
        "psalm_answer_age_seconds_count 2.0",
    ):
        assert line in page


def test_a_taken_health_port_is_refused_by_number():
    with socket.socket() as held:
        held.bind(("", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(BadConfig, match=str(port)):
            HealthServer(port, Flow(1.0), Metrics())


# -- slots --------------------------------------------------------------------------------------------------------------


def test_workers_of_one_machine_get_places_of_their_own_and_a_left_one_is_taken_again():
    group = f"test {os.getpid()}"
    with own_slot(group) as first:
        with own_slot(group) as second, own_slot("another " + group) as elsewhere:
            assert len({first, second}) == 2
            assert elsewhere == first
        with own_slot(group) as again:
            assert again == second


def test_the_place_of_a_killed_worker_is_free_at_once():
    group = f"killed {os.getpid()}"
    held = f"from psalm_stream.workers.slot import own_slot\nwith own_slot({group!r}) as s: print(s, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        place = worker.stdout.readline().strip()
        with own_slot(group) as other:
            assert other != place
        worker.kill()
        worker.wait()
        with own_slot(group) as heir:
            assert heir == place

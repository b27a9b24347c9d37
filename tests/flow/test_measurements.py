"""The measurements of the service, each run for some seconds on a real Kafka and a real Redis: what they report, not how fast it was."""

import pytest
from psalm_stream.eval.service.cost import measure
from psalm_stream.eval.service.cost import read_clip as read_cost_clip
from psalm_stream.eval.service.cost import show as show_cost
from psalm_stream.eval.service.load import Load, pictures
from psalm_stream.eval.service.rig import Rig
from psalm_stream.eval.service.soak import Plan, judged, read_clip, soak, write_samples
from psalm_stream.eval.service.soak import show as show_soak
from psalm_stream.eval.service.throughput import parts_of, run, show, show_profile
from psalm_stream.eval.service.verdict import judge_log
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.settings import Settings
from rich.console import Console


@pytest.fixture
def console():
    return Console(record=True, width=160)


def test_the_cost_is_of_identical_answers(servers, console):
    clip = read_cost_clip(None, PromptFlags(), frames=8)
    (pair,) = measure(clip, servers, Settings(threads=1, turn_records=4), 1, lambda path: None)
    assert (len(pair.embedded), len(pair.service), pair.same) == (8, 8, True)
    assert 1 <= pair.turn <= 4
    assert pair.ratio > 0
    assert all(pair.service[-1].cpu_s[process] > pair.service[0].cpu_s[process] for process in ("worker", "broker"))
    show_cost([pair], console)
    assert "ratio (bar 0.95)" in console.export_text()


@pytest.mark.parametrize("rate", [None, 40.0], ids=["saturated", "paced"])
def test_every_frame_of_a_load_is_measured_once(servers, console, tmp_path, rate):
    load = Load(pictures(2, 100), ("a", "b"), frames=12, window=4, rate=rate, warm_up=4)
    profile, seen = tmp_path / "profile", []
    flow = run(servers, load, lambda: seen.append(1), profile if rate is None else None)
    assert flow.frames == len(seen) == len(flow.latency_s) == 12
    assert min(flow.latency_s) > 0
    assert all(flow.cpu_ms(process) > 0 for process in ("worker", "source", "broker", "redis", "subscriber"))
    assert flow.stage_ms.keys() >= {"decode", "plan", "model", "settle"}
    assert 90 < flow.written_kb("broker") < 200  # the picture, the answer, positions; no state, which is for every 50th frame
    assert 20 < flow.written_kb("redis") < 400  # a state with at most three pictures, once a turn, of whatever number of frames
    show({"once": [flow]}, console)
    assert "written to Redis, kB a frame" in console.export_text()
    if rate is None:
        show_profile(profile, 12, console)
        assert all(seconds > 0 and calls > 0 for seconds, calls in parts_of(profile).values()), parts_of(profile)


def test_a_short_soak_with_a_worker_killed_loses_nothing(servers, console, tmp_path):
    plan = Plan(streams=2, seconds=7, rate=1, workers=2, every_s=3, weights="nano")
    rig = Rig.on(servers, partitions=4)
    clip, prompt = read_clip()
    samples, deaths = soak(plan, clip, prompt, rig, lambda sample: None)
    assert deaths == ["SIGTERM", "SIGKILL"]
    verdict = judge_log(rig.cluster)
    assert verdict.good
    assert verdict.accepted == samples[-1].accepted == samples[-1].answered == 2 + 2 * (7 + 1)
    assert samples[-1].rss_mb.keys() >= {"broker", "redis"}
    assert [finding.said for finding in judged(plan, samples, verdict) if not finding.good] == []
    write_samples(samples, tmp_path / "samples.csv")
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == len(samples) + 1
    show_soak(samples, deaths, verdict, console)
    assert "lag, records behind" in console.export_text()

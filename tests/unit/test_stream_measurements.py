"""What the measurements of the service compute from what they saw: eval/service/cost.py, throughput.py, soak.py, steady.py, verdict.py."""

import os
import signal
import time
from collections import Counter

import pytest
from psalm_stream.eval.service.cost import Mark, Pair, cpu_ms, first_turn
from psalm_stream.eval.service.load import SIZE_HW, pictures
from psalm_stream.eval.service.rig import cpu_s, spread
from psalm_stream.eval.service.soak import Plan, death, judged, looped, sparkline
from psalm_stream.eval.service.steady import Sample, at_age, judge_lag, judge_memory, lives
from psalm_stream.eval.service.throughput import Flow
from psalm_stream.eval.service.verdict import judge, name_of
from psalm_stream.stream.bus import Record
from psalm_stream.stream.codec import kind_of, pack
from psalm_stream.stream.pictures import decode_rgb
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, MaskFrame, Notice, NoticeKind, Prompt


def marks(*at_s, digests="abcdefgh", cpu_a_frame_s=0.01, work_s=1.0):
    return [Mark(digest, t, work_s, {"worker": cpu_a_frame_s * n}) for n, (t, digest) in enumerate(zip(at_s, digests, strict=False))]


def record(message, partition=0, offset=0):
    return Record("frames", partition, offset, "s", kind_of(message), pack(message))


def test_the_cpu_of_a_process_is_what_it_says_itself():
    before = time.process_time()
    seen = cpu_s(os.getpid())
    assert before <= seen <= time.process_time()


@pytest.mark.parametrize(
    ("values", "said"), [((1.0,), "1.000"), ((3.0, 1.0, 2.0), "2.000 (1.000 to 3.000)"), ((1.0, 2.0), "1.500 (1.000 to 2.000)")]
)
def test_a_spread_is_median_and_range(values, said):
    assert spread(values) == said


@pytest.mark.parametrize(("offsets", "turn"), [((0, 1, 2, 4, 5), 3), ((7, 9, 10), 1), ((0, 1), 2), ((0,), 1)])
def test_a_turn_ends_where_its_transaction_takes_an_offset(offsets, turn):
    assert first_turn([Record("masks", 0, offset, "s", "mask_frame", b"") for offset in offsets]) == turn


def test_the_ratio_leaves_the_first_turn_out_on_both_sides():
    embedded, service = marks(0, 100, 102, 104), marks(50, 50, 55, 60)
    assert Pair(embedded, service, turn=2, sending_ms={}).ratio == pytest.approx(2 / 5)


def test_the_ratio_of_shares_does_not_see_how_fast_the_work_was():
    embedded, slowed = marks(0, 9, 10, 11, work_s=1.0), marks(0, 9, 19, 29, work_s=8.0)
    assert Pair(embedded, slowed, turn=2, sending_ms={}).share_ratio == pytest.approx(0.8)


def test_cpu_is_per_frame_after_the_first_turn():
    first, *later = marks(0, 1, 2, 3, cpu_a_frame_s=0.25)
    late = [Mark(m.digest, m.at_s, m.work_s, {"worker": m.cpu_s["worker"] + 9}) for m in later]
    assert cpu_ms([first, *late], "worker", 2) == pytest.approx(250)


@pytest.mark.parametrize(("digests", "same"), [("abc", True), ("abd", False), ("acb", False)])
def test_answers_are_the_same_when_every_digest_is(digests, same):
    assert Pair(marks(0, 1, 2), marks(0, 1, 2, digests=digests), 1, {}).same is same


def test_a_latency_is_not_exceeded_by_its_share_of_frames():
    flow = Flow(100, 2.0, tuple(n / 1000 for n in range(101)), {"worker": 0.5}, {}, {"redis": 250_000})
    assert (flow.latency_ms(0.5), flow.latency_ms(0.95)) == pytest.approx((50, 95))
    assert (flow.rate, flow.cpu_ms("worker")) == (50, 5)
    assert flow.written_kb("redis") == pytest.approx(2.5)


def test_pictures_have_the_size_asked_for():
    found = pictures(2, 100)
    assert found[0] != found[1]
    for data in found:
        assert 95e3 < len(data) < 105e3
        assert decode_rgb(data, SIZE_HW).shape == (*SIZE_HW, 3)


@pytest.mark.parametrize(
    ("answered", "wrong"),
    [
        ("a1 b1 a2", {}),
        ("b1 a1 a2", {}),
        ("a1 a2", {"lost": 1}),
        ("a1 b1 a2 a1", {"doubled": 1, "disordered": 1}),
        ("a1 a1 a1 b1 a2", {"doubled": 2}),
        ("a2 a1 b1", {"disordered": 1}),
        ("a1 b1 a2 a3", {"unasked": 1}),
        ("", {"lost": 3}),
    ],
)
def test_a_verdict_counts_what_is_wrong(answered, wrong):
    asked = [("a", "a1"), ("a", "a2"), ("b", "b1")]
    verdict = judge(asked, [(name[0], name) for name in answered.split()])
    counted = {fault: getattr(verdict, fault) for fault in ("lost", "doubled", "unasked", "disordered")}
    assert counted == dict.fromkeys(counted, 0) | wrong
    assert verdict.good == (not wrong)


def test_a_log_without_records_is_not_good():
    assert not judge([], []).good


def test_a_frame_is_named_like_its_masks():
    key = FrameKey("s", "main", 7)
    frame, masks = Frame(key, 0, False, (2, 2), b""), MaskFrame(key, 0, (2, 2), FrameStatus.OK, (), "d")
    assert name_of(record(frame, 1, 30)) == name_of(record(masks, 1, 90)) == ("s", "main", 7)


def test_a_prompt_is_named_like_the_notice_that_answers_it():
    prompt, notice = Prompt(FrameKey("s", "main", 0), "p", remove=(1,)), Notice(NoticeKind.APPLIED, "s", "main", 0, "", ("frames", 1, 30))
    assert name_of(record(prompt, 1, 30)) == name_of(record(notice, 1, 90))


def test_memory_is_compared_at_one_age_of_every_life():
    ages = [(0, 5), (5, 10), (10, 15), (15, 2), (20, 7), (25, 12)]  # of worker 1: a second life from the fourth sample on
    samples = [Sample(t, 0, 0, {"worker 0": 100 + t, "worker 1": 200 + t}, {"worker 0": 50, "worker 1": age}) for t, age in ages]
    assert at_age(samples, 8) == [205, 225]
    assert at_age(samples, 14) == [210]
    assert at_age(samples, 60) == []


def run_of(lives_of, memory, life_s=240, step_s=5):
    """Samples of one worker that is started again every life_s; memory(number of its life, age) in MB."""
    return [
        Sample(t, 0, 0, {"worker 0": memory(t // life_s, t % life_s)}, {"worker 0": t % life_s})
        for t in range(0, lives_of * life_s, step_s)
    ]


def bad(findings):
    return [finding.said.partition(":")[0] for finding in findings if not finding.good]


def test_a_life_ends_where_a_worker_is_younger_than_before():
    assert lives(run_of(2, lambda life, age: 100 * life + 100 + age, life_s=10)) == [[(0, 100), (5, 105)], [(0, 200), (5, 205)]]


def test_a_worker_that_has_just_ended_needs_nothing_and_that_does_not_count():
    assert lives(run_of(1, lambda life, age: 0 if age == 10 else 900, life_s=15)) == [[(0, 900), (5, 900)]]


def test_memory_that_is_noisy_is_flat():
    findings = judge_memory(run_of(5, lambda life, age: (939 + 30 * (-1) ** life) if age > 20 else 300))
    assert len(findings) == 4 + 5  # ages, and lives
    assert bad(findings) == []


def test_a_leak_within_a_life_fails():
    assert bad(judge_memory(run_of(2, lambda life, age: 900 + age))) == ["life 1, 110 s to 235 s", "life 2, 110 s to 235 s"]


def test_memory_that_grows_from_life_to_life_fails_at_every_age():
    said = [f"worker at {age} s, first life to last" for age in (30, 60, 110, 230)]
    assert bad(judge_memory(run_of(5, lambda life, age: 900 + 30 * life))) == said


def test_memory_of_a_run_without_two_lives_is_not_judged():
    (finding,) = judge_memory(run_of(1, lambda life, age: 900 + 9 * age, life_s=30))
    assert finding.good
    assert "memory not judged" in str(finding)


@pytest.mark.parametrize(
    ("lag", "wrong"),
    [
        (lambda n: 4, []),
        (lambda n: 120 if n % 20 == 0 else 4, []),  # after each death
        (lambda n: 121 if n == 7 else 4, ["lag at most"]),
        (lambda n: n / 2, ["lag in the last quarter, median"]),
        (lambda n: 2 * n, ["lag at most", "lag in the last quarter, median"]),
    ],
    ids=["steady", "after deaths", "once too much", "growing", "growing fast"],
)
def test_lag_is_bounded_by_what_comes_in_some_seconds(lag, wrong):
    samples = [Sample(5 * n, 1000, 1000 - lag(n), {}, {}) for n in range(100)]
    assert bad(judge_lag(samples, records_s=4)) == wrong


def test_a_soak_is_judged_by_answers_memory_and_lag():
    plan, samples = Plan(4, 60, 1, 2, 120, "nano"), [Sample(0, 41, 0, {}, {})]
    good, lost = judge([("s", "a")], [("s", "a")]), judge([("s", "a")], [])
    assert bad(judged(plan, samples, good)) == ["lag in the last quarter, median"]
    assert bad(judged(plan, samples, lost)) == ["answers", "lag in the last quarter, median"]
    assert any("memory" in str(finding) for finding in judged(plan, samples, lost))


def test_a_short_run_is_judged_by_its_last_sample():
    assert bad(judge_lag([Sample(0, 41, 0, {}, {})], records_s=4)) == ["lag in the last quarter, median"]


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [((0, 8), 60, " █"), ((0, 0), 60, "  "), ((8, 0, 0, 4), 2, "█▄"), ((5,), 60, "█"), ((1, 2, 4, 8), 60, "▁▂▄█")],
)
def test_a_line_of_blocks_shows_the_largest_of_each_stretch(values, width, line):
    assert sparkline(values, width) == line


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_worker_dies_both_ways_equally_often(workers):
    deaths = [death(number, workers) for number in range(4 * workers)]
    assert Counter(deaths) == {(place, how): 2 for place in range(workers) for how in (signal.SIGTERM, signal.SIGKILL)}


def test_a_looped_clip_goes_there_and_back():
    clip = [Frame(FrameKey("clip", "main", n), 0, False, (2, 2), bytes([n])) for n in range(3)]
    shown = [looped(clip, "s", index) for index in range(6)]
    assert [frame.data[0] for frame in shown] == [0, 1, 2, 1, 0, 1]
    assert [frame.key for frame in shown] == [FrameKey("s", "main", n) for n in range(6)]
    assert all(frame.live for frame in shown)

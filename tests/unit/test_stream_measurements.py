"""What the measurements of the service compute from what they saw: eval/service/cost.py, stream_throughput.py, soak.py, verdict.py."""

import os
import signal
import time
from collections import Counter

import pytest
from psalm_stream.eval.service.cost import Mark, Pair, cpu_ms, first_turn
from psalm_stream.eval.service.load import SIZE_HW, pictures
from psalm_stream.eval.service.rig import cpu_s, spread
from psalm_stream.eval.service.soak import Sample, at_age, death, looped, sparkline
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

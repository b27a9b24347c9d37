"""Sources on a real broker: published whole, resumed exactly, held back by whoever answers, stopped, and never twice."""

import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream import rle
from psalm_stream.stream.codec import End, Kind, pack, unpack
from psalm_stream.stream.errors import Fenced
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import named_errors
from psalm_stream.stream.kafka_sources import Change, SourceLog, home
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Frame, Mask, Notice, NoticeKind, ObjectPrompt, Prompt
from psalm_stream.stream.wanted import Position, Wanted
from psalm_stream.workers.publishing import MAX_AHEAD, SourceRun
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from psalm_stream.workers.streams import positions_now
from scene import ColourSegmenter, frames, mask_of, picture
from source_log import GROUP

PROMPTS = tuple(ObjectPrompt(i, Mask(rle.encode(mask_of(i, 0)))) for i in (1, 2))


def folder_of(path, count):
    path.mkdir()
    for index in range(count):
        (path / f"{index:05}.png").write_bytes(picture(index % 30))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Two hundred pictures: three times as many as may be ahead of who answers."""
    return folder_of(tmp_path / "clip", 200)


def ended(messages):
    return any(isinstance(message, End) for message in messages)


def frames_of(messages):
    return [message for message in messages if isinstance(message, Frame)]


def source_of(url, **how):
    with open_source(url, session="s", **how) as source:
        return list(source)


def wanted(url, run="r", **how):
    return Wanted("s", "main", str(url), run, **how)


def test_a_file_is_published_whole_in_order_and_bit_by_bit_its_prompt_before_its_first_frame(source_log, start_ingest, folder):
    source_log.answered("s")
    source_log.want(wanted(folder, prompts=PROMPTS))
    start_ingest()
    prompt, *sent, end = source_log.until(ended)
    assert sent == source_of(folder)
    assert prompt == Prompt(sent[0].key, "r", PROMPTS)
    assert end == End("s", "main")


def test_a_video_is_published_as_open_source_reads_it_at_the_rate_that_is_wanted(source_log, start_ingest, clip):
    source_log.answered("s")
    source_log.want(wanted(clip, every=3, offset_ns=5))
    start_ingest()
    *sent, _ = source_log.until(ended)
    whole = source_of(clip, view="main")
    assert [(f.key.index, f.t_ns, f.data) for f in sent] == [(i, f.t_ns + 5, f.data) for i, f in enumerate(whole[::3])]


@pytest.fixture
def clip(tmp_path):
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = 72, 96, "yuv420p"
        for index in range(40):
            image = cv2.imdecode(np.frombuffer(picture(index % 30), np.uint8), cv2.IMREAD_COLOR)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return str(path)


def test_a_file_waits_for_who_answers_and_every_frame_gets_its_masks(source_log, start_ingest, folder):
    source_log.want(wanted(folder, prompts=PROMPTS))
    start_ingest()
    source_log.until(lambda found: len(found) > MAX_AHEAD - 20)
    quiet = time.monotonic() + 1.5
    while time.monotonic() < quiet:
        assert len(source_log.read(0.1)) <= MAX_AHEAD
    masks, deadline = [], time.monotonic() + 120
    with closing(KafkaBus(source_log.cluster, Member(source_log.cluster.topic(GROUP), "0", 60.0))) as bus:
        segment = SegmentWorker(bus, MemoryStore(), ColourSegmenter(), Rules(motion="off"), Settings())
        while not any(isinstance(m, Notice) and m.kind == NoticeKind.ENDED for m in masks):
            assert time.monotonic() < deadline
            segment.turn()
            masks += [unpack(r.kind, r.data) for r in source_log.answers()]
            assert len(frames_of(source_log.read())) - len(masks) <= MAX_AHEAD
    applied, *answers, _ = masks
    assert applied.kind == NoticeKind.APPLIED
    assert [m.key.index for m in answers] == list(range(200))
    assert [o.rle for o in answers[0].objects] == [p.shape.rle for p in PROMPTS]
    assert all(o.rle is not None for o in answers[29].objects)


@contextmanager
def process(log, command):
    """A command of the program on the log's broker as a process, killed in the end if it runs."""
    program = str(Path(sys.executable).with_name("psalm-stream"))
    arguments = [program, command, "--kafka", log.cluster.servers, "--topic-prefix", log.cluster.prefix]
    started = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_worker_killed_in_the_middle_of_a_file_loses_and_doubles_no_frame(source_log, tmp_path):
    folder = folder_of(tmp_path / "long", 1200)
    source_log.answered("s")
    source_log.want(wanted(folder, prompts=PROMPTS))
    with process(source_log, "ingest-worker") as first:
        source_log.until(lambda found: len(found) > 100)
        first.kill()
    assert not ended(source_log.read(0.5))
    with process(source_log, "ingest-worker") as heir:
        prompt, *sent, end = source_log.until(ended)
        heir.terminate()
        assert heir.wait(30) == 0
    assert isinstance(prompt, Prompt)
    assert isinstance(end, End)
    assert sent == source_of(folder)


def test_a_broker_killed_under_a_running_source_loses_and_doubles_no_frame(source_log, start_ingest, servers, tmp_path):
    folder = folder_of(tmp_path / "long", 1200)
    source_log.answered("s")
    source_log.want(wanted(folder))
    start_ingest()
    source_log.until(lambda found: len(found) > 50)
    servers.kafka.kill()
    servers.kafka.start()
    *sent, _ = source_log.until(ended)
    assert sent == source_of(folder)


def test_sources_move_to_a_worker_that_joins_and_nothing_is_lost_or_doubled(source_log, start_ingest, tmp_path):
    folder = folder_of(tmp_path / "long", 1200)
    views = [f"view{i}" for i in range(2)]
    sessions = ["a", "b", "c", "d"]
    first = start_ingest()
    for session in sessions:
        source_log.answered(session)
        source_log.want(Wanted(session, views[0], folder, "r"))
    source_log.until(lambda found: len({f.key.session for f in frames_of(found)}) == 4)
    second = start_ingest()
    source_log.until(lambda found: sum(map(ended, ([m] for m in found))) == 4)
    for session in sessions:
        assert [f.key.index for f in frames_of(source_log.messages) if f.key.session == session] == list(range(1200))
    assert {source for worker in (first, second) for source in worker.runs} == {(session, views[0]) for session in sessions}
    assert first.runs
    assert second.runs


def test_a_source_that_is_stopped_ends_its_view_and_publishes_nothing_more(source_log, start_ingest, folder):
    source_log.want(wanted(folder))
    worker = start_ingest()
    source_log.until(lambda found: len(found) > 20)
    source_log.stop("s", "main")
    *sent, end = source_log.until(ended)
    assert end == End("s", "main")
    assert [f.key.index for f in sent] == list(range(len(sent)))
    assert len(sent) < 200
    worker.runs["s", "main"].join(10)
    assert positions_now(source_log.cluster)["s/main"].run == ""


def test_a_stop_that_came_while_no_worker_ran_is_carried_out_by_the_next_once(source_log, start_ingest):
    with closing(SourceLog(source_log.cluster, "s", "main")) as out:
        out.publish(frames(2, session="s"), Position("s", "main", "r", index=1, taken=2, connection=1))
    source_log.want(wanted("gone.mp4"))
    source_log.stop("s", "main")
    source_log.stop("other", "main")
    worker = start_ingest()
    *_, end = source_log.until(ended)
    assert end == End("s", "main")
    again = SourceRun(source_log.cluster, worker.backlog, Change(0, "s", "main", None), lambda batch: None)
    again.start()
    again.join(30)
    assert len(source_log.read(1.0)) == 3


def test_a_source_of_a_partition_that_is_taken_away_stops_at_once(source_log, start_ingest, folder):
    source_log.want(wanted(folder))
    worker = start_ingest()
    source_log.until(lambda found: len(found) > 20)
    run = worker.runs["s", "main"]
    worker.lost([0, 1])
    assert not run.running
    assert worker.runs == {}
    run.join(10)
    came = len(source_log.read(0.5))
    source_log.answered("s")
    assert len(source_log.read(1.0)) == came


def test_a_file_that_is_asked_for_again_starts_over_under_new_indices(source_log, start_ingest, clip):
    source_log.answered("s")
    source_log.want(wanted(clip))
    start_ingest()
    source_log.until(ended)
    source_log.want(wanted(clip, run="again", prompts=PROMPTS))
    source_log.until(lambda found: sum(isinstance(m, End) for m in found) == 2)
    sent, whole = frames_of(source_log.messages), source_of(clip)
    assert [f.key.index for f in sent] == list(range(2 * len(whole)))
    assert [(f.t_ns, f.data) for f in sent[len(whole) :]] == [(f.t_ns, f.data) for f in whole]
    prompts = [(at, m) for at, m in enumerate(source_log.messages) if isinstance(m, Prompt)]
    assert [(at, p.prompt_id, p.key.index) for at, p in prompts] == [(len(whole) + 1, "again", len(whole))]


def test_a_file_that_another_takes_the_place_of_is_ended_first(source_log, start_ingest, folder, clip):
    source_log.want(wanted(folder))
    start_ingest()
    source_log.until(lambda found: len(found) > 20)
    source_log.answered("s")
    source_log.want(wanted(clip, run="other"))
    source_log.until(lambda found: sum(isinstance(m, End) for m in found) == 2)
    at = next(i for i, m in enumerate(source_log.messages) if isinstance(m, End))
    assert [f.data for f in frames_of(source_log.messages[at:])] == [f.data for f in source_of(clip)]
    assert [f.key.index for f in frames_of(source_log.messages)] == list(range(len(frames_of(source_log.messages))))


def test_a_file_that_is_not_there_is_reported_gone(source_log, start_ingest, tmp_path):
    source_log.want(wanted(tmp_path / "none.mp4", prompts=PROMPTS))
    start_ingest()
    gone, end = source_log.until(ended)
    assert (gone.kind, gone.session, gone.view) == (NoticeKind.SOURCE_GONE, "s", "main")
    assert "no such file" in gone.message
    assert end == End("s", "main")


def test_a_url_that_is_given_up_is_reported_gone_without_its_password_and_its_view_is_kept(source_log, start_ingest):
    source_log.want(wanted("rtsp://mallory:hunter2@127.0.0.1:9/x", give_up_s=0.5))
    worker = start_ingest()
    (gone,) = source_log.until(lambda found: found)
    assert gone.kind == NoticeKind.SOURCE_GONE
    assert "given up" in gone.message
    assert "hunter2" not in gone.message
    worker.runs["s", "main"].join(10)
    assert source_log.read(0.5) == [gone]


def test_a_frame_that_its_topic_does_not_take_is_dropped_by_name_and_the_others_come(source_log, start_ingest, tmp_path):
    folder = Path(folder_of(tmp_path / "clip", 3))
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    cv2.imwrite(str(folder / "00001.png"), noise)
    source_log.want(wanted(folder))
    start_ingest()
    zero, dropped, two, _ = source_log.until(ended)
    assert (zero.key.index, dropped.kind, dropped.index, two.key.index) == (0, NoticeKind.DROPPED, 1, 2)
    assert "max.message.bytes" in dropped.message


def test_a_picture_that_is_none_ends_its_folder_by_name_after_the_good_ones(source_log, start_ingest, tmp_path):
    folder = Path(folder_of(tmp_path / "clip", 5))
    (folder / "00003.png").write_bytes(b"no picture")
    source_log.want(wanted(folder))
    start_ingest()
    *sent, gone, _ = source_log.until(ended)
    assert [f.key.index for f in sent] == [0, 1, 2]
    assert (gone.kind, "00003.png" in gone.message) == (NoticeKind.SOURCE_GONE, True)


def test_what_is_no_wanted_state_is_passed_over_and_the_others_run(source_log, start_ingest, clip, caplog):
    source_log.answered("s")
    for key, value in (("s/x", b"random"), ("s", b""), (b"\xff", b"x"), ("s/y", pack(wanted(clip))), ("s/z", pack(End("s")))):
        source_log.append(key, Kind.WANTED, value, "ingest", partition=home("s", source_log.partitions))
    source_log.want(wanted(clip))
    start_ingest()
    source_log.until(ended)
    assert caplog.text.count("is passed over") == 5


# -- the transaction ---------------------------------------------------------------------------------------------------


def test_a_predecessor_is_fenced_and_what_it_left_undecided_is_never_seen(source_log):
    one, two, three = frames(3, session="s")
    first = Position("s", "main", "r", index=0, taken=1)
    with closing(SourceLog(source_log.cluster, "s", "main")) as dead:
        before = dead.publish([one], first)
        dead._producer.begin_transaction()
        dead._producer.send(source_log.cluster.topic("frames"), pack(two), b"s", [("kind", b"frame")], dead.partition).get(timeout=10)
        with closing(SourceLog(source_log.cluster, "s", "main")) as heir:
            assert heir.position() == before
            heir.publish([three], replace(first, index=2, taken=3))
            with pytest.raises(Fenced), named_errors("commit"):
                dead._producer.commit_transaction()
    assert source_log.until(lambda found: len(found) == 2) == [one, three]


def test_a_position_behind_the_open_transaction_of_another_source_is_waited_for(source_log):
    one, two = frames(2, session="s")
    with closing(SourceLog(source_log.cluster, "s", "main")) as out, closing(SourceLog(source_log.cluster, "s", "other")) as other:
        out.publish([one], Position("s", "main", "r", index=0))
        other._producer.begin_transaction()
        other._producer.send(source_log.cluster.topic("positions"), b"x", b"s/other", [], out.partition).get(timeout=10)
        last = out.publish([two], Position("s", "main", "r", index=1))
        with closing(SourceLog(source_log.cluster, "s", "main")) as heir:
            undecided = threading.Timer(1.0, other._producer.abort_transaction)
            undecided.start()
            assert heir.position() == last
            undecided.join()


def test_an_old_position_is_found_behind_many_others(source_log, monkeypatch):
    monkeypatch.setattr("psalm_stream.stream.kafka_sources.RECENT", 5)
    (one,) = frames(1, session="s")
    with closing(SourceLog(source_log.cluster, "s", "main")) as out, closing(SourceLog(source_log.cluster, "s", "other")) as other:
        last = out.publish([one], Position("s", "main", "r", index=0))
        for index in range(9):
            other.publish([], Position("s", "other", "r", index=index))
    with closing(SourceLog(source_log.cluster, "s", "main")) as heir:
        assert heir.position() == last

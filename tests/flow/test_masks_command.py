"""`psalm-stream masks` as a process on a real broker: lines, JSON, files, an overlay of pictures that are or are not kept, clean ends."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from answers import SIZE_HW, commit, mask_of, masks, notice, partition_of
from kafka import TopicPartition
from PIL import Image
from psalm_stream.stream.codec import digest, mask_frame_from_json
from psalm_stream.stream.kafka_client import open_cluster
from psalm_stream.stream.kafka_topics import create_topics
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, NoticeKind
from psalm_stream.workers.mask_files import folder_of, fps_of
from psalm_stream.workers.masks import line_of

PROGRAM = str(Path(sys.executable).with_name("psalm-stream"))
PARTITIONS, DEADLINE_S = 2, 60
PLAYED = 12


@pytest.fixture
def cluster(servers):
    cluster = open_cluster(servers.kafka.address, prefix=f"{uuid.uuid4().hex[:8]}.")
    create_topics(cluster, PARTITIONS)
    return cluster


@contextmanager
def started(cluster, *flags):
    """The command as a process that hears Ctrl-C even when these tests are a background job, and does not outlive its test."""
    environment = os.environ | {"PSALM_KAFKA": cluster.servers, "PSALM_TOPIC_PREFIX": cluster.prefix, "COLUMNS": "200"}
    command = [PROGRAM, "masks", "--session", "s", *map(str, flags)]
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    with process:
        try:
            yield process
        finally:
            process.kill()


def call(cluster, *flags, code=0):
    """stdout and stderr of a call that must end with `code`."""
    with started(cluster, *flags) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def answered(cluster, *messages):
    commit(cluster, PARTITIONS, "masks", *messages)


def picture(index, view="main", grey=120):
    """Frame `index`: one grey all over."""
    data = cv2.imencode(".png", np.full((*SIZE_HW, 3), grey, np.uint8))[1].tobytes()
    return Frame(FrameKey("s", view, index), index * 40_000_000, False, SIZE_HW, data)


def video_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]


def until_there_are(count, folder, pattern, process):
    until = time.monotonic() + DEADLINE_S
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < until
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def test_json_is_one_line_an_answer_and_nothing_else(cluster):
    said = [notice(), masks(0), masks(1), notice(NoticeKind.ENDED, view=None)]
    answered(cluster, *said)
    out, err = call(cluster, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line.get("kind") for line in lines] == ["applied", None, None, "ended"]
    assert [digest(mask_frame_from_json(line)) for line in lines[1:3]] == [digest(masks(0)), digest(masks(1))]
    assert "2 frames and 2 notices" in err


def test_people_get_a_line_a_frame(cluster):
    answered(cluster, masks(7), notice(NoticeKind.REFUSED, message="no such object"))
    out, _ = call(cluster)
    assert out.splitlines() == ["main/00007     0.280 s  ok           1 cup seen 0.75, 2 absent", "main  refused      no such object"]


def test_out_holds_what_run_would_write(cluster, tmp_path):
    answered(cluster, *map(masks, range(3)), notice())
    _, err = call(cluster, "--view", "main", "--out", tmp_path / "out")
    files = sorted((tmp_path / "out" / "masks").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    for index, file in enumerate(files):
        with Image.open(file) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), mask_of(index))
    lines = (tmp_path / "out" / "masks.jsonl").read_text().splitlines()
    assert [digest(mask_frame_from_json(json.loads(line))) for line in lines] == [digest(masks(index)) for index in range(3)]
    assert "applied" in err


def test_every_view_has_a_folder_when_none_is_chosen(cluster, tmp_path):
    answered(cluster, masks(0), masks(0, view="../left"))
    call(cluster, "--out", tmp_path / "out")
    found = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png"))
    assert found == ["masks/..%2Fleft/00000.png", "masks/main/00000.png"]


@pytest.mark.parametrize(("view", "name"), [("main", "main"), ("..", "%2E%2E"), (".", "%2E"), ("a/b", "a%2Fb"), ("ä b", "%C3%A4 b")])
def test_a_view_cannot_leave_the_folder(view, name):
    assert folder_of(view) == name


def test_the_overlay_shows_each_picture_under_its_masks(cluster, tmp_path):
    greys = [40 + 15 * index for index in range(PLAYED)]
    commit(cluster, PARTITIONS, "frames", *(picture(index, grey=grey) for index, grey in enumerate(greys)), picture(0, "left"))
    answered(cluster, *map(masks, range(PLAYED)))
    call(cluster, "--overlay", tmp_path / "deep" / "o.mp4")
    rate, images = video_of(tmp_path / "deep" / "o.mp4")
    assert rate == 25
    assert [abs(image[60, 90].mean() - grey) < 12 for image, grey in zip(images, greys, strict=True)] == [True] * PLAYED
    for index, image in enumerate(images):
        red, green, blue = image[36, 2 * index + 34]
        assert red > max(green, blue) + 20  # the colour of object 1


def test_pictures_without_an_answer_are_passed_over(cluster, tmp_path):
    greys = [20, 200, 20, 120]
    commit(cluster, PARTITIONS, "frames", *(picture(index, grey=grey) for index, grey in enumerate(greys)))
    answered(cluster, masks(1), masks(3))
    call(cluster, "--overlay", tmp_path / "o.mp4")
    _, images = video_of(tmp_path / "o.mp4")
    assert [abs(image[60, 90].mean() - grey) < 12 for image, grey in zip(images, greys[1::2], strict=True)] == [True, True]


def test_masks_outlive_their_pictures_on_black(cluster, tmp_path):
    commit(cluster, PARTITIONS, "frames", *(picture(index, grey=200) for index in range(4)))
    answered(cluster, *map(masks, range(4)))
    admin = cluster.admin()
    admin.delete_records({TopicPartition(cluster.topic("frames"), partition_of("s", PARTITIONS)): 2})
    admin.close()
    _, err = call(cluster, "--overlay", tmp_path / "o.mp4")
    _, images = video_of(tmp_path / "o.mp4")
    assert [image[60, 90].mean() > 150 for image in images] == [False, False, True, True]
    assert images[1][36, 36].max() > 40
    assert err.count("drawn on black") == 2  # said once, and counted
    assert "2 drawn on black" in err


def test_a_frame_larger_than_any_picture_is_not_painted_and_said(cluster, tmp_path):
    answered(cluster, masks(0, status=FrameStatus.UNDECODABLE, size_hw=(10**5, 10**5)), masks(1))
    _, err = call(cluster, "--view", "main", "--out", tmp_path / "out", "--overlay", tmp_path / "o.mp4")
    assert [file.name for file in (tmp_path / "out" / "masks").iterdir()] == ["00001.png"]
    assert "not painted" in err
    assert len(video_of(tmp_path / "o.mp4")[1]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_a_follower_leaves_readable_files(cluster, tmp_path, number):
    answered(cluster, *map(masks, range(3)))
    with started(cluster, "--follow", "--view", "main", "--out", tmp_path / "out", "--overlay", tmp_path / "o.mp4") as process:
        until_there_are(3, tmp_path / "out" / "masks", "*.png", process)
        answered(cluster, masks(3))
        until_there_are(4, tmp_path / "out" / "masks", "*.png", process)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert "stopped" in err
    assert len(video_of(tmp_path / "o.mp4")[1]) == 4
    assert len((tmp_path / "out" / "masks.jsonl").read_text().splitlines()) == 4


def test_a_follower_ends_by_itself_when_its_session_has(cluster):
    answered(cluster, masks(0), notice(NoticeKind.ENDED, view=None), masks(1))  # the session began anew
    with started(cluster, "--follow", "--json") as process:
        assert [json.loads(process.stdout.readline()).get("index") for _ in range(3)] == [0, None, 1]
        answered(cluster, masks(2), notice(NoticeKind.ENDED, view=None))
        out, err = process.communicate(timeout=DEADLINE_S)
    assert [json.loads(line).get("index") for line in out.splitlines()] == [2, None]
    assert process.returncode == 0, err


def test_the_next_call_goes_on_where_the_last_one_said(cluster):
    answered(cluster, *map(masks, range(3)))
    _, err = call(cluster, "--json")
    answered(cluster, *map(masks, range(3, 5)))
    out, _ = call(cluster, "--json", "--from", err.rpartition("--from ")[2].split()[0])
    assert [json.loads(line)["index"] for line in out.splitlines()] == [3, 4]


@pytest.mark.parametrize("flags", [(), ("--follow", "--wait", "1")])
def test_an_unknown_session_is_named_with_the_remedy(cluster, flags):
    answered(cluster, masks(0, session="other"))
    _, err = call(cluster, *flags, code=2)
    assert "session 's' has no answer in topic " + cluster.topic("masks") in err
    assert "psalm-stream streams" in err


def test_an_unknown_view_is_named_with_those_there_are(cluster):
    answered(cluster, masks(0), masks(0, view="left"))
    _, err = call(cluster, "--view", "right", code=2)
    assert "view 'right' of session 's' has no answer" in err
    assert "its views are left, main" in err


def test_nothing_new_behind_an_offset_is_no_mistake(cluster):
    answered(cluster, masks(0))
    _, err = call(cluster, "--json")
    offset = err.rpartition("--from ")[2].split()[0]
    out, err = call(cluster, "--json", "--from", offset)
    assert out == ""
    assert f"read from {offset}" in err


def test_an_answer_that_cannot_be_read_is_said_and_passed_over(cluster):
    answered(cluster, masks(0), ("s", "notice", b"\xc1"), masks(1))
    out, err = call(cluster, "--json")
    assert len(out.splitlines()) == 2
    assert f"passed over: topic {cluster.topic('masks')}, partition {partition_of('s', PARTITIONS)}, offset 1:" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--from", "yesterday"), "--from is 'yesterday', expected earliest, latest or an offset"),
        (("--from", "-3"), "--from is '-3'"),
        (("--from", "latest"), "without --follow reads nothing"),
        (("--from", "99"), "offset 99 is never there"),
        (("--kafka", "nowhere"), "Kafka broker is 'nowhere', expected HOST:PORT"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(cluster, flags, said):
    _, err = call(cluster, *flags, code=2)
    assert said in err


def test_results_that_are_there_are_replaced_only_when_told(cluster, tmp_path):
    answered(cluster, *map(masks, range(2)))
    where = ["--out", tmp_path / "out", "--overlay", tmp_path / "o.mp4"]
    call(cluster, *where)
    stale = tmp_path / "out" / "masks" / "main" / "00099.png"
    stale.write_bytes(b"")
    _, err = call(cluster, *where, code=2)
    assert "--overwrite" in err
    assert stale.exists()
    call(cluster, *where, "--overwrite")
    assert not stale.exists()


def test_text_from_the_log_cannot_speak_to_the_terminal():
    told = line_of(replace(masks(0, view="a\x1b[2J"), message="b\x07\nc"))
    assert all(part.isprintable() for part in told)


@pytest.mark.parametrize(
    ("times_ms", "fps"),
    [
        ([0, 40, 80], 25.0),
        ([0], 25.0),
        ([], 25.0),
        ([0, 0, 0], 25.0),
        ([0, 100, 200, 5000, 5100], 10.0),
        ([0, 3_600_000], 1.0),
        ([0, 1], 240.0),
    ],
)
def test_the_rate_of_a_video_is_told_by_its_capture_times(times_ms, fps):
    assert fps_of([ms * 1_000_000 for ms in times_ms]) == pytest.approx(fps)

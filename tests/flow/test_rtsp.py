"""A real RTSP camera under a running ingest worker: killed, stalled and started again, its frames resume by themselves."""

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.codec import unpack
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Box, Frame, FrameStatus, MaskFrame, Notice, NoticeKind, ObjectPrompt, ObjectStatus
from psalm_stream.stream.wanted import Wanted
from psalm_stream.workers.dev_server import free_ports
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, picture
from source_log import GROUP

PYTHON = "/usr/bin/python3"  # Debian's, which has GStreamer: deploy/servers
SERVER = Path(__file__).parents[1] / "rtsp_server.py"
VIDEO = Path(__file__).parents[3] / "shared" / "videos" / "bedroom.mp4"
NEEDS = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("multifilesrc", "jpegdec", "x264enc", "rtph264pay")))
"""
FPS = 15
HEIGHT = 180


class Camera:
    """The RTSP server as a process that dies, stalls and returns on its port."""

    def __init__(self, folder):
        (self.port,) = free_ports(1)
        self.command = [PYTHON, str(SERVER), str(self.port), str(folder), str(FPS)]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


def jpegs():
    """Three seconds of a real video, of a drawn clip where there is none."""
    if VIDEO.exists():
        with open_source(str(VIDEO), session="s", limit=3 * FPS) as source:
            yield from (frame.pixels()[..., ::-1] for frame in source)
    else:
        for index in range(3 * FPS):
            yield cv2.imdecode(np.frombuffer(picture(index % 30), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camera")
    for index, image in enumerate(jpegs()):
        width = round(image.shape[1] * HEIGHT / image.shape[0]) // 2 * 2
        cv2.imwrite(str(folder / f"{index:05}.jpg"), cv2.resize(image, (width, HEIGHT)))
    return folder


@pytest.fixture
def camera(pictures):
    has = Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode == 0
    if not has and not os.environ.get("CI"):
        pytest.skip("needs GStreamer's RTSP server: run deploy/servers")
    with closing(Camera(pictures)) as camera:
        camera.start()
        yield camera


@pytest.fixture
def answers(source_log):
    """What a segment worker in a thread answers to everything, in order."""
    found, stop = [], threading.Event()

    def answer():
        with closing(KafkaBus(source_log.cluster, Member(source_log.cluster.topic(GROUP), "0", 60.0))) as bus:
            segment = SegmentWorker(bus, MemoryStore(), DriftSegmenter(), Rules(motion="off"), Settings())
            while not stop.is_set():
                segment.turn()

    thread = threading.Thread(target=answer)
    thread.start()
    yield found
    stop.set()
    thread.join()


def gaps(messages):
    return [m for m in messages if isinstance(m, Notice) and m.kind == NoticeKind.GAP]


def after_gap(messages, number):
    """The frames after the gap of this number, counted from 1."""
    seen = 0
    for message in messages:
        seen += message in gaps([message])
        if seen >= number and isinstance(message, Frame):
            yield message


def wait_for(true, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_and_masks_resume_when_a_camera_is_killed_stalled_and_started_again(
    source_log, start_ingest, camera, answers, transport, caplog
):
    url = f"rtsp://mallory:hunter2@127.0.0.1:{camera.port}/camera"
    prompts = (ObjectPrompt(1, Box((20.0, 20.0, 120.0, 120.0))),)
    source_log.want(Wanted("s", "main", url, "r", transport=transport, prompts=prompts))
    start_ingest()
    source_log.until(lambda found: len(found) > FPS)
    prompt = source_log.messages.pop(0)
    assert prompt.objects == prompts

    camera.close()
    tries = caplog.text.count("next try")
    wait_for(lambda: caplog.text.count("next try") >= tries + 2)
    camera.start()
    source_log.until(lambda found: len(list(after_gap(found, 1))) > FPS)

    camera.pause()
    tries = caplog.text.count("next try")
    wait_for(lambda: caplog.text.count("next try") > tries)
    camera.resume()
    messages = source_log.until(lambda found: len(list(after_gap(found, 2))) > FPS)

    frames = [m for m in messages if isinstance(m, Frame)]
    assert all(f.live for f in frames)
    assert indices(messages) == list(range(frames[-1].key.index + 1))
    times = [f.t_ns for f in frames]
    assert times == sorted(set(times))
    assert [re.search(r"connection (\d+)", gap.message)[1] for gap in gaps(messages)][:2] == ["2", "3"]
    for gap in gaps(messages):
        before = max(f.t_ns for f in frames if f.key.index < gap.index)
        behind = min(f.t_ns for f in frames if f.key.index >= gap.index)
        assert behind - before > 0.5e9
    assert "hunter2" not in caplog.text + str([m for m in messages if isinstance(m, Notice)])

    last = frames[-1].key.index
    wait_for(lambda: read_answers(source_log, answers) >= last)
    masks = [a for a in answers if isinstance(a, MaskFrame) and a.key.index <= last]
    assert [m.key for m in masks] == [f.key for f in frames]
    assert {m.status for m in masks} <= {FrameStatus.OK, FrameStatus.DISTRUSTED}
    assert any(o.status == ObjectStatus.SEEN for m in masks[-FPS:] for o in m.objects)


def indices(messages):
    """Of the frames that came and of those that are reported as dropped, in order."""
    found = []
    for message in messages:
        if isinstance(message, Frame):
            found.append(message.key.index)
        elif message.kind == NoticeKind.DROPPED:
            found += range(message.index, int(re.search(r"dropped, \d+ to (\d+)", message.message)[1]) + 1)
    return found


def read_answers(log, answers):
    answers += [unpack(r.kind, r.data) for r in log.answers()]
    return max((a.key.index for a in answers if isinstance(a, MaskFrame)), default=-1)

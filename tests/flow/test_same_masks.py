"""The same clip through `run` and through Kafka and Redis: the same answers, whoever of the workers gave them."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from psalm_stream.stream.codec import digest, kind_of, mask_frame_from_json, pack
from psalm_stream.stream.kafka_client import headers, open_cluster
from psalm_stream.stream.kafka_topics import create_topics
from psalm_stream.stream.reader import MaskReader
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.types import MaskFrame
from psalm_stream.stream.views import View, open_views
from psalm_stream.workers.demo import draw
from psalm_stream.workers.prompt_flags import PromptFlags, prompts
from psalm_stream.workers.run import SESSION

PROGRAM = str(Path(sys.executable).with_name("psalm-stream"))
FRAMES, PARTITIONS, PATIENCE_S = 12, 2, 300
OTHERS = ("hall", "yard", "roof", "gate")  # with SESSION in both partitions


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A drawn clip, its mask, and what `run` answers to it: digests by frame."""
    folder = tmp_path_factory.mktemp("clip")
    video, mask = draw(folder)
    asked = [PROGRAM, "run", str(video), "--out", str(folder / "out"), "--mask", str(mask), "--limit", str(FRAMES), "--threads", "1"]
    subprocess.run([*asked, "--no-overlay", "--quiet"], check=True)
    return video, mask, digests_in(folder / "out")


def digests_in(results):
    lines = (results / "masks.jsonl").read_text().splitlines()
    return [digest(mask_frame_from_json(json.loads(line))) for line in lines]


class Workers:
    """Segment workers as processes, on topics of their own."""

    def __init__(self, servers):
        prefix = f"t{uuid.uuid4().hex[:8]}."
        self.cluster = open_cluster(servers.kafka.address, prefix=prefix)
        create_topics(self.cluster, PARTITIONS)
        self.environment = os.environ | {
            "PSALM_KAFKA": servers.kafka.address,
            "PSALM_REDIS": servers.redis_url,
            "PSALM_TOPIC_PREFIX": prefix,
            "PSALM_THREADS": "1",
        }
        self.processes = []

    def start(self):
        self.processes.append(subprocess.Popen([PROGRAM, "segment-worker"], env=self.environment))
        return self.processes[-1]

    def send(self, session, video, mask):
        """The clip as a source sends it, its prompt before its first frame."""
        with open_source(str(video), session=session, limit=FRAMES) as frames:
            self.send_all(session, [*prompts(PromptFlags(masks=(str(mask),)).parse(), session), *frames])

    def send_all(self, session, messages):
        producer = self.cluster.producer()
        for message in messages:
            producer.send(self.cluster.topic("frames"), pack(message), session.encode(), headers(kind_of(message)))
        producer.flush()
        producer.abandon()

    def wait_for(self, session, count):
        """The first `count` masks of a session."""
        until, found = time.monotonic() + PATIENCE_S, []
        with MaskReader(self.cluster, session, follow=True) as reader:
            while len(found) < count:
                answer = reader.read(1.0)
                assert time.monotonic() < until, f"{len(found)} of {count} masks of {session} after {PATIENCE_S} s"
                assert all(process.poll() in (None, 0) for process in self.processes)
                found += [answer] if isinstance(answer, MaskFrame) else []
        return found


@pytest.fixture
def workers(servers):
    running = Workers(servers)
    yield running
    for process in running.processes:
        process.kill()
        process.wait()


def test_one_worker_gives_the_masks_of_run(workers, clip):
    video, mask, expected = clip
    workers.send(SESSION, video, mask)
    worker = workers.start()
    assert [digest(masks) for masks in workers.wait_for(SESSION, FRAMES)] == expected
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_two_views_of_a_scene_get_the_masks_of_run(workers, tmp_path):
    subprocess.run([sys.executable, "-m", "psalm_stream.eval.two_cameras", tmp_path, "--frames", str(FRAMES)], check=True)
    views, named = [View(name, str(tmp_path / f"{name}.mp4")) for name in ("ego", "exo")], (f"ego/{tmp_path / 'first.png'}",)
    asked = [PROGRAM, "run", *(f"--view={view.name}={view.url}" for view in views), "--mask", *named, "--out", str(tmp_path / "out")]
    subprocess.run([*asked, "--threads", "1", "--no-overlay", "--quiet"], check=True)
    with open_views(views, session=SESSION) as frames:
        workers.send_all(SESSION, [*prompts(PromptFlags(masks=named).parse(("ego", "exo")), SESSION), *frames])
    workers.start()
    found = workers.wait_for(SESSION, 2 * FRAMES)
    for view in views:
        assert [digest(masks) for masks in found if masks.key.view == view.name] == digests_in(tmp_path / "out" / view.name)
    assert {o.object_id for masks in found if masks.key.view == "exo" for o in masks.objects} == {1, 2, 3, 4}


def test_two_workers_one_of_which_joins_late_and_one_leaves_early_give_the_masks_of_run(workers, clip):
    video, mask, expected = clip
    for session in (SESSION, *OTHERS):
        workers.send(session, video, mask)
    first = workers.start()
    workers.wait_for(SESSION, 2)
    workers.start()
    workers.wait_for(SESSION, 6)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert [digest(masks) for masks in workers.wait_for(SESSION, FRAMES)] == expected
    for session in OTHERS:
        assert len(workers.wait_for(session, FRAMES)) == FRAMES

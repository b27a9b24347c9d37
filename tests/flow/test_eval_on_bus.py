"""`psalm-stream eval davis --bus` through a real broker and a real segment worker: the masks of the same evaluation in one process."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from davis_folder import davis_2017
from PIL import Image
from psalm_stream.stream.kafka_client import open_cluster
from psalm_stream.stream.kafka_topics import create_topics
from psalm_stream.stream.reader import MaskReader
from psalm_stream.stream.types import Notice, NoticeKind
from psalm_stream.workers.cli.app import app
from typer.testing import CliRunner

PROGRAM = str(Path(sys.executable).with_name("psalm-stream"))
FRAMES = 20  # more than are under way at a time


@pytest.fixture(scope="module")
def cluster(servers):
    """Topics of their own."""
    found = open_cluster(servers.kafka.address, prefix=f"t{uuid.uuid4().hex[:8]}.")
    create_topics(found, 2)
    return found


@pytest.fixture
def worker(servers, cluster):
    """A segment worker as a process."""
    knobs = {"KAFKA": servers.kafka.address, "REDIS": servers.redis_url, "TOPIC_PREFIX": cluster.prefix, "THREADS": "1"}
    process = subprocess.Popen([PROGRAM, "segment-worker"], env=os.environ | {f"PSALM_{name}": value for name, value in knobs.items()})
    yield process
    process.kill()
    process.wait()


def evaluate(root, out, *flags):
    return CliRunner().invoke(app, ["eval", "davis", str(root), "--out", str(out), "--quiet", *flags])


def through(cluster):
    return "--bus", f"kafka://{cluster.servers}", "--topic-prefix", cluster.prefix


def results(out):
    return json.loads((out / "results.json").read_text())


def masks(out):
    return {str(path.relative_to(out)): np.array(Image.open(path)) for path in sorted(out.glob("*/*.png"))}


def test_without_a_worker_the_evaluation_says_what_is_missing_and_ends_its_session(cluster, tmp_path):
    result = evaluate(davis_2017(tmp_path / "davis"), tmp_path / "out", *through(cluster), "--wait", "2")
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "no answer to frame eval-" in said
    assert "within 2 s; see that a psalm-stream segment-worker runs on this broker" in said


def test_an_evaluation_through_a_broker_gives_the_masks_of_one_in_process(cluster, worker, tmp_path):
    root = davis_2017(tmp_path / "davis", frames=FRAMES)
    embedded = evaluate(root, tmp_path / "embedded", "--threads", "1")
    streamed = evaluate(root, tmp_path / "streamed", *through(cluster))
    assert (embedded.exit_code, streamed.exit_code) == (0, 0), streamed.stderr
    ours, theirs = masks(tmp_path / "embedded"), masks(tmp_path / "streamed")
    assert len(ours) == 2 * FRAMES
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    here, there = results(tmp_path / "embedded"), results(tmp_path / "streamed")
    assert here["scores"] == there["scores"]
    assert here["method"]["weights_digest"] == there["method"]["weights_digest"]
    assert any("as these were started" in remark for remark in there["remarks"])
    assert set(there["sequences"][0]["run"]["ms"]) == {"decode", "plan", "model", "settle", "write"}
    kept = evaluate(root, tmp_path / "streamed", *through(cluster))
    assert kept.exit_code == 0
    until_ended(cluster, 3)  # one of them the session that had no worker


def until_ended(cluster, sessions):
    """Every session was ended: no worker keeps its state."""
    with MaskReader(cluster, None, follow=True) as answers:
        ended = 0
        while ended < sessions:
            answer = answers.read(60.0)
            assert answer is not None, f"{ended} of {sessions} sessions ended"
            ended += isinstance(answer, Notice) and answer.kind == NoticeKind.ENDED

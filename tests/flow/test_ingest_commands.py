"""The commands around a running stream: what they say, what they change, and that they show no password."""

import re
import threading
from contextlib import closing

import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.codec import End
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_sources import SourceLog
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Frame, Prompt
from psalm_stream.stream.wanted import Position
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from psalm_stream.workers.streams import positions_now, streams, wanted_now
from scene import ColourSegmenter, box_of, picture
from source_log import GROUP
from typer.testing import CliRunner

PICTURES = 20000


def box(object_id, index=0):
    return f"{object_id}:{','.join(str(v) for v in box_of(object_id, index))}"


@pytest.fixture
def psalm_stream(source_log):
    """Run a command on the log's broker: exit code and what it prints, in one line."""

    def run(*arguments):
        at = ["--kafka", source_log.cluster.servers, "--topic-prefix", source_log.cluster.prefix]
        result = CliRunner().invoke(app, [*map(str, arguments), *at])
        return result.exit_code, " ".join(result.output.split())

    return run


@pytest.fixture
def answering(source_log):
    """A segment worker in a thread."""
    stop = threading.Event()

    def answer():
        with closing(KafkaBus(source_log.cluster, Member(source_log.cluster.topic(GROUP), "0", 60.0))) as bus:
            segment = SegmentWorker(bus, MemoryStore(), ColourSegmenter(), Rules(motion="off"), Settings())
            while not stop.is_set():
                segment.turn()

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    """A scene that stands still, longer than any test looks at it: at 130 answers a second more than two minutes."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (first := folder / "00000.png").write_bytes(picture(0))
    for index in range(1, PICTURES):
        (folder / f"{index:05}.png").hardlink_to(first)
    return folder


def test_a_stream_is_started_prompted_looked_at_and_stopped(source_log, start_ingest, answering, psalm_stream, folder):
    start_ingest()
    code, said = psalm_stream("ingest", folder, "--session", "s", "--box", box(1), "--every", 1)
    assert (code, said) == (0, f"wanted s/main: {folder}")
    prompt, first = source_log.until(lambda found: len(found) > 1)[:2]
    assert isinstance(prompt, Prompt)
    assert (first.key.index, [o.object_id for o in prompt.objects]) == (0, [1])

    code, said = psalm_stream("prompt", "s", "--box", box(2), "--id", "p", "--wait", 150)
    assert (code, said.startswith("applied prompt p ok frame s/main/")) == (0, True), said
    assert said.endswith("1 seen, 2 seen")
    assert psalm_stream("prompt", "s", "--box", box(2), "--id", "p", "--wait", 150) == (0, "duplicate prompt p")
    code, said = psalm_stream("prompt", "s", "--remove", 9)
    assert (code, "refused" in said, "object 9 is not tracked" in said) == (2, True, True), said

    (stream,) = streams(source_log.cluster, source_log.cluster.topic(GROUP))
    assert (stream.wanted.name, stream.worker, stream.position.done) == ("s/main", "worker-0", False)
    assert stream.fps > 0
    assert [o.object_id for o in stream.objects] == [1, 2]
    code, said = psalm_stream("streams")
    assert (code, all(word in said for word in ("worker-0", "s main"))) == (0, True), said

    assert psalm_stream("stop", "s") == (0, "stopped s: main")
    *_, view_end, session_end = source_log.until(lambda found: End("s") in found)
    assert (view_end, session_end) == (End("s", "main"), End("s"))
    assert sum(isinstance(m, Frame) for m in source_log.messages) < PICTURES
    assert wanted_now(source_log.cluster) == {}
    assert positions_now(source_log.cluster)["s/main"].run == ""
    assert psalm_stream("streams")[1].startswith("nothing is to run")


def test_a_prompt_that_nobody_answers_says_so(source_log, psalm_stream):
    code, said = psalm_stream("prompt", "s", "--box", box(1), "--id", "p", "--wait", 1)
    assert (code, said) == (3, "note prompt p was sent, and not answered within 1 s")


def test_a_stop_that_no_worker_confirms_says_so_and_ends_the_session(source_log, psalm_stream):
    psalm_stream("ingest", "clip.mp4", "--session", "s", "--view", "left")
    with closing(SourceLog(source_log.cluster, "s", "left")) as out:
        out.publish([], Position("s", "left", "r", index=0))
    code, said = psalm_stream("stop", "s", "--wait", 0.5)
    assert code == 0
    assert said == "stopped s: left note no ingest worker has ended left within 0.5 s; the next one to run does"
    assert source_log.until(lambda found: found) == [End("s")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ingest", "x.mp4", "--session", "a/b"], "session is 'a/b'"),
        (["ingest", "x.mp4", "--session", "s", "--transport", "pigeon"], "'pigeon', expected tcp or udp"),
        (["ingest", "x.mp4", "--session", "s", "--box", "1@5:0,0,9,9"], "leave @5 out"),
        (["prompt", "s"], "no object was named"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(source_log, psalm_stream, arguments, named):
    code, said = psalm_stream(*arguments)
    assert (code, named in said) == (2, True), said
    assert wanted_now(source_log.cluster) == {}


def test_no_command_shows_a_password(source_log, psalm_stream):
    secret = "rtsp://mallory:hunter2@127.0.0.1:9/x?token=hunter2"
    shown = psalm_stream("ingest", secret, "--session", "s", "--give-up", 0.2)[1] + psalm_stream("streams")[1]
    assert "hunter2" not in shown
    assert len(re.findall(r"\*\*\*@127", shown)) == 2
    assert wanted_now(source_log.cluster)["s/main"].url == secret


def test_a_command_without_a_broker_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("PSALM_KAFKA", raising=False)
    result = CliRunner().invoke(app, ["streams"])
    assert (result.exit_code, "give --kafka or PSALM_KAFKA" in " ".join(result.output.split())) == (2, True)

"""Clients that are not ours, as stream/WIRE.md tells them to: kcat, and msgpack and pycocotools on what it brings."""

import json
import os
import re
import shutil
import subprocess
import time
import uuid

import msgpack
import numpy as np
import pytest
from answers import abort, commit, mask_of, masks, notice, partition_of, transaction
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.codec import SCHEMA, mask_frame_json, pack
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import open_cluster
from psalm_stream.stream.kafka_topics import create_topics
from psalm_stream.stream.reader import MaskReader
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import MaskFrame, NoticeKind
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from pycocotools import mask as coco
from scene import ColourSegmenter, frames, mask_prompt
from scene import mask_of as mask_in_scene

PARTITIONS = 5
MESSAGE = re.compile(rb"<(?P<key>.*?)\|(?P<partition>\d+)\|(?P<offset>\d+)\|(?P<headers>.*?)\|(?P<size>\d+)>", re.DOTALL)
DEADLINE_S = 60


@pytest.fixture
def cluster(servers):
    cluster = open_cluster(servers.kafka.address, prefix=f"{uuid.uuid4().hex[:8]}.")
    create_topics(cluster, PARTITIONS)
    return cluster


@pytest.fixture(scope="module", autouse=True)
def program():
    if shutil.which("kcat") is None and not os.environ.get("CI"):
        pytest.skip("no kcat on this machine: run deploy/servers")


def kcat(cluster, topic, *arguments):
    command = ["kcat", "-b", cluster.servers, "-t", cluster.topic(topic), "-q", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S).stdout


def consumed(cluster, *arguments):
    """What kcat reads of `masks`: (key, partition, offset, headers, value) each."""
    read = ["-X", "isolation.level=read_committed", "-X", "check.crcs=true", "-f", "<%k|%p|%o|%h|%S>%s"]
    data = kcat(cluster, "masks", "-C", "-e", "-o", "beginning", *read, *arguments)
    found = []
    while data:
        head = MESSAGE.match(data)
        value, data = data[head.end() :][: int(head["size"])], data[head.end() + int(head["size"]) :]
        headers = dict(pair.split("=") for pair in head["headers"].decode().split(","))
        found.append((head["key"].decode(), int(head["partition"]), int(head["offset"]), headers, value))
    return found


def produce(cluster, kind, message, folder, session="run"):
    """Send a message as a file of its own, by a partitioner that agrees with ours."""
    file = folder / f"{uuid.uuid4().hex}.msgpack"
    file.write_bytes(pack(message))
    how = ["-X", "partitioner=murmur2_random", "-k", session, "-H", f"kind={kind}", "-H", f"schema={SCHEMA}"]
    kcat(cluster, "frames", "-P", *how, str(file))


def test_kcat_reads_an_answer_with_key_partition_headers_and_every_byte(cluster):
    said = [masks(0), masks(1, message="line\nline|<>"), notice(session="küche")]
    commit(cluster, PARTITIONS, "masks", *said)
    found = {(key, partition, kind["kind"], kind["schema"], value) for key, partition, _, kind, value in consumed(cluster)}
    assert found == {
        ("s", partition_of("s", PARTITIONS), "mask_frame", "1", pack(said[0])),
        ("s", partition_of("s", PARTITIONS), "mask_frame", "1", pack(said[1])),
        ("küche", partition_of("küche", PARTITIONS), "notice", "1", pack(said[2])),
    }


def test_kcat_sees_no_answer_that_was_aborted_or_is_not_decided(cluster):
    commit(cluster, PARTITIONS, "masks", masks(0))
    abort(cluster, PARTITIONS, "masks", masks(1))
    commit(cluster, PARTITIONS, "masks", masks(2))
    with transaction(cluster, PARTITIONS) as send:
        send("masks", masks(3))
        home = ["-p", str(partition_of("s", PARTITIONS))]
        assert [value for *_, value in consumed(cluster, *home)] == [pack(masks(0)), pack(masks(2))]
        everything = consumed(cluster, *home, "-X", "isolation.level=read_uncommitted")
    assert [value for *_, value in everything] == [pack(masks(index)) for index in range(4)]


def test_a_plain_msgpack_reader_finds_the_documented_fields(cluster):
    commit(cluster, PARTITIONS, "masks", masks(3))
    ((*_, value),) = consumed(cluster)
    body = msgpack.unpackb(value)
    assert (body["v"], body["key"], body["status"]) == (1, ["s", "main", 3], "ok")
    assert [(o["object_id"], o["status"], o["score"]) for o in body["objects"]] == [(1, "seen", 0.75), (2, "absent", 0.0)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_pycocotools_decodes_masks_from_the_wire_and_from_json(cluster):
    commit(cluster, PARTITIONS, "masks", masks(3))
    ((*_, value),) = consumed(cluster)
    size, counts = msgpack.unpackb(value)["objects"][0]["rle"]
    line = json.loads(json.dumps(mask_frame_json(masks(3))))
    for shown in ({"size": size, "counts": counts}, line["objects"][0]["rle"]):
        assert np.array_equal(coco.decode(shown), mask_of(3))


@pytest.mark.parametrize("session", ["run", "küche", "cam-1", "a/b", "0"])
def test_kcat_puts_a_record_where_the_service_looks_for_its_session(cluster, tmp_path, session):
    produce(cluster, "frame", frames(1, session=session)[0], tmp_path, session)
    found = kcat(cluster, "frames", "-C", "-e", "-o", "beginning", "-f", "%p")
    assert int(found) == partition_of(session, PARTITIONS)


def test_frames_and_prompts_from_kcat_are_answered_by_a_worker(cluster, tmp_path):
    produce(cluster, "prompt", mask_prompt(0, 1, 2), tmp_path)
    for frame in frames(3):
        produce(cluster, "frame", frame, tmp_path)
    produce(cluster, "frame", frames(1, session="other")[0], tmp_path)  # key and session differ
    bus = KafkaBus(cluster, Member("group", "0", max_poll_interval_s=60.0))
    worker = SegmentWorker(bus, MemoryStore(), ColourSegmenter(), Rules(), Settings())
    try:
        until = time.monotonic() + DEADLINE_S
        answered = 0
        while answered < 5:
            assert time.monotonic() < until
            answered += worker.turn()
    finally:
        bus.close()
    with MaskReader(cluster, "run") as reader:
        applied, *answers, refused = list(reader)
    assert applied.kind == NoticeKind.APPLIED
    assert [answer.key.index for answer in answers if isinstance(answer, MaskFrame)] == [0, 1, 2]
    for answer in answers:
        for found in answer.objects:
            shown = msgpack.unpackb(pack(answer))["objects"][found.object_id - 1]["rle"]
            assert shown[0] == [72, 96]
            assert mask_in_scene(found.object_id, answer.key.index).sum() == coco.area({"size": shown[0], "counts": shown[1]})
    assert refused.kind == NoticeKind.REFUSED
    assert "key a record by its session" in refused.message

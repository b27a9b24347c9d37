"""stream/WIRE.md is what other languages are written from: its examples, fields and constants are what the code does."""

import json
import re
from hashlib import sha256
from pathlib import Path

import msgpack
import numpy as np
import pytest
from kafka.partitioner import murmur2
from psalm_stream.stream import bus, codec, rle
from psalm_stream.stream.codec import SCHEMA, End, Kind, digest, kind_of, pack
from psalm_stream.stream.kafka_client import headers
from psalm_stream.stream.types import (
    Box,
    Frame,
    FrameKey,
    FrameStatus,
    MaskFrame,
    Notice,
    NoticeKind,
    ObjectMask,
    ObjectPrompt,
    ObjectStatus,
    Prompt,
)
from pycocotools import mask as coco

TEXT = (Path(__file__).parents[2] / "stream" / "WIRE.md").read_text(encoding="utf-8")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000060000000408020000002266d9140000001c49444154081d55c121010000000220fd7f82a966a1c82bf28abc226f56"
    "5907856393b8500000000049454e44ae426082"
)
KEY = FrameKey("kitchen", "main", 7)
CUP = np.zeros((4, 6), bool)
CUP[1:3, 2:5] = True
EXAMPLES = {
    "frame": Frame(KEY, 280_000_000, False, (4, 6), PNG),
    "prompt": Prompt(KEY, "p-1", (ObjectPrompt(1, Box((2.0, 1.0, 5.0, 3.0)), "cup"),)),
    "end": End("kitchen"),
    "mask_frame": MaskFrame(
        KEY,
        280_000_000,
        (4, 6),
        FrameStatus.OK,
        (ObjectMask(1, "cup", ObjectStatus.SEEN, 0.75, rle.encode(CUP)), ObjectMask(2, "", ObjectStatus.ABSENT, 0.0, None)),
        "sha256:00ff",
        ms={"model": 12.5},
    ),
    "notice": Notice(NoticeKind.REFUSED, "kitchen", "main", 7, "object 3 is not tracked", ("frames", 3, 41)),
}
JSON = {"mask_frame": codec.mask_frame_json, "notice": codec.notice_json}
STATUSES = {"FrameStatus": FrameStatus, "ObjectStatus": ObjectStatus, "NoticeKind": NoticeKind}


def block(language, name):
    """The one code block of the document that is marked so."""
    found = re.findall(rf"^```{language} {name}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, (language, name)
    return found[0]


def table(heading):
    """The rows of the first table below a heading, without its head: the cells' text, without backticks."""
    below = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]
    rows = re.search(r"^\|.*?\n\|[-:| ]+\n((?:\|.*\n)+)", below, re.MULTILINE)[1]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows.splitlines()]


each_example = pytest.mark.parametrize("kind", EXAMPLES)


@each_example
def test_the_bytes_of_an_example_are_what_the_service_writes(kind):
    assert kind_of(EXAMPLES[kind]) == kind
    assert bytes.fromhex(block("hex", kind)) == pack(EXAMPLES[kind])


@each_example
def test_the_fields_of_a_kind_are_listed_in_the_order_they_are_written(kind):
    assert [row[0] for row in table(kind)] == list(msgpack.unpackb(pack(EXAMPLES[kind])))


def test_the_fields_of_an_object_mask_and_an_object_prompt_are_listed_in_order():
    objects = {kind: msgpack.unpackb(pack(EXAMPLES[kind]))["objects"][0] for kind in ("prompt", "mask_frame")}
    assert [row[0] for row in table("An object of a prompt")] == list(objects["prompt"])
    assert [row[0] for row in table("An object of a mask_frame")] == list(objects["mask_frame"])


@pytest.mark.parametrize("kind", JSON)
def test_the_json_of_an_example_is_what_the_command_prints(kind):
    assert json.loads(block("json", kind)) == json.loads(json.dumps(JSON[kind](EXAMPLES[kind])))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_pycocotools_reads_the_mask_of_the_json_example():
    shown = json.loads(block("json", "mask_frame"))["objects"][0]["rle"]
    assert coco.decode(shown).astype(bool).tolist() == CUP.tolist()


def test_every_kind_of_record_is_listed():
    assert [row[0] for row in table("Kinds")] == list(Kind)


@pytest.mark.parametrize("name", STATUSES)
def test_every_value_of_a_status_is_explained(name):
    assert [row[0] for row in table(name)] == list(STATUSES[name])


@pytest.mark.parametrize(("key", "in_hex", "hashed", "of_4", "of_16"), table("Keys and partitions"))
def test_the_partition_of_an_example_key_is_where_the_service_puts_it(key, in_hex, hashed, of_4, of_16):
    assert bytes.fromhex(in_hex).decode() == key
    assert int(hashed, 16) == murmur2(key.encode()) & 0xFFFFFFFF
    assert [int(of_4), int(of_16)] == [(int(hashed, 16) & 0x7FFFFFFF) % n for n in (4, 16)]


def test_the_headers_are_those_the_service_sends():
    assert [row[0] for row in table("Headers")] == [name for name, _ in headers("frame")]
    assert dict(headers("frame")) == {"kind": b"frame", "schema": str(SCHEMA).encode()}


def test_the_topics_are_named_as_the_service_names_them():
    assert {bus.FRAMES, bus.MASKS, bus.STATE} <= {row[0] for row in table("Topics")}


def test_the_digest_of_the_example_is_the_one_shown_and_follows_its_recipe():
    body = msgpack.unpackb(bytes.fromhex(block("hex", "mask_frame")))
    recipe = sha256(msgpack.packb(body | {"ms": {}})).hexdigest()
    assert recipe == digest(EXAMPLES["mask_frame"]) == block("text", "digest").strip()


def test_a_reader_that_ignores_unknown_fields_reads_what_a_later_release_adds():
    """As the document asks of others."""
    body = msgpack.unpackb(pack(EXAMPLES["mask_frame"])) | {"added_later": 1}
    assert codec.unpack("mask_frame", msgpack.packb(body)) == EXAMPLES["mask_frame"]


def test_the_schema_of_the_document_is_the_one_spoken():
    assert f"schema {SCHEMA}" in TEXT.splitlines()[0]


@pytest.mark.parametrize("kind", sorted(set(Kind) - set(EXAMPLES)))
def test_a_kind_without_a_layout_is_said_to_be_internal(kind):
    assert dict(table("Kinds"))[kind].startswith("internal")

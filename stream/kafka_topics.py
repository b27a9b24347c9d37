"""The five topics of the service: how they are made, what may be wrong with ones that exist, and which log this is.

One number of partitions for all of them: an answer lies in the partition of the frame it answers, and so does a state. What travels in
them is said in codec.py; the clients are kafka_client.py's.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from .bus import FRAMES, LARGEST_ANSWER, LARGEST_STATE, MASKS, STATE
from .errors import BadConfig, BusFailed
from .kafka_client import Cluster, named_errors, settings_of

INGEST = "ingest"
POSITIONS = "positions"

TOPIC_ALREADY_EXISTS = 36
HOUR_MS = 3_600_000
LARGEST_PICTURE = 4 << 20  # bytes; a 1080p JPEG of quality 95 takes 1
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": 64 << 20, "min.cleanable.dirty.ratio": 0.3}
TOPICS: dict[str, dict[str, object]] = {
    INGEST: COMPACTED | {"max.message.bytes": LARGEST_PICTURE},
    FRAMES: {
        "cleanup.policy": "delete",
        "max.message.bytes": LARGEST_PICTURE,
        "message.timestamp.type": "LogAppendTime",  # one clock says whether a live frame is late
        "retention.ms": 24 * HOUR_MS,
        "retention.bytes": 4 << 30,  # per partition
        "segment.bytes": 256 << 20,
    },
    MASKS: {"cleanup.policy": "delete", "max.message.bytes": LARGEST_ANSWER, "retention.ms": 7 * 24 * HOUR_MS},
    STATE: COMPACTED | {"max.message.bytes": LARGEST_STATE},  # a session's pictures: two of every object
    # A camera moves on ten times a second, and its heir reads what is left: soon compacted, the marks of transactions soon gone too.
    POSITIONS: COMPACTED | {"segment.bytes": 4 << 20, "delete.retention.ms": 60_000},
}
SAME_PARTITIONS = (MASKS, STATE)  # as FRAMES
MUST_BE = ("cleanup.policy", "message.timestamp.type")
AT_LEAST = ("max.message.bytes",)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a topic that exists, or is missing."""

    topic: str
    setting: str
    value: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"topic {self.topic}: {self.setting} is {self.value}, expected {self.expected}; {self.remedy}"


def create_topics(cluster: Cluster, partitions: int = 8, replication: int = 1) -> list[str]:
    """Create the topics that are missing, with the partitions `frames` has if it exists, and return their names.

    Those that exist are left as they are. Raises BadConfig, BusFailed.
    """
    if partitions < 1 or replication < 1:
        raise BadConfig(f"topics with {partitions} partitions and {replication} replicas, expected at least 1 of each")
    safe = {"min.insync.replicas": max(1, replication - 1)}  # one replica may be away
    with named_errors("create topics"), closing(cluster.admin()) as admin:
        there = _described(admin, [cluster.topic(name) for name in TOPICS])
        wanted = {
            cluster.topic(name): {
                "num_partitions": there.get(cluster.topic(FRAMES), partitions),
                "replication_factor": replication,
                "configs": {setting: str(value) for setting, value in (settings | safe).items()},
            }
            for name, settings in TOPICS.items()
            if cluster.topic(name) not in there
        }
        if wanted:
            answer = admin.create_topics(wanted, raise_errors=False)
            for topic in answer["topics"]:
                if topic["error_code"] not in (0, TOPIC_ALREADY_EXISTS):  # another may create them, too
                    raise BusFailed(f"create topic {topic['name']} with {replication} replicas: {topic['error_message']}")
            admin.wait_for_topics(list(wanted))
    return list(wanted)


def check_topics(cluster: Cluster) -> list[Problem]:
    """What is wrong with the topics, so that the service could not keep its promise on them; empty: nothing. Raises BusFailed."""
    with named_errors("check topics"), closing(cluster.admin()) as admin:
        counts = _described(admin, [cluster.topic(name) for name in TOPICS])
        settings = settings_of(admin, list(counts)) if counts else {}
    problems = []
    for name, wanted in TOPICS.items():
        topic = cluster.topic(name)
        if topic not in counts:
            problems.append(Problem(topic, "the topic", "missing", "to exist", "psalm-stream topics create"))
            continue
        frames = counts.get(cluster.topic(FRAMES), counts[topic])
        if name in SAME_PARTITIONS and counts[topic] != frames:
            expected = f"{frames}, as many as {cluster.topic(FRAMES)}"
            problems.append(Problem(topic, "partitions", str(counts[topic]), expected, "start anew with other topics (topic prefix)"))
        problems += _wrong_settings(topic, wanted, settings[topic])
    return problems


def identity(cluster: Cluster) -> str:
    """Which log this is, "CLUSTER_ID/TOPIC_ID of frames": another one once the topic was deleted and made again. Raises BusFailed."""
    with named_errors("ask for the identity of the log"), closing(cluster.admin()) as admin:
        (topic,) = admin.describe_topics([cluster.topic(FRAMES)])
        if topic["error_code"]:
            raise BusFailed(f"topic {cluster.topic(FRAMES)} does not exist on Kafka at {cluster.servers}; psalm-stream topics create")
        return f"{admin.describe_cluster()['cluster_id']}/{topic['topic_id']}"


def _described(admin: object, topics: list[str]) -> dict[str, int]:
    """The number of partitions of those topics that exist."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(topics) if not topic["error_code"]}


def _wrong_settings(topic: str, wanted: dict[str, object], found: dict[str, str]) -> list[Problem]:
    def problem(setting: str, expected: str) -> Problem:
        remedy = f"kafka-configs --alter --topic {topic} --add-config {setting}={wanted[setting]}"
        return Problem(topic, setting, found[setting], expected, remedy)

    wrong = [problem(name, str(wanted[name])) for name in MUST_BE if name in wanted and found[name] != wanted[name]]
    small = [problem(name, f"at least {wanted[name]}") for name in AT_LEAST if name in wanted and int(found[name]) < wanted[name]]
    return wrong + small

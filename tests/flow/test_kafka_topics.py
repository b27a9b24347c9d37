"""The topics on a real broker: made once, compared with what the service needs, and told apart when they were made anew."""

import time
import uuid
from contextlib import closing

import pytest
from kafka.admin import ConfigResource
from psalm_stream.stream.errors import BadConfig, BusFailed
from psalm_stream.stream.kafka_client import open_cluster, settings_of
from psalm_stream.stream.kafka_topics import TOPICS, check_topics, create_topics, identity
from psalm_stream.workers.cli.topics import topics_app
from typer.testing import CliRunner


@pytest.fixture
def cluster(servers):
    """Names of topics that nobody has used before."""
    return open_cluster(servers.kafka.address, prefix=f"t{uuid.uuid4().hex[:8]}.")


@pytest.fixture
def admin(cluster):
    with closing(cluster.admin()) as admin:
        yield admin


def partitions_of(admin, cluster):
    found = admin.describe_topics([cluster.topic(name) for name in TOPICS])
    return {topic["name"].removeprefix(cluster.prefix): len(topic["partitions"]) for topic in found if not topic["error_code"]}


def wait_until(condition):
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def alter(admin, topic, settings):
    """Set them, and wait until the broker has heard of it from its controller."""
    admin.alter_configs([ConfigResource("topic", topic, settings)])
    wait_until(lambda: settings.items() <= settings_of(admin, [topic])[topic].items())


def test_topics_are_made_as_the_service_needs_them(cluster, admin):
    assert create_topics(cluster, partitions=3) == [cluster.topic(name) for name in TOPICS]
    assert partitions_of(admin, cluster) == dict.fromkeys(TOPICS, 3)
    assert check_topics(cluster) == []


def test_topics_that_exist_are_left_as_they_are(cluster, admin):
    create_topics(cluster, partitions=3)
    assert create_topics(cluster, partitions=5) == []
    assert partitions_of(admin, cluster) == dict.fromkeys(TOPICS, 3)


def test_a_topic_that_is_missing_gets_the_partitions_of_frames(cluster, admin):
    admin.create_topics({cluster.topic("frames"): {"num_partitions": 2, "replication_factor": 1}})
    admin.wait_for_topics([cluster.topic("frames")])
    assert cluster.topic("frames") not in create_topics(cluster, partitions=7)
    assert partitions_of(admin, cluster) == dict.fromkeys(TOPICS, 2)


def test_every_missing_topic_is_a_problem(cluster):
    problems = check_topics(cluster)
    assert [(p.topic, p.value) for p in problems] == [(cluster.topic(name), "missing") for name in TOPICS]
    assert {p.remedy for p in problems} == {"psalm-stream topics create"}


@pytest.mark.parametrize("name", ["masks", "state"])
def test_another_number_of_partitions_than_of_frames_is_a_problem(cluster, admin, name):
    create_topics(cluster, partitions=2)
    admin.create_partitions({cluster.topic(name): 4})
    wait_until(lambda: partitions_of(admin, cluster)[name] == 4)
    (problem,) = check_topics(cluster)
    assert (problem.topic, problem.setting, problem.value) == (cluster.topic(name), "partitions", "4")
    assert "2, as many as" in problem.expected


@pytest.mark.parametrize(
    ("name", "setting", "value", "expected"),
    [
        ("frames", "cleanup.policy", "compact", "delete"),
        ("masks", "cleanup.policy", "compact", "delete"),
        ("state", "cleanup.policy", "delete", "compact"),
        ("ingest", "cleanup.policy", "compact,delete", "compact"),
        ("positions", "cleanup.policy", "delete", "compact"),
        ("frames", "message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("frames", "max.message.bytes", "1048588", "at least 4194304"),
        ("state", "max.message.bytes", "4194304", "at least 33554432"),
    ],
)
def test_a_setting_that_breaks_the_promise_is_a_problem(cluster, admin, name, setting, value, expected):
    create_topics(cluster, partitions=1)
    topic = cluster.topic(name)
    alter(admin, topic, {setting: value})
    (problem,) = check_topics(cluster)
    assert (problem.topic, problem.setting, problem.value, problem.expected) == (topic, setting, value, expected)
    assert problem.remedy == f"kafka-configs --alter --topic {topic} --add-config {setting}={TOPICS[name][setting]}"


def test_more_than_is_needed_is_no_problem(cluster, admin):
    create_topics(cluster, partitions=1)
    more = {"max.message.bytes": str(20 << 20), "retention.ms": "3600000"}
    alter(admin, cluster.topic("frames"), more)
    assert check_topics(cluster) == []


def test_more_replicas_than_brokers_are_refused_in_words(cluster):
    with pytest.raises(BusFailed, match=r"3 replicas: .* only 1 broker"):
        create_topics(cluster, replication=3)


@pytest.mark.parametrize("count", [{"partitions": 0}, {"replication": 0}])
def test_no_partition_and_no_replica_are_refused(cluster, count):
    with pytest.raises(BadConfig, match="at least 1"):
        create_topics(cluster, **count)


def test_a_log_keeps_its_identity_until_it_is_made_anew(cluster, admin):
    create_topics(cluster, partitions=1)
    before = identity(cluster)
    assert identity(cluster) == before
    admin.delete_topics([cluster.topic("frames")])
    wait_until(lambda: cluster.topic("frames") not in admin.list_topics())
    create_topics(cluster, partitions=1)
    assert identity(cluster).split("/")[0] == before.split("/")[0]
    assert identity(cluster) != before


def test_a_log_that_is_not_there_has_no_identity(cluster):
    with pytest.raises(BusFailed, match="psalm-stream topics create"):
        identity(cluster)


def run(cluster, *arguments):
    result = CliRunner().invoke(topics_app, [*arguments, "--kafka", cluster.servers, "--topic-prefix", cluster.prefix])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_say_what_they_did_and_what_is_wrong(cluster, admin):
    code, told, _ = run(cluster, "check")
    assert (code, told.count("problem")) == (1, 5)
    code, told, _ = run(cluster, "create", "--partitions", "2")
    assert (code, told.strip()) == (0, f"created: {', '.join(cluster.topic(name) for name in TOPICS)}")
    assert run(cluster, "check")[:2] == (0, "all topics fit\n")
    alter(admin, cluster.topic("frames"), {"cleanup.policy": "compact"})
    code, told, _ = run(cluster, "create")
    assert code == 1
    assert "none, all exist" in told
    assert "cleanup.policy is compact, expected delete" in told


def test_a_command_without_broker_is_one_clean_line(cluster):
    result = CliRunner().invoke(topics_app, ["check", "--kafka", "nonsense"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "expected HOST:PORT" in result.stderr

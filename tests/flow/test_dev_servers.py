"""The development servers: real ones that die and return as a test wants, and that never stay behind."""

import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread
from uuid import uuid4

import psutil
import pytest
import redis
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from psalm_stream.stream.errors import BadConfig
from psalm_stream.workers.dev import PROPERTIES, DevServers, redis_server
from psalm_stream.workers.dev_server import Server, free_ports

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
EACH = pytest.mark.parametrize("name", ["kafka", "redis"])


def until(true, timeout_s=60.0):
    """Wait for a condition; False when it has not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def topic(servers):
    """A new topic of one partition on the broker."""
    name = f"dev-{uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=servers.kafka.address)) as admin:
        admin.create_topics([NewTopic(name, 1, 1)])
    return name


@pytest.fixture
def client(servers):
    with redis.Redis.from_url(servers.redis_url) as client:
        yield client


def produce(servers, topic, value):
    with closing(KafkaProducer(bootstrap_servers=servers.kafka.address)) as producer:
        producer.send(topic, value).get(timeout=30)


def values(servers, topic):
    """What a topic holds; waits for its end as it is now."""
    at, found = TopicPartition(topic, 0), []
    with closing(KafkaConsumer(bootstrap_servers=servers.kafka.address, auto_offset_reset="earliest")) as consumer:
        consumer.assign([at])
        end = consumer.end_offsets([at])[at]
        assert until(lambda: found.extend(consumer.poll(timeout_ms=200).get(at, ())) or consumer.position(at) >= end)
    return [record.value for record in found]


def test_a_broker_killed_and_started_again_holds_what_it_acknowledged(servers, topic):
    produce(servers, topic, b"before")
    pid = servers.kafka.pid
    servers.kafka.kill()
    assert not psutil.pid_exists(pid)
    servers.kafka.start()
    produce(servers, topic, b"after")
    assert values(servers, topic) == [b"before", b"after"]


def test_a_redis_killed_and_started_again_holds_what_it_acknowledged(servers, client):
    client.set("key", "before")
    servers.redis.kill()
    servers.redis.start()
    assert client.get("key") == b"before"


@pytest.mark.parametrize("running", [True, False])
def test_a_redis_rolled_back_holds_what_it_held_when_it_was_saved(servers, client, tmp_path, running):
    client.set("key", "saved")
    servers.redis.save(tmp_path / "copy")
    client.set("key", "lost")
    if not running:
        servers.redis.stop()
    servers.redis.roll_back(tmp_path / "copy")
    assert client.get("key") == b"saved"


def test_redis_never_evicts_and_syncs_its_log_every_second(client):
    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted


@EACH
def test_a_paused_server_is_silent_until_it_is_resumed(servers, name):
    server = getattr(servers, name)
    server.pause()
    try:
        assert server.running
        assert not server.answers(server.port)
    finally:
        server.resume()
    assert until(lambda: server.answers(server.port))


@EACH
def test_a_server_on_a_taken_port_is_refused_by_name(servers, name):
    server = getattr(servers, name)
    with pytest.raises(BadConfig, match=f"{name} is running already, as process {server.pid}"):
        server.start()
    other = Server(name, server.port, server.folder, server.command, server.answers)
    with pytest.raises(BadConfig, match=f"port {server.port} on 127.0.0.1 for {name} is taken"):
        other.start()


def test_a_server_that_ends_at_its_start_says_what_its_log_says(servers, tmp_path):
    server = redis_server(tmp_path, *free_ports(1))
    server.command += ["--maxmemory-policy", "sometimes"]
    with pytest.raises(BadConfig, match=r"(?s)redis ended at its start \(exit code 1\); its log says:.*sometimes"):
        server.start()
    server.stop()


def test_a_server_outlives_the_thread_that_started_it(servers, tmp_path):
    server = redis_server(tmp_path, *free_ports(1))
    thread = Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert server.running
        assert server.answers(server.port)
    finally:
        server.stop()


def test_a_paused_server_is_stopped_as_gently_as_a_running_one(servers, tmp_path):
    server = redis_server(tmp_path, *free_ports(1))
    server.start()
    server.pause()
    server.stop()
    assert "ready to exit" in server.log.read_text()  # not killed


def test_a_data_folder_continues_and_belongs_to_one_at_a_time(servers, tmp_path):
    before = children()
    with DevServers(tmp_path) as first, redis.Redis.from_url(first.redis_url) as client:
        client.set("key", "kept")
        with pytest.raises(BadConfig, match="is in use by other development servers"):
            DevServers(tmp_path).start()
        assert first.kafka.answers(first.kafka.port)
    assert children() == before
    with DevServers(tmp_path) as second, redis.Redis.from_url(second.redis_url) as client:
        assert client.get("key") == b"kept"
        assert second.kafka.answers(second.kafka.port)
    assert children() == before


def children():
    return set(psutil.Process().children(recursive=True))


def test_what_is_missing_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadConfig, match=r"need Java 17 .*, the jars of Kafka \(none in .*\), redis-server; run deploy/servers"):
        DevServers().start()


@pytest.fixture
def dev_up(servers, tmp_path):
    """`psalm-stream dev up`, running: the process, and what it and all below it are."""
    command = [sys.executable, "-c", "from psalm_stream.workers.cli.app import main; main()", "dev", "up", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline() + process.stdout.readline()
        below = psutil.Process(process.pid).children(recursive=True)
        try:
            yield process, said, below
        finally:
            for one in (process, *(one for one in below if one.is_running())):  # when the test failed
                one.kill()


def test_dev_up_says_how_to_use_both_and_stops_both_when_asked(dev_up):
    process, said, below = dev_up
    kafka, redis_url = re.fullmatch(r"export PSALM_KAFKA=(.*)\nexport PSALM_REDIS=(.*)\n", said).groups()
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        assert admin.list_topics() == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.endswith("stopped both\n")
    assert len(below) == 4  # two servers, two guards
    assert not any(one.is_running() for one in below)


def test_servers_end_with_the_process_that_started_them_however_it_ends(dev_up):
    process, _, below = dev_up
    process.kill()
    assert len(below) == 4
    assert until(lambda: not any(alive(one) for one in below), timeout_s=20)


def alive(process):
    """Whether a process still runs; an orphan that ended may wait for its new parent to take note."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_dev_up_ends_with_an_error_when_a_server_dies(dev_up):
    process, _, below = dev_up
    next(one for one in below if one.name() == "redis-server").kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "redis ended by itself" in errors
    assert not any(one.is_running() for one in below)


def test_the_compose_file_runs_kafka_with_the_same_settings():
    environment = yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]["environment"]
    wanted = {f"KAFKA_{name.replace('.', '_').upper()}": str(value) for name, value in PROPERTIES.items()}
    assert wanted.items() <= environment.items()


def test_the_compose_file_runs_redis_with_the_same_flags(tmp_path):
    command = yaml.safe_load(COMPOSE.read_text())["services"]["redis"]["command"]
    ours = redis_server(tmp_path, 6379).command
    here = {"--port", "--bind", "--dir"}
    assert flags(command) == {name: value for name, value in flags(ours).items() if name not in here}


def flags(command):
    return dict(zip(command[1::2], command[2::2], strict=True))

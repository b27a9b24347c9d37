"""A real Kafka broker and a real Redis on this machine's loopback, for `psalm-stream dev up` and the tests.

Here: how each is run, how it shows that it works, and what a machine lacks for it. Not here: the processes themselves (dev_server.py),
getting the software (deploy/servers) and the clients (stream/kafka_bus.py, stream/redis_store.py): two raw requests are enough to tell
that a server answers. One node, no replicas, no passwords: not for production.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from ..stream.errors import BadConfig
from .dev_server import HOST, Server, ask, free_ports

JARS = Path(__file__).parents[1] / ".kafka" / "libs"  # where deploy/servers puts them
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true")
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",  # a missing topic is an error, as in production
    "message.max.bytes": 32 << 20,  # so that it is a topic's own limit which refuses a record
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,  # a takeover waited 26 s with the default
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,  # a test of a dead member would wait 6 s for its heir with the default
    "broker.session.timeout.ms": 3000,  # killed, it is let in again once its old session is over: 6 s in all, 14 s with the default
    "broker.heartbeat.interval.ms": 1000,  # also how long a heartbeat may take: on busy cores 300 ms were not enough
    "log.cleaner.dedupe.buffer.size": 16 << 20,  # a quarter of the heap with the default
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
}


class DevServers:
    """A Kafka broker and a Redis, each a `Server`: `with DevServers() as servers: servers.kafka.address, servers.redis_url`.

    data: a folder that is kept and continued (None: a temporary one, removed at the stop). Ports: None takes free ones.
    """

    kafka: Server
    redis: Server

    def __init__(self, data: Path | None = None, kafka_port: int | None = None, redis_port: int | None = None) -> None:
        self.data, self.kafka_port, self.redis_port = data, kafka_port, redis_port
        self._undo = ExitStack()

    @property
    def redis_url(self) -> str:
        return f"redis://{self.redis.address}/0"

    @property
    def both(self) -> tuple[Server, Server]:
        return self.kafka, self.redis

    def start(self) -> DevServers:
        """Start both and wait until both answer. Raises BadConfig, with neither left running, that names what is in the way."""
        if lacks := missing():
            raise BadConfig(f"the development servers need {', '.join(lacks)}; run deploy/servers")
        kafka_port, redis_port, controller_port = free_ports(3)
        with ExitStack() as undo:
            folder = self.data or Path(undo.enter_context(TemporaryDirectory(prefix="psalm-stream-")))
            undo.enter_context(locked(folder.absolute()))
            self.kafka = kafka_server(folder.absolute() / "kafka", self.kafka_port or kafka_port, controller_port)
            self.redis = redis_server(folder.absolute() / "redis", self.redis_port or redis_port)
            for server in (self.redis, self.kafka):
                undo.callback(server.stop)
                server.launch()
            self.redis.wait()
            self.kafka.wait()
            self._undo = undo.pop_all()
        return self

    def stop(self) -> None:
        """Stop both, by pid; a temporary folder goes with them."""
        self._undo.close()

    def __enter__(self) -> DevServers:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a data folder, made when new, for one owner: two Redis servers would write into each other's files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadConfig(f"{folder} is in use by other development servers; stop those or name another folder") from error
        yield


def kafka_server(folder: Path, port: int, controller_port: int) -> Server:
    """A broker of one node that is its own controller (KRaft); writes its server.properties."""
    folder.mkdir(parents=True, exist_ok=True)
    listeners = f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}"
    here = {
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "listeners": listeners,
        "advertised.listeners": listeners,
        "log.dirs": folder / "data",
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in (PROPERTIES | here).items()))
    classes = ["-cp", f"{jars()}/*"]
    cluster = secrets.token_hex(10) + "AA"  # 16 bytes in base64 that never start with a dash
    tool = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", cluster, "--config", str(file)]
    first = [java(), "-XX:TieredStopAtLevel=1", *classes, *tool]
    return Server("kafka", port, folder, [java(), *JVM, *classes, "kafka.Kafka", str(file)], kafka_answers, first)


def redis_server(folder: Path, port: int) -> Server:
    """A Redis as the service wants it: AOF everysec (nothing lost at a kill, a second at a power cut), and it never evicts."""
    flags = {
        "port": port,
        "bind": HOST,
        "dir": folder / "data",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    command = ["redis-server", *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
    return Server("redis", port, folder, command, redis_answers)


def kafka_answers(port: int) -> bool:
    """Whether a broker answers that is let in: Metadata v1, asked without topics, lists the brokers that are not fenced."""
    metadata_v1 = struct.pack(">hhihi", 3, 1, 0, -1, 0)  # request, version, correlation id, no client id, no topics
    answer = ask(port, struct.pack(">i", len(metadata_v1)) + metadata_v1, size=12)
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0  # length, correlation id, number of brokers


def redis_answers(port: int) -> bool:
    """Whether Redis answers with its data loaded; until then it says -LOADING."""
    return ask(port, b"PING\r\n", size=7) == b"+PONG\r\n"


def missing() -> list[str]:
    """What this machine lacks for the development servers, in words; empty when all is there."""
    needs = {
        "Linux 5.3 or newer (elsewhere use deploy/compose.yaml)": hasattr(os, "pidfd_open"),
        f"Java 17 or newer (no program {java()})": shutil.which(java()) is not None,
        f"the jars of Kafka (none in {jars()})": any(jars().glob("kafka_2.*.jar")),
        "redis-server": shutil.which("redis-server") is not None,
    }
    return [what for what, there in needs.items() if not there]


def java() -> str:
    """The program, of the installation that JAVA_HOME names when it is set."""
    return f"{os.environ['JAVA_HOME']}/bin/java" if os.environ.get("JAVA_HOME") else "java"


def jars() -> Path:
    """The folder of jars: of the Kafka installation that KAFKA_HOME names when it is set, else what deploy/servers fetched."""
    return Path(os.environ["KAFKA_HOME"]) / "libs" if os.environ.get("KAFKA_HOME") else JARS

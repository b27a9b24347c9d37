"""A real Kafka broker and a real Redis on this machine's loopback, for `psalm-stream dev up` and the tests.

Here: finding the software, starting both, and everything a fault test does to them: kill, pause, restart on the same port and data, roll
back. Not here: getting the software (deploy/servers) and the clients (stream/kafka_bus.py, stream/redis_store.py); two raw requests
tell when a server answers. One node, no replicas, no passwords: not for production.
"""

from __future__ import annotations

import base64
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ..stream.errors import BadConfig

HOST = "127.0.0.1"
JARS = Path(__file__).parents[1] / ".kafka" / "libs"  # where deploy/servers puts them
START_S, STOP_S = 60.0, 20.0  # alone on two cores: the broker answers after 3 s and stops within 2 s
LOG_LINES = 8  # of a server's log, in an error

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
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
}
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true")

# Ends a server when its owner is gone, however that went. A process descriptor names one process for good, so no other is ever hit;
# the kernel's own parent-death signal would also fire when the thread that started the server ends.
GUARD = """
import os, select, signal, sys
owner, server = int(sys.argv[1]), os.pidfd_open(int(sys.argv[2]))
watch = select.poll()
watch.register(server, select.POLLIN)
try:
    watch.register(os.pidfd_open(owner), select.POLLIN)
    alone = os.getppid() != owner
except ProcessLookupError:
    alone = True
if alone or server not in dict(watch.poll()):
    signal.pidfd_send_signal(server, signal.SIGKILL)
"""


@dataclass
class Server:
    """One server on one port and one folder, over all its restarts. `first` prepares an empty data folder."""

    name: str
    port: int
    folder: Path  # NAME.log and data/
    command: list[str]
    answers: Callable[[int], bool]  # port -> whether the server does its work
    first: list[str] = field(default_factory=list)
    process: subprocess.Popen | None = None
    guard: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs now. Raises BadConfig when none does."""
        if not self.running:
            raise BadConfig(f"{self.name} is not running; start it first")
        return self.process.pid

    def start(self) -> None:
        """Start, or start again on the same port and data, and wait until it answers. Raises BadConfig when it does not."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start without waiting. Raises BadConfig when it runs already, its port is taken, or its data cannot be prepared."""
        if self.running:
            raise BadConfig(f"{self.name} is running already, as process {self.process.pid}")
        self._reap()
        refuse_taken(self.name, self.port)
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            said = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            if self.first and not any(self.data.iterdir()) and (code := subprocess.run(self.first, check=False, **said).returncode):
                raise self._failed(f"could not prepare its data (exit code {code})")
            self.process = subprocess.Popen(self.command, start_new_session=True, **said)  # Ctrl-C is for us alone
        watch = [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), str(self.process.pid)]
        self.guard = subprocess.Popen(watch, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait(self, timeout_s: float = START_S) -> None:
        """Return when it answers. Raises BadConfig, with the end of its log, when it ends or stays silent for timeout_s."""
        deadline = time.monotonic() + timeout_s
        while not self.answers(self.port):
            if not self.running:
                raise self._failed(f"ended at its start (exit code {self.process.returncode})")
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer on {self.address} within {timeout_s:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), make it end (SIGKILL) after STOP_S. Nothing happens when it is not running."""
        if self.running:
            self.process.terminate()
            self.resume()  # a paused process does not hear SIGTERM
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reap()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def save(self, folder: Path) -> None:
        """Copy the data, held still while it runs, into a new folder: everything it had acknowledged is in the copy."""
        running = self.running
        if running:
            self.pause()
        try:
            shutil.copytree(self.data, folder)
        finally:
            if running:
                self.resume()

    def roll_back(self, folder: Path) -> None:
        """Kill it, put a saved copy in the place of its data, and start it again."""
        self.kill()
        shutil.rmtree(self.data)
        shutil.copytree(folder, self.data)
        self.start()

    def _reap(self) -> None:
        for process in (self.process, self.guard):  # the guard ends with its server
            if process is not None:
                process.wait()
        self.process = self.guard = None

    def _failed(self, how: str) -> BadConfig:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return BadConfig("\n".join([f"{self.name} {how}; the end of {self.log}:", *lines]))


class DevServers:
    """A Kafka broker and a Redis, each a `Server`: `with DevServers() as servers: servers.kafka.address, servers.redis.address`.

    data: a folder that is kept and continued (None: a temporary one, removed at the stop). Ports: None takes free ones.
    Raises BadConfig naming what is missing on this machine, or what keeps a server from starting.
    """

    def __init__(self, data: Path | None = None, kafka_port: int | None = None, redis_port: int | None = None) -> None:
        if lacks := missing():
            raise BadConfig(f"the development servers need {', '.join(lacks)}; run deploy/servers")
        self.temporary = data is None
        self.folder = Path(tempfile.mkdtemp(prefix="psalm-stream-")) if data is None else data.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kafka = kafka_server(self.folder / "kafka", kafka_port or free_port())
        self.redis = redis_server(self.folder / "redis", redis_port or free_port())

    @property
    def redis_url(self) -> str:
        return f"redis://{self.redis.address}/0"

    def start(self) -> DevServers:
        """Start both and wait until both answer; when one does not, stop both and raise its BadConfig."""
        self.lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Redis would write into another one's files
        except BlockingIOError as error:
            self.lock.close()
            raise BadConfig(f"{self.folder} is in use by other development servers; stop those or name another folder") from error
        try:
            self.redis.launch()
            self.kafka.launch()
            self.redis.wait()
            self.kafka.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop both, by pid; remove the folder when it is a temporary one."""
        self.kafka.stop()
        self.redis.stop()
        self.lock.close()
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> DevServers:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def kafka_server(folder: Path, port: int) -> Server:
    """A broker of one node that is its own controller (KRaft); writes its server.properties."""
    folder.mkdir(parents=True, exist_ok=True)
    client, controller = f"{HOST}:{port}", f"{HOST}:{free_port()}"
    here = {
        "controller.quorum.bootstrap.servers": controller,
        "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
        "log.dirs": folder / "data",
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in (PROPERTIES | here).items()))
    java = [java_program(), "-cp", f"{jars()}/*"]
    cluster = base64.urlsafe_b64encode(random.randbytes(16)).decode().rstrip("=")
    first = [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(file)]
    return Server("kafka", port, folder, [java[0], *JVM, *java[1:], "kafka.Kafka", str(file)], kafka_answers, first)


def redis_server(folder: Path, port: int) -> Server:
    """A Redis that may lose the last second at a power cut and nothing at a kill (AOF everysec), and never evicts."""
    command = f"redis-server --port {port} --bind {HOST} --appendonly yes --appendfsync everysec --save '' --maxmemory-policy noeviction"
    flags = [part.strip("'") for part in command.split()]
    return Server("redis", port, folder, [*flags, "--dir", str(folder / "data")], redis_answers)


def missing() -> list[str]:
    """What this machine lacks for the development servers, in words; empty when all is there."""
    lacks = []
    if not hasattr(os, "pidfd_open"):
        lacks.append("Linux 5.3 or newer (elsewhere: deploy/compose.yaml)")
    if shutil.which(java_program()) is None:
        lacks.append(f"Java 17 or newer (no program {java_program()})")
    if not any(jars().glob("kafka_2.*.jar")):
        lacks.append(f"the jars of Kafka (none in {jars()})")
    if shutil.which("redis-server") is None:
        lacks.append("redis-server")
    return lacks


def java_program() -> str:
    return f"{os.environ['JAVA_HOME']}/bin/java" if os.environ.get("JAVA_HOME") else "java"


def jars() -> Path:
    """Of the Kafka installation that KAFKA_HOME names, else those that deploy/servers fetched."""
    return Path(os.environ["KAFKA_HOME"]) / "libs" if os.environ.get("KAFKA_HOME") else JARS


def kafka_answers(port: int) -> bool:
    """Whether a broker answers that counts itself in: Metadata v1, without topics, lists the brokers that are not fenced."""
    metadata_v1 = struct.pack(">hhihi", 3, 1, 0, -1, 0)  # key, version, correlation id, no client id, no topics
    answer = ask(port, struct.pack(">i", len(metadata_v1)) + metadata_v1, size=12)
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0  # size, correlation id, number of brokers


def redis_answers(port: int) -> bool:
    """Whether Redis answers, its data loaded (-LOADING until then)."""
    return ask(port, b"PING\r\n", size=7) == b"+PONG\r\n"


def ask(port: int, request: bytes, size: int) -> bytes:
    """The first `size` bytes of an answer; fewer when there is none within a second."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as peer:
            peer.sendall(request)
            return peer.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""


def free_port() -> int:
    """A loopback port that is free now, below those the kernel gives to outgoing connections.

    Among those, a client that keeps dialling a killed server can be given the server's own port, and then holds it.
    """
    for port in random.sample(range(20000, 32768), 100):
        if not taken(port):
            return port
    raise BadConfig("found no free port between 20000 and 32767 on 127.0.0.1; name one")


def refuse_taken(name: str, port: int) -> None:
    """Raise BadConfig when something listens on the port."""
    if taken(port):
        raise BadConfig(f"port {port} on {HOST} for {name} is taken; stop what listens there or choose another port")


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports of connections that just ended are free
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False

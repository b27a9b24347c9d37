"""One server process under the control of a test: started, waited for, killed, paused, rolled back, and never left behind.

Here: processes, ports and data folders, by pid alone. Not here: which servers there are (dev.py) and their clients (stream/).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..stream.errors import BadConfig

HOST = "127.0.0.1"
START_S, STOP_S = 60.0, 20.0  # on two busy cores a broker answers after 4 s (13 s with its default session timeout), stops within 1 s
LOG_LINES, LOG_COLUMNS = 6, 200  # of a server's log, in an error

# Ends a server when its owner is gone, however that went. A process descriptor names one process for good, so no other one is ever hit;
# the kernel's own parent-death signal would also fire when the thread that started the server ends.
GUARD = """
import select, signal, sys
owner, server = map(int, sys.argv[1:])
watch = select.poll()
watch.register(owner, select.POLLIN)
watch.register(server, select.POLLIN)
if server not in dict(watch.poll()):
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
    logged: int = 0  # bytes in its log when it was launched

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
            raise BadConfig(f"{self.name} is running already, as process {self.pid}")
        self._reap()
        if taken(self.port):
            raise BadConfig(f"port {self.port} on {HOST} for {self.name} is taken; stop what listens there or choose another port")
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.logged = log.tell()
            said = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            if self.first and not any(self.data.iterdir()) and subprocess.run(self.first, check=False, **said).returncode:
                raise self.failed("could not prepare its data")
            self.process = subprocess.Popen(self.command, start_new_session=True, **said)  # Ctrl-C is for us alone
        self.guard = guard(self.process.pid)

    def wait(self, timeout_s: float = START_S) -> None:
        """Return when it answers. Raises BadConfig, with what its log says, when it ends or stays silent for timeout_s."""
        deadline = time.monotonic() + timeout_s
        while not self.answers(self.port):
            if not self.running:
                raise self.failed(f"ended at its start (exit code {self.process.returncode})")
            if time.monotonic() > deadline:
                raise self.failed(f"did not answer on {self.address} within {timeout_s:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), make it end (SIGKILL) after STOP_S. Nothing happens when it is not running."""
        if self.running:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # a paused process does not hear SIGTERM
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
        """SIGSTOP, and wait until it stands still: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT after a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def save(self, folder: Path) -> None:
        """Copy the data into a new folder, the server held still if it runs: all it has acknowledged is in the copy."""
        if not self.running:
            shutil.copytree(self.data, folder)
            return
        self.pause()
        try:
            shutil.copytree(self.data, folder)
        finally:
            self.resume()

    def roll_back(self, folder: Path) -> None:
        """Kill it if it runs, put a saved copy in the place of its data, and start it again."""
        if self.running:
            self.kill()
        shutil.rmtree(self.data)
        shutil.copytree(folder, self.data)
        self.start()

    def failed(self, how: str) -> BadConfig:
        """The error to raise when something happened to it: what, and what its log says about it since it was launched."""
        said = self.log.read_bytes()[self.logged :].decode(errors="replace")
        lines = [line for line in said.splitlines() if not line.startswith("\tat ")]
        first = next((n for n, line in enumerate(lines) if re.search("ERROR|Exception:", line)), -LOG_LINES)
        return BadConfig("\n".join([f"{self.name} {how}; its log says:", *(line[:LOG_COLUMNS] for line in lines[first:][:LOG_LINES])]))

    def _reap(self) -> None:
        for process in (self.process, self.guard):  # the guard ends with its server
            if process is not None:
                process.wait()
        self.process = self.guard = None


def guard(pid: int) -> subprocess.Popen:
    """Start what ends a child of ours when we end; it ends with the child."""
    ends = [os.pidfd_open(os.getpid()), os.pidfd_open(pid)]
    try:
        command = [sys.executable, "-I", "-S", "-c", GUARD, *map(str, ends)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=ends, start_new_session=True)
    finally:
        for end in ends:
            os.close(end)


def ask(port: int, request: bytes, size: int) -> bytes:
    """The first `size` bytes that a loopback port answers to a request; fewer when it does not within a second."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as peer:
            peer.sendall(request)
            return peer.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, below those the kernel gives to outgoing connections.

    Of those, a client that keeps dialling a killed server may be given the server's own port, and then holds it.
    """
    candidates = random.SystemRandom().sample(range(20000, 32768), 200)  # two seeded test runs must not choose alike
    free = [port for port in candidates if not taken(port)]
    if len(free) < count:
        raise BadConfig(f"found {len(free)} of {count} free ports between 20000 and 32767 on {HOST}; name the ports")
    return free[:count]


def taken(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a closed connection leaves behind is not in the way
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False

"""A worker's place on its machine: a name that a restarted worker gets again, so that its transactions settle those of the dead one.

Places of one machine are told apart by file locks, which the system takes back from a process however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


@contextmanager
def own_slot(group: str) -> Iterator[str]:
    """The first place of this machine that no other worker of the group holds, HOST-N, held inside the block."""
    folder = Path(tempfile.gettempdir()) / f"psalm-stream-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    safe = re.sub(r"[^\w.-]", "_", group)
    for number in count():
        with (folder / f"{safe}-{number}.lock").open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{socket.gethostname()}-{number}"
            return

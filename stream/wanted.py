"""What sources are to run and how far they are: the nouns of the topics `ingest` and `positions`, and which pictures a source takes.

Values and pure decisions. Opening and reconnecting is capture.py, the two topics are kafka_sources.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .errors import BadConfig
from .types import ObjectPrompt
from .url import without_credentials

TRANSPORTS = ("", "tcp", "udp")
GIVE_UP_S = 600.0
EARLY = 0.1  # of a period: stamps are rounded, and a picture this much before its turn is still on time


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of one source: a view of a session, and the input that is to fill it.

    url: path, URL or camera, may hold a password; run: one for each time it was asked for: a new one starts a file over; every: each n-th
    picture is taken; max_fps: at most so many a second, None: all; offset_ns: added to the view's clock; transport: of RTSP, tcp, udp or ""
    for either; give_up_s: how long a URL or camera may give no picture; prompts: drawn on the run's first frame. Raises BadConfig.
    """

    session: str
    view: str
    url: str = field(repr=False)
    run: str
    every: int = 1
    max_fps: float | None = None
    offset_ns: int = 0
    transport: str = ""
    give_up_s: float = GIVE_UP_S
    prompts: tuple[ObjectPrompt, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for what, name in (("session", self.session), ("view", self.view)):
            check_name(what, name)
        if not self.url:
            raise BadConfig(f"source {self.name} has no url, expected a path, a URL or camera:N")
        if self.every < 1:
            raise BadConfig(f"source {self.name} is to take every {self.every}th picture, expected a number from 1")
        for what, value in (("at most {} pictures a second", self.max_fps), ("{} s without a picture", self.give_up_s)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadConfig(f"source {self.name} is to allow {what.format(value)}, expected a number above 0")
        if self.transport not in TRANSPORTS:
            raise BadConfig(f"source {self.name} has transport {self.transport!r}, expected tcp or udp")

    @property
    def name(self) -> str:
        """session/view, the key of its records."""
        return f"{self.session}/{self.view}"

    @property
    def shown(self) -> str:
        """Its url as it may be shown."""
        return without_credentials(self.url)


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a source is published.

    run: of its Wanted; index: of the last frame that was published or reported as dropped, -1: none yet; taken: pictures of this run up to
    there; t_ns, pts_ns: of that frame, on the view's clock and as it was stamped; connection: how often a live input was opened; offset:
    of the last record in `frames`; done: nothing more is to come of this run.
    """

    session: str
    view: str
    run: str = ""
    index: int = -1
    taken: int = 0
    t_ns: int | None = None
    pts_ns: int | None = None
    connection: int = 0
    offset: int = -1
    done: bool = False


class Sampling:
    """Which pictures of one opening of an input are taken: asked for each in order, and the same every time."""

    def __init__(self, every: int = 1, max_fps: float | None = None) -> None:
        self.every, self.period_ns = every, 0 if max_fps is None else 1e9 / max_fps
        self._seen = -1
        self._due_ns = -math.inf

    def takes(self, t_ns: int) -> bool:
        """Whether the next picture, of capture time t_ns, is taken."""
        self._seen += 1
        if self._seen % self.every:
            return False
        if t_ns < self._due_ns - EARLY * self.period_ns:
            return False
        on_grid = self._due_ns + self.period_ns
        self._due_ns = on_grid if on_grid > t_ns else t_ns + self.period_ns
        return True


def check_name(what: str, name: str) -> None:
    """Raise BadConfig for a name that cannot stand in session/view."""
    if not name or "/" in name or not name.isprintable():
        raise BadConfig(f"{what} is {name!r}, expected printable text without '/', because session/view names a source")

"""`psalm-stream masks` without its screen: a session's answers from the log into files, or handed on one by one.

Here: what is asked for, when a session is over or unknown, and what an answer is in words. Flags and progress are cli/masks.py's, files
mask_files.py's, reading is stream/reader.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..stream.bus import MASKS as TOPIC
from ..stream.errors import BadConfig, BadRecord
from ..stream.kafka_client import Cluster
from ..stream.kafka_tail import EARLIEST, LATEST
from ..stream.reader import Answer, MaskReader, concerns
from ..stream.types import MaskFrame, Notice, NoticeKind, ObjectMask
from .mask_files import LINES, MASKS, Files, Pictures

SETTLED_S = 2.0  # nothing for so long after a session has ended: it has ended for good
LOOK_S = 0.3  # between two looks whether to stop


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to read, and where to put it. wait_s: how long an answer of the session may take before nobody knows it."""

    session: str
    view: str | None = None
    start: str | int = EARLIEST
    follow: bool = False
    out: Path | None = None
    overlay: Path | None = None
    wait_s: float = 30.0

    def refuse_misfits(self, overwrite: bool) -> None:
        """Raise BadConfig for what makes no sense or would destroy something; with `overwrite` clear what is to be replaced."""
        if self.start == LATEST and not self.follow:
            raise BadConfig(f"--from {LATEST} without --follow reads nothing; add --follow, or start at {EARLIEST}")
        if self.out and self.out.exists() and not self.out.is_dir():
            raise BadConfig(f"--out {self.out} is a file, expected a folder")
        for flag, path, taken in (
            ("--out", self.out, bool(self.out and self.out.is_dir() and any(self.out.iterdir()))),
            ("--overlay", self.overlay, bool(self.overlay and self.overlay.exists())),
        ):
            if taken and not overwrite:
                raise BadConfig(f"{flag} {path} exists and is not empty; choose another, or replace it with --overwrite")
        if self.out:
            for path in [*(self.out / MASKS).rglob("[0-9]*.png"), self.out / LINES]:
                path.unlink(missing_ok=True)


@dataclass(slots=True)
class Counts:
    """What was read. gone: frames drawn on black, their pictures deleted; offset: where the next subscription goes on."""

    frames: int = 0
    notices: int = 0
    bad: int = 0
    gone: int = 0
    offset: int = 0
    seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def add(self, answer: Answer, offset: int) -> None:
        """Count an answer."""
        self.frames += isinstance(answer, MaskFrame)
        self.notices += isinstance(answer, Notice)
        self.offset, self.seconds = offset, time.monotonic() - self._began


def start_of(text: str) -> str | int:
    """What --from says. Raises BadConfig."""
    if text in (EARLIEST, LATEST):
        return text
    if not (text.isascii() and text.isdigit()):
        raise BadConfig(f"--from is {text!r}, expected {EARLIEST}, {LATEST} or an offset")
    return int(text)


def subscribe(
    cluster: Cluster,
    wanted: Subscription,
    counts: Counts,
    tell: Callable[[Answer], None],
    note: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Hand every answer on, after it was written, and count it, until there is no more or `stopped`; `note` takes what a user should know
    beside that.

    What is written stays readable whenever this stops. An answer that cannot be read is noted and passed over. Raises BadConfig for a
    session nobody knows, and what MaskReader raises.
    """

    def bad(error: BadRecord) -> None:
        counts.bad += 1
        note(f"passed over: {error}")

    with ExitStack() as stack:
        reader = stack.enter_context(MaskReader(cluster, wanted.session, start=wanted.start, follow=wanted.follow, on_bad=bad))
        counts.offset = reader.offset
        pictures_of = partial(Pictures, cluster, wanted.session)
        files = stack.enter_context(closing(Files(pictures_of, wanted.view, wanted.out, wanted.overlay, note)))
        for answer in _answers(cluster, reader, wanted, note, stopped):
            if isinstance(answer, MaskFrame):
                files.write(answer)
                counts.gone = files.gone
            counts.add(answer, reader.offset)
            tell(answer)
        counts.offset = reader.offset


def _answers(
    cluster: Cluster, reader: MaskReader, wanted: Subscription, note: Callable[[str], None], stopped: Callable[[], bool]
) -> Iterator[Answer]:
    """The wanted answers. Followed, a session is over when it was ended and nothing comes after that."""
    heard = time.monotonic()
    until = heard + wanted.wait_s
    views: set[str] = set()
    ended = answered = False
    while not reader.ended:
        answer = reader.read(LOOK_S)
        if answer is None and ended and time.monotonic() > heard + SETTLED_S:
            return
        if answer is not None:
            heard = time.monotonic()
            ended = isinstance(answer, Notice) and answer.kind == NoticeKind.ENDED and answer.view is None
            views |= {answer.key.view} if isinstance(answer, MaskFrame) else set()
            if concerns(answer, wanted.view):
                answered = True
                yield answer
        if stopped():
            return
        if not answered and time.monotonic() > until:
            _refuse_unknown(cluster, wanted, views, note)
            answered = True  # said once
    if not answered:
        _refuse_unknown(cluster, wanted, views, note)


def _refuse_unknown(cluster: Cluster, wanted: Subscription, views: set[str], note: Callable[[str], None]) -> None:
    """Raise BadConfig when there is no answer at all; after an offset or the end that is no mistake, and noted."""
    what = f"session {wanted.session!r}" if wanted.view is None else f"view {wanted.view!r} of session {wanted.session!r}"
    others = f"; its views are {', '.join(sorted(views))}" if views else ""
    where = f"topic {cluster.topic(TOPIC)} of Kafka at {cluster.servers}"
    said = f"{what} has no answer in {where}{others}; psalm-stream streams lists sessions"
    if wanted.start == EARLIEST:
        raise BadConfig(said)
    note(f"{said} (read from {wanted.start})")


def line_of(answer: Answer) -> tuple[str, str, str]:
    """An answer for people: what it is about, its status, and the rest, all without control characters."""
    if isinstance(answer, Notice):
        view = "all views" if answer.view is None else answer.view
        return printable(view), str(answer.kind), printable(answer.message)
    place = f"{answer.key.view}/{answer.key.index:05d} {answer.t_ns / 1e9:9.3f} s"
    objects = ", ".join(_object(o) for o in answer.objects)
    return printable(place), str(answer.status), printable("  ".join(part for part in (objects, answer.message) if part))


def _object(found: ObjectMask) -> str:
    score = "" if found.rle is None else f"{found.score:.2f}"
    return " ".join(part for part in (str(found.object_id), found.label, str(found.status), score) if part)


def printable(text: str) -> str:
    """Text from the log without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

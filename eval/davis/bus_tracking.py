"""Following the objects of one annotated sequence through Kafka: its frames and prompt go into `frames`, segment workers answer in `masks`.

What is sent and what comes back is the same as within one process (tracking.py); only the session's name differs, and the weights are the
workers'. No more frames are under way than AHEAD.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ...stream.bus import FRAMES
from ...stream.codec import End, kind_of, pack
from ...stream.errors import BadPrompt, BusFailed
from ...stream.kafka_client import Cluster, headers, named_errors
from ...stream.kafka_tail import LATEST
from ...stream.reader import MaskReader
from ...stream.sources import open_source
from ...stream.types import Frame, FrameStatus, MaskFrame, Notice, NoticeKind, Prompt
from .layout import DavisSequence
from .tracking import Tracker, first_prompt

AHEAD = 16  # frames sent and not answered yet: a turn of a worker
SEND_S = 30.0  # for the broker to take a record
POLL_S = 1.0
NOT_FOLLOWED = (FrameStatus.LATE, FrameStatus.LOST_STATE)


def bus_tracker(cluster: Cluster, wait_s: float) -> Tracker:
    """The tracker that asks the segment workers of a cluster; wait_s: how long an answer may take."""

    def track(sequence: DavisSequence) -> Iterator[tuple[Frame, MaskFrame]]:
        session = f"eval-{uuid.uuid4().hex[:12]}-{sequence.name}"
        prompt = first_prompt(sequence, session)
        with (
            MaskReader(cluster, session, start=LATEST, follow=True) as answers,
            _session(cluster, session) as send,
            open_source(str(sequence.images), session=session, limit=len(sequence.labels)) as source,
        ):
            send(prompt)
            waiting: deque[Frame] = deque()
            for frame in source:
                send(frame)
                waiting.append(frame)
                if len(waiting) == AHEAD:
                    yield _answered(answers, waiting.popleft(), wait_s)
            while waiting:
                yield _answered(answers, waiting.popleft(), wait_s)

    return track


@contextmanager
def _session(cluster: Cluster, session: str) -> Iterator[Callable[[Prompt | Frame | End], None]]:
    """A function that puts messages of a session into `frames`, one by one; however it is left, the session is ended.

    The function raises BusFailed, and BadRecord for a frame that the topic does not take.
    """
    topic, producer = cluster.topic(FRAMES), cluster.producer()

    def send(message: Prompt | Frame | End) -> None:
        with named_errors(f"send session {session} to topic {topic} at {cluster.servers}"):
            producer.send(topic, pack(message), session.encode(), headers(kind_of(message))).get(timeout=SEND_S)

    try:
        yield send
    finally:
        with suppress(BusFailed):
            send(End(session))  # no worker is to keep the state of a session that nobody continues
        producer.abandon()


def _answered(answers: MaskReader, frame: Frame, wait_s: float) -> tuple[Frame, MaskFrame]:
    """A frame with its answer, the next of its session. Raises BusFailed when it does not come in time or was not followed, BadPrompt."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        answer = answers.read(POLL_S)
        if isinstance(answer, Notice) and answer.kind == NoticeKind.REFUSED:
            raise BadPrompt(answer.message)
        if not isinstance(answer, MaskFrame):
            continue
        if answer.status in NOT_FOLLOWED:
            raise BusFailed(f"frame {frame.key} was answered {answer.status}: its workers lost what they followed; call it again")
        if answer.message and answer.status is not FrameStatus.UNDECODABLE:
            raise BadPrompt(answer.message)
        return frame, answer
    raise BusFailed(
        f"no answer to frame {frame.key} within {wait_s:g} s; see that a psalm-stream segment-worker runs on this broker, or allow more "
        "with --wait"
    )

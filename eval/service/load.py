"""The load of throughput.py: pictures of a size in bytes, a model that costs nothing, and the processes that send and answer.

Sources send as an ingest worker does, a thread and a transaction each.
"""

from __future__ import annotations

import cProfile
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from ...stream import rle
from ...stream.kafka_client import Cluster
from ...stream.types import Frame, FrameKey, Mask, ObjectPrompt, Prompt, Proposals, Request
from ...workers.publishing import BATCH_ITEMS, BATCH_S
from ...workers.settings import Settings
from .rig import VIEW, fed

SIZE_HW = (480, 854)


@dataclass(frozen=True, slots=True)
class Load:
    """What the sources send.

    rate: frames a second in all, None: as fast as `window` unanswered frames in all allow; warm_up: frames of each session before that.
    """

    pictures: tuple[bytes, ...] = field(repr=False)
    sessions: tuple[str, ...]
    frames: int
    window: int
    rate: float | None = None
    warm_up: int = 40

    @property
    def frames_each(self) -> int:
        """Frames of one session."""
        return self.frames // len(self.sessions)


class ConstantSegmenter:
    """The fake: every request has one proposal, a disc, which every condition likes."""

    digest = "constant"

    def segment(self, requests: Sequence[Request]) -> list[Proposals]:
        """See Model."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Proposals:
        mask, scores = disc(request.frame.size_hw), np.full((len(request.condition.regions), 1), 0.95, np.float32)
        return Proposals(scores, lambda queries: np.broadcast_to(mask, (len(queries), *mask.shape)))


@cache
def disc(size_hw: tuple[int, int]) -> np.ndarray:
    """A disc in the middle of a frame, bool [H, W]."""
    height, width = size_hw
    return cv2.circle(np.zeros(size_hw, np.uint8), (width // 2, height // 2), min(size_hw) // 4, 1, -1).astype(bool)


def pictures(count: int, kilobytes: float) -> tuple[bytes, ...]:
    """Different JPEGs of SIZE_HW, each as near to `kilobytes` (of 1000 bytes) as its quality can bring it."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse, fine = (random.integers(0, 256, (SIZE_HW[0] // cell, SIZE_HW[1] // cell, 3), np.uint8) for cell in (40, 4))
        coarse, fine = (cv2.resize(noise, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC) for noise in (coarse, fine))
        image = cv2.addWeighted(coarse, 0.7, fine, 0.3, 0)
        tried = (cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for quality in range(30, 100))
        made.append(min(tried, key=lambda data: abs(len(data) - 1e3 * kilobytes)))
    return tuple(made)


# -- the processes ----------------------------------------------------------------------------------------------------


def worker_process(settings: Settings, profile: Path | None) -> None:
    """A segment worker with the fake model, until SIGTERM. profile: where a profile of its main thread's CPU time goes."""
    from ...workers.service import Stop, serve

    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    if profile is None:
        serve(settings, ConstantSegmenter(), stop, 0)
        return
    profiler = cProfile.Profile(time.thread_time)
    profiler.runcall(serve, settings, ConstantSegmenter(), stop, 0)
    profiler.dump_stats(profile)


def source_process(cluster: Cluster, load: Load, go: threading.Event, permits: Sequence[threading.Semaphore]) -> None:
    """All sessions, a thread each, as in an ingest worker. permits: one for each frame of the session that may be unanswered."""
    threads = [
        threading.Thread(target=send_session, args=(cluster, load, number, go, permits[number])) for number in range(len(load.sessions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def send_session(cluster: Cluster, load: Load, number: int, go: threading.Event, permits: threading.Semaphore) -> None:
    """The prompt and the frames to warm up with, then, once told to go, the session's frames."""
    session = load.sessions[number]

    def frame(index: int, t_ns: int | None = None) -> Frame:
        data = load.pictures[(number + index) % len(load.pictures)]
        return Frame(FrameKey(session, VIEW, index), time.time_ns() if t_ns is None else t_ns, False, SIZE_HW, data)

    with fed(cluster, session) as feed:
        prompt = Prompt(FrameKey(session, VIEW, 0), "prompt", (ObjectPrompt(1, Mask(rle.encode(disc(SIZE_HW)))),))
        feed((prompt, *(frame(index) for index in range(load.warm_up))))
        go.wait()
        index, last = load.warm_up, load.warm_up + load.frames_each
        gather = _permitted(permits) if load.rate is None else _due(load, number)
        while index < last:
            stamps = gather(last - index)
            feed([frame(index + n, t_ns) for n, t_ns in enumerate(stamps)])
            index += len(stamps)


def _permitted(permits: threading.Semaphore) -> Callable[[int], list[int | None]]:
    """As a file is read: as many frames as there is room for, at least one."""

    def gather(left: int) -> list[int | None]:
        permits.acquire()
        room = 1
        while room < min(BATCH_ITEMS, left) and permits.acquire(block=False):
            room += 1
        return [None] * room

    return gather


def _due(load: Load, number: int) -> Callable[[int], list[int | None]]:
    """As a camera is read: the frames that come within BATCH_S of the first, stamped with when each came."""
    period_ns = int(1e9 * len(load.sessions) / load.rate)
    next_ns = time.time_ns() + period_ns * (1 + number) // len(load.sessions)

    def gather(left: int) -> list[int | None]:
        nonlocal next_ns
        stamps = list(range(next_ns, next_ns + int(1e9 * BATCH_S), period_ns))[: min(BATCH_ITEMS, left)]
        next_ns = stamps[-1] + period_ns
        time.sleep(max(0.0, (stamps[0] - time.time_ns()) / 1e9 + BATCH_S))
        return stamps

    return gather

"""Following the objects of one annotated sequence, given their masks on its first frame: the very path of `psalm-stream run`.

A Tracker yields every frame with its answer. This one has the worker in this process; bus_tracking.py sends the same frames through Kafka.
Only policy `official` is ever shown which objects exist in a frame: the oracle is made here, for it alone.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np

from ...psalm.tracker import Rules
from ...stream.errors import BadInput
from ...stream.sources import open_source
from ...stream.types import Frame, MaskFrame, Prompt, Proposals, Request
from ...workers.answering import Model
from ...workers.pipeline import Embedded
from ...workers.run import SESSION, versions
from ...workers.settings import Settings, mask_settings
from .layout import DavisSequence, first_mask_prompt, ids_of

Tracker = Callable[[DavisSequence], Iterator[tuple[Frame, MaskFrame]]]


class NoModel:
    """A model that proposes nothing: for motion alone, which must run without weights."""

    digest = "none"

    def segment(self, requests: Sequence[Request]) -> list[Proposals]:
        """No condition token, no query, no mask, for every request."""
        return [Proposals(np.zeros((0, 0), np.float32), lambda _, size=r.frame.size_hw: np.zeros((0, *size), bool)) for r in requests]


def method_of(settings: Settings, weights_digest: str) -> dict[str, object]:
    """How masks are made in this process, as plain values: all it takes to make them again."""
    import torch

    return mask_settings(settings) | {
        "weights_digest": weights_digest,
        "versions": versions(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),  # the order of summation depends on it
    }


def embedded_tracker(model: Model, settings: Settings) -> Tracker:
    """The tracker that answers in this process. Each answer's `ms` also says how long its picture took to read."""

    def track(sequence: DavisSequence) -> Iterator[tuple[Frame, MaskFrame]]:
        worker = Embedded(model, rules_for(sequence, settings), settings)
        read_ms: list[float] = []
        prompt = first_prompt(sequence, SESSION)  # the session of `run`: seeds depend on it
        with open_source(str(sequence.images), session=SESSION, limit=len(sequence.labels)) as source:
            for frame, answer in worker.answer(_timed(source, read_ms), [prompt]):
                yield frame, replace(answer, ms={"read": read_ms.pop(), **answer.ms})

    return track


def rules_for(sequence: DavisSequence, settings: Settings) -> Rules:
    """The tracker's rules for a sequence. The annotations say which objects exist, and only `official` may ask. Raises BadConfig."""
    if settings.policy != "official":
        return Rules(settings.policy, settings.motion)
    oracle = {index: ids_of(true_map) for index, true_map in enumerate(sequence.truth())}
    return Rules(settings.policy, settings.motion, oracle)


def first_prompt(sequence: DavisSequence, session: str) -> Prompt:
    """The prompt that gives every object of the first annotation. Raises BadInput when it shows none."""
    prompt = first_mask_prompt(sequence.true_map(0), session)
    if not prompt.objects:
        raise BadInput(f"sequence {sequence.name}: {sequence.labels[0]} shows no object, expected ids from 1 to 254 to follow")
    return prompt


def _timed(frames: Iterable[Frame], ms: list[float]) -> Iterator[Frame]:
    """The frames, with the milliseconds each took to come appended to `ms`."""
    waiting = iter(frames)
    while True:
        began = perf_counter()
        frame = next(waiting, None)
        if frame is None:
            return
        ms.append((perf_counter() - began) * 1e3)
        yield frame

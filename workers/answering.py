"""From records to answers: the part of a turn that only depends on states, records and the model, which is asked once a batch.

What is no message, or does not fit, is answered as refused and changes nothing; what breaks on our side is an exception. Nothing is
written here: segment.py publishes the answers and keeps the states, rebuild.py keeps the states alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..psalm.tracker import Rules, anchored, on_its_picture, plan, prompted, settle, with_known_picture, without_misfits
from ..stream.bus import ENVELOPE, LARGEST_ANSWER, Record
from ..stream.codec import End, pack, unpack
from ..stream.errors import BadInput, BadRecord, Undecodable
from ..stream.types import Frame, FrameStatus, MaskFrame, Notice, NoticeKind, Prompt, Proposals, Request, TrackState

LONGEST_TEXT = 1000  # characters


class Model(Protocol):
    """Anything that answers requests. digest: names the weights, and is part of every answer."""

    digest: str

    def segment(self, requests: Sequence[Request]) -> Sequence[Proposals]:
        """One Proposals a request, in order."""


@dataclass(slots=True)
class Answered:
    """A record on its way to its answer.

    state: of its session, first before the record, then after it (None: the session has ended); frame and request: while the model is to
    be asked; prompt: whose own picture that frame is; changed: whether the state is another than before; keep: whether a rebuild must find
    this state rather than repeat what led to it; ms: per stage.
    """

    record: Record
    state: TrackState | None
    answer: MaskFrame | Notice | None = None
    frame: Frame | None = None
    request: Request | None = None
    prompt: Prompt | None = None
    changed: bool = False
    keep: bool = False
    message: str = ""
    ms: dict[str, float] = field(default_factory=dict)


class Answerer:
    """Answers batches of records of distinct sessions.

    partition_of: where a session's records belong; max_lag_s: a live frame accepted longer ago is answered `late`; None: never, as when
    history is repeated; now: the clock that decides it, in seconds since 1970.
    """

    def __init__(
        self,
        model: Model,
        rules: Rules,
        partition_of: Callable[[str], int],
        max_lag_s: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.model, self.rules, self.partition_of, self.max_lag_s, self.now = model, rules, partition_of, max_lag_s, now

    def answer(self, batch: Sequence[Record], state_of: Callable[[Record], TrackState]) -> list[Answered]:
        """Answer each record; state_of gives the state its session is in before it."""
        steps = [self._begin(record, state_of) for record in batch]
        asked = [step for step in steps if step.request is not None]
        with timed(asked, "model"):
            proposals = iter(self.model.segment([step.request for step in asked]) if asked else ())
        for step in steps:
            found = next(proposals) if step.request is not None else None
            if step.prompt is not None:
                self._anchor(step, found)
            elif step.answer is None:
                self._settle(step, found)
        return steps

    def _begin(self, record: Record, state_of: Callable[[Record], TrackState]) -> Answered:
        """Do all that needs no model. A record that cannot be used is answered here, and leaves its session as it was."""
        step = Answered(record, None)
        try:
            message = self._message(record)
            step.state = state_of(record)
            match message:
                case Frame():
                    self._look(step, message)
                case Prompt():
                    self._adopt(step, message)
                case End(view=view):
                    _end(step, view)
                case Notice():
                    step.answer = replace(message, record=_place(record))
        except BadInput as error:
            step.answer = Notice(NoticeKind.REFUSED, record.key, None, None, _shortened(str(error)), _place(record))
        return step

    def _message(self, record: Record) -> Frame | Prompt | End | Notice:
        """What the record says. Raises BadRecord for one that has no business here."""
        if not record.key:
            raise BadRecord(
                "record has no key, or none that is a name, expected its session in UTF-8; set it: it keeps a session's records in order"
            )
        home = self.partition_of(record.key)
        if record.partition != home:
            raise BadRecord(
                f"record of session {record.key!r} lies in partition {record.partition}, expected {home}; partition by murmur2 of the key "
                "(librdkafka: partitioner=murmur2_random)"
            )
        message = unpack(record.kind, record.data or b"")
        if not isinstance(message, Frame | Prompt | End | Notice):
            raise BadRecord(f"record is a {record.kind}, expected frame, prompt, end or notice; send it to its own topic")
        session = message.session if isinstance(message, End | Notice) else message.key.session
        if session != record.key:
            raise BadRecord(f"record under key {record.key!r} speaks of session {session!r}; key a record by its session")
        return message

    def _look(self, step: Answered, frame: Frame) -> None:
        """Decode the frame and decide what to ask. What needs no model is answered at once."""
        step.changed = True
        step.state = replace(step.state, answered=step.state.answered + 1)
        if self.max_lag_s is not None and frame.live and self.now() - step.record.t_ms / 1e3 > self.max_lag_s:
            step.keep = True  # a decision of the clock: never to be repeated
            step.answer = self._without_masks(frame, FrameStatus.LATE)
            return
        if step.state.lost:
            step.answer = self._without_masks(frame, FrameStatus.LOST_STATE, "what was tracked is lost; name the objects again")
            return
        try:
            with timed([step], "decode"):
                frame.pixels()
        except Undecodable as error:
            step.answer = self._without_masks(frame, FrameStatus.UNDECODABLE, _shortened(str(error)))
            return
        with timed([step], "plan"):
            step.frame = frame
            step.state, step.message = without_misfits(step.state, frame)
            step.request = plan(step.state, frame, self.rules)

    def _adopt(self, step: Answered, prompt: Prompt) -> None:
        kind = NoticeKind.DUPLICATE
        if prompt.prompt_id not in step.state.prompt_ids:
            after = prompted(step.state, prompt)
            if prompt.drawn_on is not None and prompt.objects:
                prompt.drawn_on.pixels()
                prompt = with_known_picture(step.state, prompt, step.record.offset, self.rules)
                step.request = plan(on_its_picture(prompt), prompt.drawn_on, self.rules)
                step.frame, step.prompt = prompt.drawn_on, prompt
            step.state, step.changed, step.keep = after, True, True
            kind = NoticeKind.APPLIED
        said = f"prompt {prompt.prompt_id}"
        step.answer = Notice(kind, prompt.key.session, prompt.key.view, prompt.key.index, said, _place(step.record))

    def _anchor(self, step: Answered, proposals: Proposals | None) -> None:
        """Start the objects of a prompt on its own picture; their first answer is that of the view's next frame."""
        seen, masks = settle(on_its_picture(step.prompt), step.frame, step.request, proposals, self.rules, self.model.digest)
        step.state = anchored(step.state, step.prompt, seen)
        step.frame.forget_pixels()
        there = ", ".join(f"{o.object_id} {o.status}" for o in masks.objects)
        step.answer = replace(step.answer, message=f"{step.answer.message}, on its picture: {there}")

    def _settle(self, step: Answered, proposals: Proposals | None) -> None:
        before = step.state.views.get(step.frame.key.view)
        if before is not None and before.previous is not None:
            before.previous.forget_pixels()  # anchors and memories were the previous frame once: of a view one picture stays decoded
        with timed([step], "settle"):
            step.state, masks = settle(step.state, step.frame, step.request, proposals, self.rules, self.model.digest)
        step.answer = replace(masks, message=step.message, ms=step.ms)

    def _without_masks(self, frame: Frame, status: FrameStatus, message: str = "") -> MaskFrame:
        return MaskFrame(frame.key, frame.t_ns, frame.size_hw, status, (), self.model.digest, message)


def _end(step: Answered, view: str | None) -> None:
    """Forget a view, or the whole session."""
    step.changed = step.keep = True
    step.answer = Notice(NoticeKind.ENDED, step.record.key, view, None, "", _place(step.record))
    left = {name: state for name, state in step.state.views.items() if name != view}
    step.state = None if view is None else replace(step.state, views=left)


def packed_answer(step: Answered) -> bytes:
    """The bytes of a step's answer. One that the log does not take becomes a notice that says so; the state stays what it is after it."""
    data = pack(step.answer)
    if len(data) > LARGEST_ANSWER - ENVELOPE:
        said = f"its answer takes {len(data):,} bytes, the log takes {LARGEST_ANSWER - ENVELOPE:,}; send smaller or smoother masks"
        step.answer = Notice(NoticeKind.REFUSED, step.record.key, None, None, said, _place(step.record))
        data = pack(step.answer)
    return data


def _shortened(text: str) -> str:
    """What an error says, without most of a large value it may quote."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ..."


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


@contextmanager
def timed(steps: Iterable[Answered], stage: str) -> Iterator[None]:
    """Note the milliseconds spent in the block as `stage` of every step it serves."""
    began = time.perf_counter()
    yield
    for step in steps:
        step.ms[stage] = (time.perf_counter() - began) * 1e3

"""The whole path in one process: frames and prompts in, each frame with its masks out.

`Embedded` is no mode of its own but the same SegmentWorker on a MemoryBus and a MemoryStore. Files are not touched here: run.py ties this
to sources and sinks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ..psalm.tracker import Rules
from ..stream.bus import FRAMES, MASKS, MemoryBus, MemoryLog
from ..stream.codec import End, kind_of, pack, unpack
from ..stream.errors import BadPrompt
from ..stream.store import MemoryStore
from ..stream.types import Frame, FrameKey, FrameStatus, MaskFrame, Notice, NoticeKind, Prompt
from .answering import Model
from .segment import SegmentWorker
from .settings import Settings


class Embedded:
    """A log, a store and a worker of one's own. One object answers any number of inputs, one after the other."""

    def __init__(self, model: Model, rules: Rules, settings: Settings) -> None:
        self.log = MemoryLog()
        self.worker = SegmentWorker(MemoryBus(self.log), MemoryStore(), model, rules, settings)

    def answer(self, frames: Iterable[Frame], prompts: Iterable[Prompt] = ()) -> Iterator[tuple[Frame, MaskFrame]]:
        """Yield every frame with its answer, in order, as it is made; only the frame at hand is held.

        A prompt is put before the frame of its key. Raises BadPrompt for one that does not fit its frame, and, after the last frame, for
        those whose frame never came.
        """
        waiting: dict[FrameKey, list[Prompt]] = defaultdict(list)
        for prompt in prompts:
            waiting[prompt.key].append(prompt)
        sessions: dict[str, None] = {}
        count = 0
        for frame in frames:
            for prompt in waiting.pop(frame.key, ()):
                self._send(frame.key.session, prompt)
            self._send(frame.key.session, frame)
            yield from ((frame, masks) for masks in self._answers())
            sessions[frame.key.session] = None
            count += 1
        for session in sessions:
            self._send(session, End(session))
        list(self._answers())
        if waiting:
            raise BadPrompt(f"the input ended after {count} frames, so these prompts were never used: {_named(waiting)}")

    def _send(self, session: str, message: Frame | Prompt | End) -> None:
        self.log.append(FRAMES, session, kind_of(message), pack(message))

    def _answers(self) -> Iterator[MaskFrame]:
        """The masks the worker answers to all that was sent. Raises BadPrompt for what it refused."""
        while self.worker.turn():
            for record in self.log.take(MASKS):
                answer = unpack(record.kind, record.data)
                if refused := _refusal(answer):
                    raise BadPrompt(refused)
                if isinstance(answer, MaskFrame):
                    yield answer


def _refusal(answer: MaskFrame | Notice) -> str:
    """Why a prompt was refused; "" for every other answer."""
    if isinstance(answer, MaskFrame):
        return answer.message if answer.status in (FrameStatus.OK, FrameStatus.DISTRUSTED, FrameStatus.NO_PROMPT) else ""
    return answer.message if answer.kind == NoticeKind.REFUSED else ""


def _named(waiting: dict[FrameKey, list[Prompt]]) -> str:
    objects = {key: ", ".join(str(o.object_id) for prompt in prompts for o in prompt.objects) for key, prompts in sorted(waiting.items())}
    return "; ".join(f"{'' if key.view == 'main' else f'view {key.view} '}frame {key.index} (object {ids})" for key, ids in objects.items())

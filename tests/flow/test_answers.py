"""One record in, one answer out: what the worker says to each kind of record, and what it leaves as it was."""

from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
from PIL import Image
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.bus import ENVELOPE, MemoryBus, MemoryLog
from psalm_stream.stream.codec import End, kind_of, pack, unpack
from psalm_stream.stream.store import MemoryStore
from psalm_stream.stream.types import Box, FrameKey, Mask, MaskFrame, Notice, NoticeKind, ObjectPrompt, Prompt, Rle
from psalm_stream.workers.segment import SegmentWorker
from psalm_stream.workers.settings import Settings
from scene import DriftSegmenter, frames, mask_prompt

RULES = Rules(motion="off")
A, B = frames(6, session="a"), frames(6, session="b")


class Service:
    """A worker on a log of its own; `now` is its clock in seconds."""

    def __init__(self, partitions=1, **settings):
        self.log, self.now = MemoryLog(partitions), None
        self.worker = SegmentWorker(MemoryBus(self.log), MemoryStore(), DriftSegmenter(), RULES, Settings(**settings), lambda: self.now)

    def answers(self, *messages):
        """What is answered to these messages, or (key, kind, bytes, partition) records, in order."""
        for message in messages:
            if isinstance(message, tuple):
                self.log._put("frames", message[3], *message[:3])
            else:
                session = message.session if isinstance(message, End | Notice) else message.key.session
                self.log.append("frames", session, kind_of(message), pack(message))
        while self.worker.turn():
            pass
        return [unpack(r.kind, r.data) for r in self.log.take("masks")]


def said(answers):
    """The essence: status of masks, kind of notices."""
    return [str(a.status if isinstance(a, MaskFrame) else a.kind) for a in answers]


def jpeg_header(width, height):
    """A JPEG that says it is this large, and holds next to nothing."""
    data = BytesIO()
    Image.new("L", (16, 16)).save(data, "jpeg")
    small = data.getvalue()
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + small[at + 4 :]


def ask(shape):
    return Prompt(A[1].key, "p", (ObjectPrompt(1, shape),))


POISON = {
    "random bytes": (("a", "frame", np.random.default_rng(0).bytes(999), 0), "refused", "msgpack"),
    "no bytes": (("a", "frame", None, 0), "refused", "0 bytes"),
    "an unknown kind": (("a", "rumour", b"", 0), "refused", "rumour"),
    "no kind": (("a", "", b"", 0), "refused", "expected one of"),
    "another schema": (("a", "frame", pack(A[1]).replace(b"\xa1v\x01", b"\xa1v\x63"), 0), "refused", "schema version 99"),
    "no key": (("", "frame", pack(A[1]), 0), "refused", "no key"),
    "the session of another key": (("a", "frame", pack(B[1]), 0), "refused", "speaks of session 'b'"),
    "an answer": (("a", "mask_frame", pack(MaskFrame(A[1].key, 0, (1, 1), "ok", (), "")), 0), "refused", "its own topic"),
    "no picture": (replace(A[1], data=b"\xff\xd8 no picture"), "undecodable", "frame a/main/1"),
    "half a picture": (replace(A[1], data=A[1].data[:40]), "undecodable", "frame a/main/1"),
    "a mask of 10^8 pixels": (ask(Mask(Rle((10_000, 10_000), b"0"))), "refused", "10000 x 10000"),
    "a mask of gigabytes in few bytes": (ask(Mask(Rle((2**20, 2**18), b"PPPPPPPQ"))), "refused", "1048576 x 262144"),
    "a schema version of megabytes": (("a", "frame", msgpack.packb({"v": bytes(3 << 20)}), 0), "refused", "schema version b'"),
    "a view of megabytes": (replace(A[1], key=replace(A[1].key, view="v" * (3 << 20)), data=b""), "undecodable", "frame a/vvv"),
    "news of megabytes": (Notice(NoticeKind.GAP, "a", None, None, "n" * ((4 << 20) - 9000)), "refused", "bytes, the log takes"),
    "a header of 10^8 pixels": (replace(A[1], data=jpeg_header(10_000, 10_000)), "undecodable", "10000 x 10000"),
    "a picture of another size": (replace(A[1], size_hw=(5, 5)), "undecodable", "(5, 5)"),
    "a correction of an unknown object": (replace(mask_prompt(1, 2, session="a"), correct=True), "refused", "object 2 is not tracked"),
    "a removal of an unknown object": (replace(mask_prompt(1, session="a"), remove=(9,)), "refused", "object 9 is not tracked"),
    "a prompt that says nothing": (mask_prompt(1, session="a"), "refused", "names no object"),
}


@pytest.mark.parametrize(("poison", "status", "named"), POISON.values(), ids=POISON)
def test_poison_is_answered_by_name_and_the_partition_goes_on_as_if_it_had_not_been(poison, status, named):
    around = [mask_prompt(0, 1, session="a"), A[0]]
    service = Service()
    service.answers(*around)
    (answer,) = service.answers(poison)
    assert said([answer]) == [status]
    assert named in answer.message
    untouched = Service()
    untouched.answers(*around)
    assert service.answers(A[2]) == untouched.answers(A[2])


def test_a_correction_for_an_unknown_session_is_refused_and_the_session_stays_unknown():
    service = Service()
    (answer,) = service.answers(replace(mask_prompt(0, 1, session="nobody"), correct=True))
    assert (answer.kind, answer.record) == (NoticeKind.REFUSED, ("frames", 0, 0))
    assert "nobody/main, which tracks nothing" in answer.message
    assert service.worker.states == {}


def test_a_record_in_a_foreign_partition_is_refused_and_says_where_it_belongs():
    service = Service(partitions=2)
    home = service.log.partition_of("a")
    (answer,) = service.answers(("a", "frame", pack(A[0]), 1 - home))
    assert answer.kind == NoticeKind.REFUSED
    assert f"lies in partition {1 - home}, expected {home}" in answer.message


def test_a_prompt_is_applied_once_and_its_repetition_answered_as_a_duplicate():
    service = Service()
    prompt = mask_prompt(0, 1, session="a")
    assert said(service.answers(prompt, A[0])) == ["applied", "ok"]
    first = service.answers(A[1])
    assert said(service.answers(prompt)) == ["duplicate"]
    second = service.answers(A[2])
    assert first[0].objects[0].rle != second[0].objects[0].rle  # the object moved on: the prompt did not put it back


def test_a_prompt_that_does_not_fit_its_frame_is_named_in_that_frames_answer_and_the_others_apply():
    outside = Prompt(FrameKey("a", "main", 0), "p", (ObjectPrompt(7, Box((500.0, 0.0, 510.0, 10.0))),))
    applied, also, frame = Service().answers(outside, mask_prompt(0, 1, session="a"), A[0])
    assert said([applied, also, frame]) == ["applied", "applied", "ok"]
    assert [o.object_id for o in frame.objects] == [1]
    assert "object 7" in frame.message


def test_a_correction_moves_the_object_it_names():
    service = Service()
    service.answers(mask_prompt(0, 1, session="a"), A[0], A[1])
    correction = replace(mask_prompt(4, 1, session="a"), correct=True)
    notice, masks = service.answers(correction, A[4])
    assert notice.kind == NoticeKind.APPLIED
    assert masks.objects[0].rle == correction.objects[0].shape.rle


def test_a_removed_object_is_not_answered_any_more_and_the_others_are():
    service = Service()
    service.answers(mask_prompt(0, 1, 2, session="a"), A[0])
    notice, masks = service.answers(Prompt(A[1].key, "away", remove=(1,)), A[1])
    assert notice.kind == NoticeKind.APPLIED
    assert [o.object_id for o in masks.objects] == [2]


def test_news_of_a_source_pass_through_in_their_place_and_name_their_record():
    service = Service()
    news = Notice(NoticeKind.DROPPED, "a", "main", 3, "4 frames dropped")
    answers = service.answers(A[0], news, A[4])
    assert answers[1] == replace(news, record=("frames", 0, 1))
    assert said(answers) == ["no_prompt", "dropped", "no_prompt"]


def test_the_end_of_a_session_is_answered_and_forgets_it():
    service = Service()
    answers = service.answers(mask_prompt(0, 1, session="a"), A[0], End("a"), A[1])
    assert said(answers) == ["applied", "ok", "ended", "no_prompt"]


def test_a_live_frame_behind_by_more_than_the_allowed_lag_is_answered_late_and_changes_nothing():
    service = Service(max_lag_s=2.0)
    service.now = 0.0
    live = [replace(frame, live=True) for frame in A]
    service.answers(mask_prompt(0, 1, session="a"), live[0])
    before = service.worker.states["a"].views
    service.now = 1e12
    assert said(service.answers(live[1], A[2])) == ["late", "ok"]  # a file waits for nobody's clock
    service.now = 0.0
    assert before["main"].objects[0].object_id == 1
    assert said(service.answers(live[3])) == ["ok"]


def test_a_turn_takes_no_more_records_than_it_has_time_for():
    service = Service(turn_budget_s=2.0, turn_records=100)
    service.worker.record_s = 0.9
    for frame in A:
        service.log.append("frames", "a", "frame", pack(frame))
    assert service.worker.turn() == 2
    service.worker.record_s = 50.0
    assert service.worker.turn() == 1


def test_a_state_larger_than_the_log_takes_is_not_written_there_and_said(monkeypatch, caplog):
    monkeypatch.setattr("psalm_stream.workers.segment.LARGEST_STATE", ENVELOPE + 100)
    service = Service()
    assert said(service.answers(mask_prompt(0, 1, session="a"), A[0])) == ["applied", "ok"]
    assert service.log.states == [{}]
    assert "no snapshot of session 'a': its state takes" in caplog.text


def test_a_slow_commit_does_not_make_the_turns_shorter(monkeypatch):
    class SlowBus(MemoryBus):
        clock_s = 0.0

        def commit(self, claims):
            super().commit(claims)
            self.clock_s += 1000

    service = Service(turn_budget_s=2.5, turn_records=100)
    service.worker.bus = bus = SlowBus(service.log)
    monkeypatch.setattr("psalm_stream.workers.segment.time", SimpleNamespace(monotonic=lambda: bus.clock_s))
    service.answers(mask_prompt(0, 1, session="a"))
    for frame in A:
        service.log.append("frames", "a", "frame", pack(frame))
    service.worker.record_s = 1.0
    assert [service.worker.turn() for _ in range(3)] == [2, 3, 1]


def test_records_that_ask_nothing_of_the_model_do_not_make_the_turns_longer(monkeypatch):
    service = Service(turn_budget_s=2.0, turn_records=100)
    clock = iter(range(1000))
    monkeypatch.setattr("psalm_stream.workers.segment.time", SimpleNamespace(monotonic=lambda: next(clock)))
    service.worker.record_s = 1.0
    service.answers(*B)  # nobody named anything in b
    assert service.worker.record_s == 1.0

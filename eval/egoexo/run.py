"""`psalm-stream eval egoexo` without its screen: ask every question of every take, keep each answer at once, go on where a call stopped.

    DIR/run.json   DIR/answers/TAKE.jsonl (a line a question)   DIR/objectrelator/DIRECTION/TAKE.jsonl   DIR/predictions.json

What is asked is ask.py's and objectrelator.py's, the prediction file predictions.py's, what is shown report.py's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from ...stream.errors import BadConfig, BadInput
from ...stream.rle import encode
from ...workers.answering import Model
from ...workers.run import refuse_results
from .ask import Question, Views, decide, missing_pictures, questions, resized
from .data import SCORING_SIDE, DataRoot, Take, read_object, scoring_size
from .objectrelator import ObjectScore, SampleScore, refuse_other_size, samples, score_question
from .predictions import Answer, answer_json, no_answer, take_json

METHOD, ANSWERS, OBJECTRELATOR, PREDICTIONS = "run.json", "answers", "objectrelator", "predictions.json"
PROTOCOLS = ("official", "objectrelator")
NOT_COMPARED = ("root", "weights", "threads", "versions", "machine", "cpus")  # the same answers come of others, but for rounding


@dataclass(frozen=True, slots=True)
class Job:
    """What to evaluate, and where to put it.

    batch_size: questions of one time that the model answers together; upright_ego: see Views; method: how answers are made, plain values.
    """

    data: DataRoot
    out: Path
    directions: tuple[str, ...]
    batch_size: int
    upright_ego: str | None
    method: Mapping[str, Any]

    def views(self, take: Take) -> Views:
        """The pictures of a take."""
        return Views(self.data, take, self.upright_ego)

    def answers(self, take: Take) -> Path:
        """Where the answers about a take are kept."""
        return self.out / ANSWERS / f"{take.uid}.jsonl"

    def samples(self, take: Take, direction: str) -> Path:
        """Where ObjectRelator's scores of a take are kept."""
        return self.out / OBJECTRELATOR / direction / f"{take.uid}.jsonl"


# -- the results folder -----------------------------------------------------------------------------------------------


def open_results(job: Job, overwrite: bool) -> None:
    """Make the results folder, or go on in one of the same evaluation. Raises BadConfig for any other, unless `overwrite`."""
    before = job.out / METHOD
    if before.is_file() and not overwrite:
        refuse_mixture(job, read_object(before))
    else:
        refuse_results(job.out, overwrite)
        clear(job.out)
    try:
        for folder in (ANSWERS, *(f"{OBJECTRELATOR}/{direction}" for direction in job.directions)):
            (job.out / folder).mkdir(parents=True, exist_ok=True)
        before.write_text(json.dumps(dict(job.method), indent=1, default=str) + "\n")
    except OSError as error:
        raise BadConfig(f"--out {job.out} cannot be written ({error}); choose a folder that can") from error


def refuse_mixture(job: Job, before: Mapping[str, Any]) -> None:
    """Raise BadConfig when the answers in the results folder were made in another way than this call makes them."""
    here = json.loads(json.dumps(dict(job.method), default=str))
    names = [n for n in here.keys() | before.keys() if n not in NOT_COMPARED and here.get(n) != before.get(n)]
    if names:
        said = ", ".join(f"{name} is {before.get(name)} there and {here.get(name)} here" for name in sorted(names))
        raise BadConfig(
            f"--out {job.out} holds results of another evaluation: {said}; repeat the call that made them, choose another folder, "
            "or replace them with --overwrite"
        )


def clear(out: Path) -> None:
    """Take away what an evaluation wrote; nothing else in the folder is touched. Raises BadConfig."""
    names = (METHOD, PREDICTIONS, "results.json", "pairs.csv", "report.html")
    try:
        for path in (*(out / name for name in names), *out.glob(f"{ANSWERS}/*.jsonl"), *out.glob(f"{OBJECTRELATOR}/*/*.jsonl")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise BadConfig(f"--out {out} cannot be cleared ({error}); choose another folder") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; what an interruption left of the last one is cut off. [] without a file. Raises BadInput."""
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        path.write_bytes(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise BadInput(f"{path}: a line of it is no JSON ({error}); delete the file, and its take is asked again") from error


# -- missing pictures -------------------------------------------------------------------------------------------------


def refuse_missing(data: DataRoot, directions: Sequence[str], allow: bool) -> str:
    """What pictures are missing, in words; "" when none is. Raises BadInput when some are, unless `allow`."""
    lacking = [(take, camera, frames) for take in data.takes for camera, frames in missing_pictures(data, take, directions).items()]
    if not lacking:
        return ""
    count, (take, camera, frames) = sum(len(frames) for _, _, frames in lacking), lacking[0]
    said = f"{count} pictures of {len(lacking)} cameras are missing, the first is {data.picture(take.uid, camera, frames[0])}"
    empty = next(((t, c) for t, c, _ in lacking if not any((data.root / t.uid / c).glob("*.jpg"))), None)
    if empty:
        said += (
            f"; take {empty[0].uid}, camera {empty[1]} has none at all: the official process_data.py stops at the first frame lower than "
            "1408 px, so cameras of 1080p come out empty"
        )
    if not allow:
        raise BadInput(f"{said}; process these takes again, or go on without them: --allow-missing answers them with empty masks")
    return f"{said}; they are answered with empty masks"


# -- the official questions -------------------------------------------------------------------------------------------


def answered(job: Job, take: Take) -> dict[Question, dict[str, Any]]:
    """The kept answers to the questions about a take as they are now; one about other objects is of relations that have changed since."""
    lines = {(line["query"], line["target"], line["frame"], tuple(line.get("names", ()))): line for line in read_lines(job.answers(take))}
    asked = {q: (q.query, q.target, q.frame, q.names) for q in questions(take, job.directions)}
    return {question: lines[key] for question, key in asked.items() if key in lines}


def waiting(job: Job, take: Take) -> list[Question]:
    """The questions about a take that have no answer yet and can be asked: both pictures are there."""
    done = answered(job, take)
    lacking = missing_pictures(job.data, take, job.directions)
    return [
        q
        for q in questions(take, job.directions)
        if q not in done and q.frame not in lacking.get(q.query, ()) and q.frame not in lacking.get(q.target, ())
    ]


def answer_take(job: Job, take: Take, model: Model) -> Iterator[int]:
    """Answer what is waiting of a take, each answer kept as it is made; yields how many questions were answered each time."""
    views = job.views(take)
    with job.answers(take).open("a", buffering=1) as kept:
        for _, at_once in groupby(waiting(job, take), key=lambda question: question.frame):
            group = list(at_once)
            for first in range(0, len(group), job.batch_size):
                batch = group[first : first + job.batch_size]
                for line in _answered(views, batch, model):
                    kept.write(json.dumps(line, separators=(",", ":")) + "\n")
                yield len(batch)


def _answered(views: Views, batch: Sequence[Question], model: Model) -> Iterator[dict[str, Any]]:
    began = perf_counter()
    asked = [views.request(question) for question in batch]
    proposals = model.segment([request for request, _ in asked])
    ms = (perf_counter() - began) * 1e3 / len(batch)
    for question, (request, names), found in zip(batch, asked, proposals, strict=True):
        size_hw = target_size(views.take, question.target)
        objects = {
            name: answer_json(encode(resized(views.restored(question.target, answer.mask), size_hw)), answer.confidence)
            for name, answer in zip(names, decide(request, found), strict=True)
        }
        yield {**asdict(question), "ms": round(ms, 1), "objects": objects}


def target_size(take: Take, camera: str) -> tuple[int, int]:
    """The scoring size of a camera's masks; of one whose every mask is undecodable nothing is ever compared."""
    full = take.size_hw(camera)
    return (SCORING_SIDE, SCORING_SIDE) if full is None else scoring_size(full)


def predictions(job: Job, take: Take) -> tuple[dict[str, dict[str, object]], list[float]]:
    """A take's part of the prediction file by direction, and the milliseconds of every question.

    Objects that were not asked for (their query mask cannot be decoded, or a picture is missing) are answered empty. Raises BadInput when a
    question is still waiting.
    """
    if left := waiting(job, take):
        raise BadInput(f"take {take.uid}: {len(left)} questions have no answer yet; run the evaluation to its end")
    answers: dict[tuple[str, str, int], Answer] = {}
    for question in questions(take, job.directions):
        empty = no_answer(target_size(take, question.target))
        answers |= {(name, f"{question.query}_{question.target}", question.frame): empty for name in question.names}
    lines = answered(job, take).values()
    for line in lines:
        answers |= {(name, f"{line['query']}_{line['target']}", line["frame"]): answer for name, answer in line["objects"].items()}
    return {direction: take_json(take, direction, answers) for direction in job.directions}, [line["ms"] for line in lines]


# -- ObjectRelator's --------------------------------------------------------------------------------------------------


def waiting_samples(job: Job, take: Take, direction: str) -> list[Question]:
    """The samples of a take that ObjectRelator would evaluate and that have no score yet."""
    done = {line["frame"] for line in read_lines(job.samples(take, direction))}
    return [q for q in samples(job.data, take, direction) if q.frame not in done and job.data.has_picture(take.uid, q.query, q.frame)]


def score_samples(job: Job, take: Take, direction: str, model: Model) -> Iterator[int]:
    """Answer and score what is waiting of a take, each score kept as it is made; yields 1 for each. Nothing is turned."""
    views = Views(job.data, take)
    with job.samples(take, direction).open("a", buffering=1) as kept:
        for question in waiting_samples(job, take, direction):
            request, _ = views.request(question)
            refuse_other_size(take, question, request.frame.size_hw)
            (found,) = model.segment([request])
            score = score_question(take, question, found, model.config.image_size)
            kept.write(json.dumps({"frame": question.frame, "score": asdict(score)}) + "\n")
            yield 1


def sample_scores(job: Job, take: Take, direction: str) -> list[SampleScore]:
    """The scores that are kept of a take."""
    scores = [line["score"] for line in read_lines(job.samples(take, direction))]
    return [SampleScore(s["intersection"], s["union"], tuple(ObjectScore(**o) for o in s["objects"]), tuple(s["vanished"])) for s in scores]


def still_to_do(job: Job, take: Take, protocols: Sequence[str]) -> int:
    """How many answers about a take are still to be made."""
    official = len(waiting(job, take)) if "official" in protocols else 0
    return official + (sum(len(waiting_samples(job, take, d)) for d in job.directions) if "objectrelator" in protocols else 0)


def work(job: Job, take: Take, protocols: Sequence[str], model: Model) -> Iterator[int]:
    """Make all answers about a take that are still to be made; yields how many were made each time."""
    if "official" in protocols:
        yield from answer_take(job, take, model)
    if "objectrelator" in protocols:
        for direction in job.directions:
            yield from score_samples(job, take, direction, model)

"""`psalm-stream eval davis` without its screen: follow every sequence, write its masks, score them; go on where an earlier call stopped.

The folder is results.py's, following is tracking.py's or bus_tracking.py's, the page is page.py's. Flags, progress bar and messages
are the command's (workers/cli/eval.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ...stream.errors import BadConfig, BadInput
from ...stream.paint import label_map
from ...stream.sinks import write_label_map
from ...stream.types import MaskFrame, ObjectStatus
from ...workers.run import refuse_results
from ...workers.tally import Tally
from .layout import Davis, DavisSequence, ids_of
from .page import REPORT
from .results import RECORD, Results, SequenceResult, SequenceRun, dataset_of, mask_path, read_results, score_masks, write_results
from .tracking import Tracker

DIGEST = "weights_digest"
NOT_COMPARED = ("root", "listed", "weights", "bus", "machine", "cpus", "torch_threads")  # the same masks come of others


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What to evaluate, and where to put it. method: how masks are made, as plain values; a digest of None is not known yet."""

    davis: Davis
    out: Path
    track: Tracker
    method: Mapping[str, Any]


def finished(out: Path, overwrite: bool) -> Results | None:
    """What an earlier call has finished in the results folder; with `overwrite` that is nothing.

    Raises BadConfig for a folder that holds anything else, BadInput for a results.json that cannot be read.
    """
    if overwrite:
        return None
    if out.is_dir() and (before := read_results(out)) is not None:
        return before
    refuse_results(out, overwrite)
    return None


def refuse_mixture(job: Evaluation, before: Results) -> None:
    """Raise BadConfig when what is in the results folder was made in another way than this call makes masks."""
    if not before.method:
        raise BadConfig(
            f"--out {job.out} holds scores of masks that were made elsewhere; choose another folder, or replace it with --overwrite"
        )
    here = flat(dataset_of(job.davis) | job.method)
    there = flat(dict(before.dataset) | dict(before.method))
    differing = [name for name in here.keys() | there.keys() if name not in NOT_COMPARED and here.get(name) != there.get(name)]
    if job.method[DIGEST] is None:  # known with the first answer
        differing = [name for name in differing if name != DIGEST]
    if differing:
        said = ", ".join(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in sorted(differing))
        raise BadConfig(
            f"--out {job.out} holds results of another evaluation: {said}; repeat the call that made them, choose another folder, "
            "or replace them with --overwrite"
        )


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested plain values under their innermost names, those of versions prefixed."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"version of {inner}" if name == "versions" else inner: v for inner, v in value.items()}
        else:
            found[name] = value
    return found


def clear(out: Path, davis: Davis) -> None:
    """Take away what an evaluation of this set wrote; nothing else in the folder is touched. Raises BadConfig."""
    try:
        for name in davis.listed:
            for path in (out / name).glob("*.png"):
                path.unlink()
        (out / RECORD).unlink(missing_ok=True)
        _take_back_scores(out)
    except OSError as error:
        raise BadConfig(f"--out {out} cannot be cleared ({error}); choose another folder") from error


def _take_back_scores(out: Path) -> None:
    """Delete the page and the CSVs: while masks are made they would be those of earlier ones."""
    for path in (out / REPORT, *out.glob("*_results-*.csv")):
        path.unlink(missing_ok=True)


def evaluate(job: Evaluation, before: Results | None, advance: Callable[[int], None]) -> Iterator[tuple[SequenceResult, bool]]:
    """Follow and score the sequences one after the other; yields each result, and whether its masks were there already.

    advance: is told how many frames more are done. results.json is brought up to date after every sequence. Raises BadConfig, BadInput, and
    what the tracker raises.
    """
    if before is not None:
        refuse_mixture(job, before)
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        _take_back_scores(job.out)
    except OSError as error:
        raise BadConfig(f"--out {job.out} cannot be written ({error}); choose a folder that can") from error
    runs = {} if before is None else {found.name: found.run for found in before.sequences if found.run}
    digest = job.method[DIGEST] or (before.method[DIGEST] if before else None)
    done: list[SequenceResult] = []
    _save(job, digest, done, before)
    for sequence in job.davis.sequences:
        kept = sequence.name in runs and _is_whole(job.out, sequence, runs[sequence.name])
        if kept:
            run = runs[sequence.name]
            advance(len(sequence.frames))
        else:
            run, digest = follow(job, sequence, digest, advance)
        done.append(SequenceResult(sequence.name, sequence.frames, score_masks(job.out, sequence), run))
        _save(job, digest, done, before)
        yield done[-1], kept


def follow(job: Evaluation, sequence: DavisSequence, digest: str | None, advance: Callable[[int], None]) -> tuple[SequenceRun, str]:
    """Follow one sequence and write its masks. Returns what came of it, and the digest of the weights that answered.

    Raises BadConfig when weights of another digest answer, BadInput when a frame is left without its answer.
    """
    tally, frames, ms = Tally(), [], defaultdict(list)
    (job.out / sequence.name).mkdir(exist_ok=True)
    began = perf_counter()
    for _, answer in job.track(sequence):
        digest = digest or answer.model
        if answer.model != digest:
            raise BadConfig(
                f"sequence {sequence.name}: frame {answer.key.index} was answered by weights {answer.model}, those before by {digest}; "
                "let all workers have the same, or choose another --out"
            )
        writing = perf_counter()
        write_label_map(mask_path(job.out, sequence.name, sequence.frames[answer.key.index]), label_map(answer))
        tally.add(answer)
        frames.append(answer)
        for stage, took in {**answer.ms, "write": (perf_counter() - writing) * 1e3}.items():
            ms[stage].append(round(took, 3))
        advance(1)
    if len(frames) != len(sequence.frames):
        raise BadInput(
            f"sequence {sequence.name}: {len(frames)} answers for {len(sequence.frames)} frames; see that its pictures are readable"
        )
    return _run(frames, ms, tally, round(perf_counter() - began, 3)), digest


def _run(answers: Sequence[MaskFrame], ms: Mapping[str, Sequence[float]], tally: Tally, seconds: float) -> SequenceRun:
    said = [{found.object_id: found.status.value for found in answer.objects} for answer in answers]
    objects = {i: tuple(frame.get(i, ObjectStatus.ABSENT.value) for frame in said) for i in sorted(tally.objects)}
    statuses = tuple(answer.status.value for answer in answers)
    return SequenceRun(seconds, tally.digest(), statuses, objects, {stage: tuple(times) for stage, times in ms.items()})


def _is_whole(out: Path, sequence: DavisSequence, run: SequenceRun) -> bool:
    """Whether every mask is there, and of the objects that are annotated now."""
    return set(run.objects) == set(ids_of(sequence.true_map(0))) and all(
        mask_path(out, sequence.name, frame).is_file() for frame in sequence.frames
    )


def _save(job: Evaluation, digest: str | None, done: Sequence[SequenceResult], before: Results | None) -> None:
    """Bring results.json up to date: what this call has done, and what an earlier one did that is still to be looked at."""
    names = {result.name for result in done}
    waiting = [result for result in (before.sequences if before else ()) if result.name not in names]
    write_results(job.out, Results(dataset_of(job.davis), {**job.method, DIGEST: digest}, (*done, *waiting)))


def score_folder(davis: Davis, folder: Path, advance: Callable[[int], None]) -> Results:
    """Score masks that are there, whoever made them; what an evaluation has noted of their making in the folder is kept.

    advance: is told how many frames more are done. Raises BadInput for what does not fit.
    """
    before = read_results(folder)
    same = before is not None and before.dataset["set"] == davis.set_name
    runs = {found.name: found for found in before.sequences} if same else {}
    scored = []
    for sequence in davis.sequences:
        known = runs.get(sequence.name)
        run = known.run if known and known.frames == sequence.frames else None
        scored.append(SequenceResult(sequence.name, sequence.frames, score_masks(folder, sequence), run))
        advance(len(sequence.frames))
    return Results(dataset_of(davis), before.method if same else {}, tuple(scored))

"""A results folder: label PNGs in DAVIS submission layout, the CSVs of the official scorer, and results.json, which holds every number.

    DIR/SEQUENCE/00000.png ...   global_results-SET.csv   per-sequence_results-SET.csv   results.json

What a score is lives in metrics.py; the page that shows all this is page.py's.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...stream.errors import BadInput
from .layout import Davis, DavisSequence, by, read_labels
from .metrics import ObjectScore, Score, Statistic, average, highest_id, score_frames, score_object

RECORD = "results.json"
FORMAT = 1
LONGEST_IN_8_BITS = 256  # scored frames up to which the official decay is right
WITHOUT_FUSION = "fusion-not-used"  # how the digest of an ObjectRelator checkpoint ends, here and behind a broker


@dataclass(frozen=True, slots=True)
class SequenceRun:
    """What came of following a sequence, beside its masks; lists have an entry a frame.

    answers_sha256: over every answer but its times, as in run.json; statuses: of the frames; objects: statuses by object id; ms: by stage.
    """

    seconds: float
    answers_sha256: str
    statuses: tuple[str, ...]
    objects: Mapping[int, tuple[str, ...]]
    ms: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """One sequence: the names of all its frames, its score, and how its masks came about (None: not by us)."""

    name: str
    frames: tuple[str, ...]
    score: Score
    run: SequenceRun | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder as numbers. dataset, method: plain values that say what was scored and how it was made ({}: not known)."""

    dataset: Mapping[str, Any]
    method: Mapping[str, Any] = field(default_factory=dict)
    sequences: tuple[SequenceResult, ...] = ()

    @property
    def score(self) -> Score:
        """The mean over all objects, as the official scorer takes it."""
        return average([o for sequence in self.sequences for o in sequence.score.objects])

    @property
    def remarks(self) -> list[str]:
        """What must be known to compare these numbers with others."""
        data, made = self.dataset, self.method
        longest = max((len(sequence.frames) - 2 for sequence in self.sequences), default=0)
        said = {
            "DAVIS-2016 annotations: whatever is annotated is object 1. Scored by the rules of the DAVIS-2017 evaluation, not by those "
            "of 2016.": data["layout"] == 2016,
            "Policy official: the annotations tell it which objects exist in each frame (oracle visibility), as in PSALM's own DAVIS "
            "evaluation. Methods that decide this themselves have a harder task.": made.get("policy") == "official",
            f"Only the first {data['limit']} frames of each sequence: not comparable with full runs.": data["limit"] is not None,
            f"{len(self.sequences)} of the {data['listed']} sequences of set {data['set']}: not the score of the set.": len(self.sequences)
            != data["listed"],
            "Weights nano: the small model that is shipped for trying things out.": made.get("weights") == "nano",
            "An ObjectRelator checkpoint, fusion not used: its PSALM part alone made the masks.": str(made.get("weights_digest")).endswith(
                WITHOUT_FUSION
            ),
            "Followed by the workers behind the broker: policy, motion and precision are as these were started.": made.get("bus")
            is not None,
            "Masks found in the folder: how they were made is not known here.": not made,
            f"More than {LONGEST_IN_8_BITS} scored frames: the official decay keeps its quarter edges in 8 bits and is wrong there; the "
            "corrected one stands beside it.": longest > LONGEST_IN_8_BITS,
        }
        return [remark for remark, holds in said.items() if holds]


def dataset_of(davis: Davis) -> dict[str, Any]:
    """What was scored, as plain values."""
    return {
        "root": str(davis.root),
        "layout": davis.layout,
        "set": davis.set_name,
        "listed": len(davis.listed),
        "limit": davis.limit,
    }


# -- masks ------------------------------------------------------------------------------------------------------------


def mask_path(folder: Path, sequence: str, frame: str) -> Path:
    """Where the answered label map of a frame lies."""
    return folder / sequence / f"{frame}.png"


def read_answer(folder: Path, sequence: DavisSequence, index: int) -> np.ndarray:
    """The answered label map of a frame, uint8 [H, W]. Raises BadInput when it is missing or no label PNG."""
    path = mask_path(folder, sequence.name, sequence.frames[index])
    if not path.is_file():
        there = f"holds {len(list(path.parent.glob('*.png')))} PNGs" if path.parent.is_dir() else "is no folder"
        raise BadInput(
            f"{path} is missing, {path.parent} {there}; expected a label PNG for every annotated frame but the first and the last of "
            f"{sequence.name}; leave sequences out with --sequences"
        )
    return read_labels(path, sequence.binary)


def score_masks(folder: Path, sequence: DavisSequence) -> Score:
    """Score the masks of a sequence: every frame but its first and last. Raises BadInput, naming the file that does not fit.

    As the official scorer does, an id above those of the first annotation is refused, and an object that is never answered counts as
    empty. Unlike it, numbers are computed anew each time: it reads back the CSVs it finds in the folder, however old.
    """
    count = highest_id(sequence.true_map(0))

    def pair(index: int) -> tuple[np.ndarray, np.ndarray]:
        truth, answer = sequence.true_map(index), read_answer(folder, sequence, index)
        path = mask_path(folder, sequence.name, sequence.frames[index])
        if answer.shape != truth.shape:
            raise BadInput(f"{path} is {by(answer.shape)}, its annotation {by(truth.shape)}; save masks at the size of the annotations")
        if (highest := int(answer.max())) > count:
            raise BadInput(
                f"{path} has object id {highest}, the first annotation of {sequence.name} has ids up to {count}; use its ids, 0 elsewhere"
            )
        return truth, answer

    return score_frames(count, map(pair, range(1, len(sequence.labels) - 1)))


# -- numbers ----------------------------------------------------------------------------------------------------------


def figures(j: Statistic, f: Statistic) -> dict[str, float]:
    """The numbers of an object, a sequence or a set under the names of the official CSV; fractions."""
    named = {"J&F-Mean": (j.mean + f.mean) / 2}
    for measure, found in (("J", j), ("F", f)):
        named |= {f"{measure}-Mean": found.mean, f"{measure}-Recall": found.recall, f"{measure}-Decay": found.decay}
        named[f"{measure}-Decay-corrected"] = found.decay_corrected
    return named


OFFICIAL = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


def write_csvs(folder: Path, results: Results) -> list[Path]:
    """Write the official scorer's two files: names, columns and 3 decimals are its own; a number that is none stays empty."""
    set_name = results.dataset["set"]
    whole = figures(results.score.j, results.score.f)
    objects = [
        [f"{sequence.name}_{found.object_id}", _decimals(found.j.mean), _decimals(found.f.mean)]
        for sequence in results.sequences
        for found in sequence.score.objects
    ]
    tables = {
        folder / f"global_results-{set_name}.csv": [OFFICIAL, [_decimals(whole[name]) for name in OFFICIAL]],
        folder / f"per-sequence_results-{set_name}.csv": [("Sequence", "J-Mean", "F-Mean"), *objects],
    }
    for path, lines in tables.items():
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    return list(tables)


def _decimals(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def write_results(folder: Path, results: Results) -> Path:
    """Write results.json in one step, so that it is whole whenever it is there."""
    body = {
        "format": FORMAT,
        "dataset": results.dataset,
        "method": results.method,
        "remarks": results.remarks,
        "scores": _plain(figures(results.score.j, results.score.f)),
        "sequences": [_sequence_json(sequence) for sequence in results.sequences],
    }
    path = folder / RECORD
    part = path.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n")
    os.replace(part, path)
    return path


def read_results(folder: Path) -> Results | None:
    """What results.json of a folder says, None when there is none. Raises BadInput for one that is not ours."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_text())
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, expected {FORMAT}")
        return Results(body["dataset"], body["method"], tuple(map(_read_sequence, body["sequences"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is not a result of `eval davis` or `score davis` ({error}); name another folder, with --out or as RESULTS"
        ) from error


def _sequence_json(sequence: SequenceResult) -> dict[str, Any]:
    run = sequence.run
    return {
        "name": sequence.name,
        "frames": list(sequence.frames),
        "scores": _plain(figures(sequence.score.j, sequence.score.f)),
        "objects": [_object_json(found) for found in sequence.score.objects],
        "run": run
        and {
            "seconds": run.seconds,
            "answers_sha256": run.answers_sha256,
            "statuses": list(run.statuses),
            "objects": {str(object_id): list(statuses) for object_id, statuses in run.objects.items()},
            "ms": {stage: list(ms) for stage, ms in run.ms.items()},
        },
    }


def _object_json(found: ObjectScore) -> dict[str, Any]:
    scores = _plain(figures(found.j, found.f))
    return {"object_id": found.object_id, "scores": scores, "J": found.j_frames.tolist(), "F": found.f_frames.tolist()}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _read_sequence(body: Mapping[str, Any]) -> SequenceResult:
    objects: Sequence[ObjectScore] = [score_object(o["object_id"], o["J"], o["F"]) for o in body["objects"]]
    run = body["run"]
    return SequenceResult(
        body["name"],
        tuple(body["frames"]),
        average(objects),
        run
        and SequenceRun(
            run["seconds"],
            run["answers_sha256"],
            tuple(run["statuses"]),
            {int(object_id): tuple(statuses) for object_id, statuses in run["objects"].items()},
            {stage: tuple(ms) for stage, ms in run["ms"].items()},
        ),
    )

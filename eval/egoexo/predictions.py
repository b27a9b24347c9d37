"""The official prediction file of Ego-Exo4D correspondence: made from answers, written, read, and refused where its scorer would stop.

`ego-exo` and `exo-ego` -> version, challenge, results -> take -> masks -> object -> "QUERY_TARGET" -> frame -> pred_mask, confidence. The
official script stops at a failed assertion, in a debugger; here the same conditions are one message each. Scores are score.py's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...stream import rle
from ...stream.coco import rle_json
from ...stream.errors import BadInput
from ...stream.types import Rle
from .data import DIRECTIONS, Pair, Take, pairs, read_object, scoring_size

VERSION = CHALLENGE = "xx"  # literally, in the baselines' own submissions
SHOWN_PROBLEMS = 10
Answer = Mapping[str, object]  # pred_mask and confidence of one object on one frame
Answers = Mapping[tuple[str, str, int], Answer]  # by object, QUERY_TARGET, frame


def answer_json(mask: Rle, confidence: float) -> dict[str, object]:
    """One answer as the file holds it; the mask is at scoring size."""
    return {"pred_mask": rle_json(mask), "confidence": round(confidence, 6)}


def no_answer(size_hw: tuple[int, int]) -> dict[str, object]:
    """The answer where nothing can be asked: an empty mask at scoring size, surely absent."""
    return answer_json(rle.encode(np.zeros(size_hw, bool)), 0.0)


def take_json(take: Take, direction: str, answers: Answers) -> dict[str, object]:
    """A take's part of the file. Objects without both cameras are in it as {}. Raises BadInput for an answer that is not there."""
    masks: dict[str, dict[str, dict[str, Answer]]] = {name: {} for name in take.masks}
    for pair in pairs(take, direction):
        frames = take.masks[pair.name][pair.query]
        if absent := [frame for frame in frames if (pair.name, pair.key, frame) not in answers]:
            raise BadInput(f"take {take.uid}: {pair.name} in {pair.key} has no answer on frame {absent[0]}; run the evaluation to its end")
        masks[pair.name][pair.key] = {str(frame): answers[pair.name, pair.key, frame] for frame in frames}
    return {"masks": masks, "subsample_idx": list(take.subsample_idx)}


def write_predictions(path: Path, by_direction: Mapping[str, Mapping[str, object]]) -> None:
    """Write the file, results by direction and take; under another name first, so that a file of this name is whole."""
    told = {d: {"version": VERSION, "challenge": CHALLENGE, "results": results} for d, results in by_direction.items()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, separators=(",", ":")))
    os.replace(part, path)


def read_predictions(path: Path) -> dict[str, Mapping[str, object]]:
    """The results of the directions a file holds, by take. Raises BadInput for a file with none."""
    told = read_object(path)
    if not any(direction in told for direction in DIRECTIONS):
        raise BadInput(
            f"{path} has neither `ego-exo` nor `exo-ego`, expected at least one and both in a submission; it holds {', '.join(told)}"
        )
    found = {}
    for direction in (d for d in DIRECTIONS if d in told):
        results = told[direction].get("results") if isinstance(told[direction], dict) else None
        if not isinstance(results, dict):
            raise BadInput(f"{path}: {direction} has no `results` by take; expected version, challenge and results")
        found[direction] = results
    return found


def refuse_misfits(takes: Sequence[Take], results: Mapping[str, object], direction: str) -> None:
    """Raise BadInput where the official scorer would stop, listing the first problems and their number."""
    problems = list(misfits(takes, results, direction))
    if problems:
        more = f"\n  and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "\n  ".join(problems[:SHOWN_PROBLEMS])
        raise BadInput(
            f"{direction}: the predictions have {len(problems)} problems, any of which stops the official scorer:\n  {listed}{more}"
        )


def misfits(takes: Sequence[Take], results: Mapping[str, object], direction: str) -> Iterator[str]:
    """One line for everything that a complete prediction must have and this one lacks. Source: the official validation."""
    if len(results) != len(takes):
        yield f"{len(results)} takes, the truth has {len(takes)}; predict each of them once"
    for take in takes:
        predicted = results.get(take.uid)
        if predicted is None:
            yield f"take {take.uid} is missing"
        elif not isinstance(predicted, dict) or not isinstance(predicted.get("masks"), dict):
            yield f"take {take.uid} has no `masks` by object"
        else:
            yield from _take_misfits(take, predicted["masks"], direction)


def _take_misfits(take: Take, masks: Mapping[str, Mapping[str, Mapping[str, Answer]]], direction: str) -> Iterator[str]:
    if len(masks) != len(take.masks):
        yield f"take {take.uid}: {len(masks)} objects, the truth has {len(take.masks)}; one without a pair of cameras is there as {{}}"
    if missing := [name for name in take.masks if name not in masks]:
        yield f"take {take.uid}: object {missing[0]} is missing"
    strange = {name: by_pair for name, by_pair in masks.items() if not isinstance(by_pair, dict)}
    for name, by_pair in strange.items():
        yield f"take {take.uid}: {name} is a {type(by_pair).__name__}, expected an object of pairs QUERY_TARGET"
    for pair in (pair for pair in pairs(take, direction) if pair.name in masks and pair.name not in strange):
        by_frame = masks[pair.name].get(pair.key)
        if by_frame is None:
            yield f"take {take.uid}: {pair.name} has no pair {pair.key}; every ego x exo pair is expected"
        elif not isinstance(by_frame, dict):
            yield f"take {take.uid}: {pair.name} in {pair.key} is a {type(by_frame).__name__}, expected an object of answers by frame"
        else:
            yield from _pair_misfits(take, pair, by_frame)


def _pair_misfits(take: Take, pair: Pair, by_frame: Mapping[str, Answer]) -> Iterator[str]:
    where, size_hw = f"take {take.uid}: {pair.name} in {pair.key}", take.size_hw(pair.target)
    expected = scoring_size(size_hw) if size_hw else None
    for frame in take.masks[pair.name][pair.query]:
        answer = by_frame.get(str(frame))
        if answer is None:
            yield f"{where} has no frame {frame}; every frame with a query mask is expected, those that are not scored too"
        elif problem := answer_problem(answer, expected):
            yield f"{where} on frame {frame}: {problem}"


def answer_problem(answer: Answer, expected_hw: tuple[int, int] | None) -> str | None:
    """What is wrong with one answer, None when it can be scored. expected_hw: scoring size; None: not known, any will do."""
    try:
        confidence, found = float(answer["confidence"]), predicted_rle(answer)
        rle.area(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"no confidence or pred_mask with size and counts ({type(error).__name__}: {error})"
    except BadInput as error:
        return str(error)
    if not math.isfinite(confidence):
        return f"confidence is {confidence}, expected a number"
    if expected_hw and found.size_hw != expected_hw:
        height, width = found.size_hw
        return (
            f"pred_mask is {height} x {width}, expected {expected_hw[0]} x {expected_hw[1]} (height x width, long side 480); "
            "predictions are never resized when scored"
        )
    return None


def predicted_rle(answer: Answer) -> Rle:
    """The mask of one answer. Raises KeyError, TypeError or ValueError for what is none."""
    height, width = answer["pred_mask"]["size"]
    counts = answer["pred_mask"]["counts"]
    return Rle((int(height), int(width)), counts if isinstance(counts, bytes) else counts.encode())


def is_submission(by_direction: Iterable[str]) -> bool:
    """Whether a file of these directions has all that the challenge asks for."""
    return set(by_direction) == set(DIRECTIONS)

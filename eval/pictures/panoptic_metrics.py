"""Panoptic quality of one or many pictures by panopticapi's rules: PQ = SQ x RQ, a category at a time, then the mean over categories.

Id maps and segment lists go in, numbers come out, fractions of 1. Reading COCO's files is panoptic_files.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...stream.coco import VOID

MATCH_IOU = 0.5  # strict: so a segment has at most one match
IGNORED_SHARE = 0.5  # strict: an unmatched segment that lies so far on void or crowd is no error


@dataclass(frozen=True, slots=True)
class TruthSegment:
    """A segment as the ground truth's JSON lists it. area: as it says; is_crowd: several objects that nobody told apart."""

    id: int
    category_id: int
    area: int
    is_crowd: bool


@dataclass(slots=True)
class Tally:
    """What became of one category's segments. iou: summed over the matches."""

    iou: float = 0.0
    matched: int = 0
    wrong: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over `categories` categories; NaN when there are none."""

    pq: float
    sq: float
    rq: float
    categories: int


def pixel_counts(truth: np.ndarray, answer: np.ndarray) -> dict[tuple[int, int], int]:
    """How many pixels have each pair of (true id, answered id): int [H, W] both."""
    true_ids, true_rows = _rows(truth)
    answered_ids, answered_rows = _rows(answer)
    counts = np.bincount(true_rows * len(answered_ids) + answered_rows, minlength=len(true_ids) * len(answered_ids))
    pairs = counts.reshape(len(true_ids), len(answered_ids))
    return {(int(true_ids[t]), int(answered_ids[a])): int(pairs[t, a]) for t, a in np.argwhere(pairs)}


def _rows(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a map, and the row of each pixel's among them; neighbours mostly agree, so only where a run begins is looked at."""
    flat = ids.ravel()
    begins = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    found, rows = np.unique(flat[begins], return_inverse=True)
    return found, np.repeat(rows, np.diff(np.append(begins, flat.size)))


def add_picture(
    tallies: Mapping[int, Tally],
    counts: Mapping[tuple[int, int], int],
    truth: Sequence[TruthSegment],
    answer: Mapping[int, int],
    corrected: bool = False,
) -> None:
    """Count one picture into the tallies (by category id).

    counts: see `pixel_counts`; answer: category of every answered segment. A pair is a match when it has the same category and an IoU above
    0.5, the answered pixels on void left out of the union; a crowd is never matched nor missed. An unmatched answer of which more than half
    lies on void or on a crowd of its category is not counted.
    Two quirks of panopticapi are official and the default: the area of a true segment is what its JSON says, not what its pixels
    are, and of several crowds of a category the last listed alone excuses answers. corrected: pixels, and all crowds.
    """
    answered_area, true_area = _areas(counts, 1), _areas(counts, 0)
    crowds: dict[int, list[int]] = {}
    matched_truth, matched_answers = set(), set()
    for segment in truth:
        if segment.is_crowd:
            known = crowds.setdefault(segment.category_id, [])
            known[:] = [*known, segment.id] if corrected else [segment.id]
            continue
        for answer_id, category_id in answer.items():
            shared = counts.get((segment.id, answer_id), 0)
            if not shared or category_id != segment.category_id:
                continue
            area = true_area.get(segment.id, 0) if corrected else segment.area
            iou = shared / (answered_area[answer_id] + area - shared - counts.get((VOID, answer_id), 0))
            if iou > MATCH_IOU:
                tallies[category_id].iou += iou
                tallies[category_id].matched += 1
                matched_truth.add(segment.id)
                matched_answers.add(answer_id)
    for segment in truth:
        tallies[segment.category_id].missed += not segment.is_crowd and segment.id not in matched_truth
    for answer_id in answer.keys() - matched_answers:
        category_id = answer[answer_id]
        ignored = sum(counts.get((true_id, answer_id), 0) for true_id in (VOID, *crowds.get(category_id, ())))
        tallies[category_id].wrong += ignored / answered_area[answer_id] <= IGNORED_SHARE


def quality(tallies: Iterable[Tally]) -> Quality:
    """The mean over categories that have any segment, true or answered. Source: Kirillov et al., Panoptic Segmentation, CVPR 2019."""
    present = [t for t in tallies if t.matched + t.wrong + t.missed]
    halves = [t.matched + (t.wrong + t.missed) / 2 for t in present]
    return Quality(
        pq=_mean([t.iou / n for t, n in zip(present, halves, strict=True)]),
        sq=_mean([t.iou / t.matched if t.matched else 0.0 for t in present]),
        rq=_mean([t.matched / n for t, n in zip(present, halves, strict=True)]),
        categories=len(present),
    )


def _areas(counts: Mapping[tuple[int, int], int], side: int) -> dict[int, int]:
    areas: dict[int, int] = {}
    for pair, count in counts.items():
        areas[pair[side]] = areas.get(pair[side], 0) + count
    return areas


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

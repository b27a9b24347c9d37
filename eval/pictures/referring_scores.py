"""Questions and answers through the referring metrics: RefCOCO, gRefCOCO and interactive segmentation, official figures and corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...stream.errors import BadInput
from .interactive_truth import official_truth
from .referring_files import Question, mask_of, union_of
from .referring_metrics import ReferringScore, overlap, score


@dataclass(frozen=True, slots=True)
class BothScores:
    """official: the truth as PSALM's evaluation draws it; corrected: the truth as COCO's rules draw it; the same where it is run-lengths.

    dropped: questions that the official evaluation does not score (interactive: regions the padded square has no pixel of).
    """

    official: ReferringScore
    corrected: ReferringScore
    dropped: int = 0


def score_answers(
    questions: Sequence[Question], answers: Mapping[str, Any], side: int | None = None, advance: Callable[[int], None] = lambda total: None
) -> BothScores:
    """Score the answer to every question. advance(total) is called after each.

    side: for interactive, the padded square that the official truth went through, 1024 pixels for the released model; None: expressions.
    Raises BadInput for a question without answer, an answer without question, and masks that do not fit their picture.
    """
    if missing := [q.id for q in questions if q.id not in answers]:
        raise BadInput(f"{len(missing)} of {len(questions)} questions have no answer, the first is {missing[0]}; answer null for no pixel")
    if strange := sorted(answers.keys() - {q.id for q in questions}):
        raise BadInput(f"{len(strange)} answers are to no question, the first is {strange[0]}; check that the files belong together")
    official, corrected, dropped = [], [], 0
    for question in questions:
        try:
            answer = mask_of(answers[question.id], question.size_hw)
            true = union_of(question.segmentations, question.size_hw, "coco")
            as_scored = _official(question, side)
        except BadInput as error:
            raise BadInput(f"question {question.id}: {error}") from error
        corrected.append(overlap(true, answer))
        if as_scored is None:
            dropped += 1
        else:
            official.append(overlap(as_scored, answer))
        advance(len(questions))
    return BothScores(score(official), score(corrected), dropped)


def _official(question: Question, side: int | None) -> np.ndarray | None:
    if side is None:
        return union_of(question.segmentations, question.size_hw, "official")
    return official_truth(question.segmentations, question.size_hw, side)

"""The official DAVIS loop, decision by decision: prompt source, picking, painting, memory.

It is told which objects exist in a frame (an oracle) and never decides that itself. The honest policy is honest_policy.py.
Source: PSALM's DAVIS evaluation loop (specification, section 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..stream.rle import decode, encode
from ..stream.types import ObjectState, ObjectStatus, Proposals, Region, Remembered, Request
from .answer import Answer
from .overlap import disjoint, pair_iou

TOP_QUERIES = 10
REJECTED_IOU = 0.4


def regions(known: Sequence[ObjectState], visible: Sequence[int]) -> tuple[Region, ...]:
    """What a frame is asked with: one region an object, all of them from memory or all as prompted.

    known: the objects of the view, those in memory first and in memory's order; visible: the ids that exist in this frame.
    Memory is used when it holds as many objects as are visible; which ones is not compared, so two that swap are confused.
    """
    by_id = {o.object_id: o for o in known}
    asked = [by_id[i] for i in visible if i in by_id]
    memory = [o for o in known if o.memory is not None]
    source = [(o, o.memory) for o in memory] if memory and len(memory) == len(asked) else [(o, o.anchor) for o in asked]
    return tuple(Region(o.object_id, remembered.frame, decode(remembered.rle)) for o, remembered in source)


def settle(
    known: Sequence[ObjectState], request: Request, proposals: Proposals, given: Mapping[int, np.ndarray]
) -> tuple[list[Answer], bool]:
    """Answers for every object but those given by mask, and whether the frame was accepted into memory.

    An accepted frame replaces the whole memory, its order included (the order asked, then the rest); a rejected one leaves it,
    however old. Where the official loop would crash one frame later, an accepted empty mask, the object
    stays out of memory, so that the next frame starts from the first prompts.
    """
    asked = [region.object_id for region in request.condition.regions]
    picks = pick_distinct(proposals.scores)
    picked = proposals.masks(picks) if picks else np.zeros((len(asked), *request.frame.size_hw), bool)
    accepted = is_accepted(picked)
    painted = disjoint([*picked, *given.values()], range(len(asked) + len(given)))  # later objects overwrite earlier ones
    answers = []
    for row, object_id in enumerate(asked):
        before = next((o.memory for o in known if o.object_id == object_id), None)
        after = Remembered(request.frame, encode(picked[row])) if picked[row].any() else None
        visible = bool(painted[row].any())
        answers.append(
            Answer(
                object_id,
                ObjectStatus.SEEN if visible else ObjectStatus.ABSENT,
                float(proposals.scores[row, picks[row]]) if visible else 0.0,
                encode(painted[row]) if visible else None,
                after if accepted else before,
            )
        )
    forget = accepted and bool(asked)
    unasked = [o for o in known if o.object_id not in asked]
    answers += [Answer(o.object_id, ObjectStatus.ABSENT, 0.0, None, None if forget else o.memory) for o in unasked]
    if not accepted:
        order = [o.object_id for o in known]
        answers.sort(key=lambda a: order.index(a.object_id) if a.object_id in order else len(order))
    return answers, accepted


def pick_distinct(scores: np.ndarray) -> list[int]:
    """A query for each object, in order: the best of its ten best that no earlier object took. scores: float [K, Q] -> K queries.

    When all ten are taken the previous object's query is used again. Without queries there is nothing to pick: [].
    """
    if not scores.shape[1]:
        return []
    picks: list[int] = []
    for row in scores:
        best = np.argsort(-row, kind="stable")[:TOP_QUERIES].tolist()
        picks.append(next((query for query in best if query not in picks), picks[-1] if picks else best[0]))
    return picks


def is_accepted(picked: np.ndarray) -> bool:
    """Whether picked masks, bool [K, H, W], may become the memory: no two of them overlap by an IoU above 0.4."""
    return not (np.triu(pair_iou(picked, picked), k=1) > REJECTED_IOU).any()

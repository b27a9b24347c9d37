"""From a clip to one training question: which pictures, what is asked, what is true. numpy only; tensors are made in batches.py.

Four tasks: `video` (objects of remembered frames, most of them with a carried mask), `own` (point, box, scribble or mask on the frame
itself), `sentence` and `categories`. A batch holds one task, as the criterion asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from .clip import CATEGORIES, Clip, categories, sentences
from .priors import corrupt

MAX_OBJECTS = 3
SMALLEST_PX = 20
TASKS = {"video": 0.66, "own": 0.2, "sentence": 0.07, "categories": 0.07}


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its truth.

    images: uint8 [S, S, 3], the asked one first; tokens: (image, object row, mask bool [S, S]) a region token each; carried: mask bool
    [S, S] by token; targets: bool [M, S, S], present objects first, empty ones (absent) last; names: categories asked; classes: class
    number by target; sentence: the sentence asked.
    """

    task: str
    images: list[np.ndarray]
    targets: np.ndarray
    tokens: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    carried: dict[int, np.ndarray] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    classes: list[int] = field(default_factory=list)
    sentence: str = ""


def make_example(clip: Clip, task: str, rng: np.random.Generator) -> Example | None:
    """One question of this task about a clip's last frame, or None when the clip does not offer it."""
    make = {"video": _video, "own": _own, "sentence": _sentence, "categories": _categories}[task]
    return make(clip, rng)


def _video(clip: Clip, rng: np.random.Generator) -> Example | None:
    known = [o.object_id for o in clip.objects if (clip.labels[0] == o.object_id).sum() >= SMALLEST_PX]
    if not known:
        return None
    chosen = rng.permutation(known)[: rng.integers(1, MAX_OBJECTS + 1)]
    present = [i for i in chosen if (clip.labels[2] == i).any()]
    objects = [*present, *(i for i in chosen if i not in present)]
    with_memory, with_anchor = rng.random() < 0.75, True
    if with_memory and rng.random() < 0.3:
        with_anchor = False
    inside = np.zeros(clip.labels[2].shape, bool)
    inside[: clip.valid_hw[0], : clip.valid_hw[1]] = True
    tokens, carried = [], {}
    prior = rng.random() < 0.75
    for row, object_id in enumerate(objects):
        seen_before = clip.labels[1] == object_id
        current = clip.labels[2] == object_id
        brought = (
            corrupt(current, rng, clip.images[2]) if current.any() and rng.random() < 0.85 else corrupt(seen_before, rng, clip.images[1])
        )
        own = []
        if with_anchor or not seen_before.any():
            own.append((1, row, clip.labels[0] == object_id))
        if with_memory and seen_before.any():
            memory = corrupt(seen_before, rng, clip.images[1]) & inside if rng.random() < 0.5 else seen_before
            own.append((2, row, memory if memory.any() else seen_before))
        for token in own:
            if prior and brought.any():
                carried[len(tokens)] = brought
            tokens.append(token)
    targets = np.stack([clip.labels[2] == i for i in objects])
    return Example("video", [clip.images[2], clip.images[0], clip.images[1]], targets, tokens, carried)


def _own(clip: Clip, rng: np.random.Generator) -> Example | None:
    present = [o.object_id for o in clip.objects if (clip.labels[2] == o.object_id).sum() >= SMALLEST_PX]
    if not present:
        return None
    chosen = rng.permutation(present)[: rng.integers(1, MAX_OBJECTS + 1)]
    targets = np.stack([clip.labels[2] == i for i in chosen])
    tokens = [(0, row, _visual_prompt(mask, rng)) for row, mask in enumerate(targets)]
    carried = {row: prompt for row, (_, _, prompt) in enumerate(tokens)} if rng.random() < 0.8 else {}
    return Example("own", [clip.images[2]], targets, tokens, carried)


def _sentence(clip: Clip, rng: np.random.Generator) -> Example | None:
    said = sentences(clip, 2)
    if not said:
        return None
    sentence, object_id = said[rng.integers(len(said))]
    return Example("sentence", [clip.images[2]], (clip.labels[2] == object_id)[None], sentence=sentence)


def _categories(clip: Clip, rng: np.random.Generator) -> Example | None:
    present = categories(clip, 2)
    if not present:
        return None
    others = [name for name in CATEGORIES if name not in present]
    names = [*present, *rng.permutation(others)[: rng.integers(1, 6)]]
    names = [str(name) for name in rng.permutation(names)]
    targets, classes = [], []
    for thing in clip.objects:
        mask = clip.labels[2] == thing.object_id
        if thing.category and mask.any():
            targets.append(mask)
            classes.append(names.index(thing.category))
    return Example("categories", [clip.images[2]], np.stack(targets), names=tuple(names), classes=classes)


def _visual_prompt(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A point, box, scribble or mask a user might give for this object; never empty."""
    kind = rng.choice(("point", "box", "scribble", "mask"), p=(0.4, 0.25, 0.2, 0.15))
    canvas = np.zeros(mask.shape, np.uint8)
    ys, xs = np.nonzero(mask)
    if kind == "mask":
        return mask
    if kind == "box":
        canvas[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = 1
        return canvas.astype(bool)
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)[ys, xs]
    clicks = rng.choice(len(ys), size=1 + 3 * (kind == "scribble"), p=inner / inner.sum())
    points = np.stack([xs[clicks], ys[clicks]], 1).astype(np.int32)
    radius = int(rng.integers(2, 6))
    if kind == "point":
        cv2.circle(canvas, points[0].tolist(), radius, 1, -1)
    else:
        cv2.polylines(canvas, [points], False, 1, thickness=max(2, radius))
    return canvas.astype(bool)

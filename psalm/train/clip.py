"""What a training clip is, and what can truly be said about it: the nouns, the vocabulary, categories and sentences.

Shared by the procedural scenes (scenes.py) and by real video (real.py), which draw clips; nothing is drawn here.
Every sentence singles out exactly one object among all that move in the clip, the unlabelled ones included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

COLOURS = {
    "red": (205, 40, 35),
    "orange": (240, 135, 30),
    "yellow": (240, 220, 60),
    "green": (50, 150, 60),
    "cyan": (70, 200, 205),
    "blue": (45, 80, 200),
    "purple": (130, 60, 165),
    "pink": (240, 140, 185),
    "brown": (115, 75, 45),
    "white": (238, 238, 235),
    "gray": (130, 130, 132),
    "black": (28, 28, 32),
}
PATTERNS = ("plain", "shaded", "striped", "checkered", "dotted", "rough", "written")
CATEGORIES = (
    *("disc", "square", "triangle", "star", "ring", "bar", "cross", "crescent", "arrow", "heart"),
    *("figure", "animal", "vehicle", "tree", "flower", "bird", "snake"),
)
NOUNS = ("thing", "shape", "object")
SIDES = ("left", "right", "top", "bottom")
SUPERLATIVES = ("largest", "smallest")
VOCABULARY = (*COLOURS, *PATTERNS, *CATEGORIES, *NOUNS, *SIDES, *SUPERLATIVES, "the", "on", "at", "and", "a", "background")
MIN_SPOKEN_PIXELS = 30


@dataclass(frozen=True, slots=True)
class Thing:
    """One moving object. category: a member of CATEGORIES, or "" when it has no name; colour: of its main part; others: of the rest."""

    object_id: int
    category: str
    colour: str
    pattern: str
    others: tuple[str, ...] = ()

    @property
    def colours(self) -> set[str]:
        """Every colour word that could be said of it."""
        return {self.colour, *self.others}


@dataclass(frozen=True, slots=True)
class Clip:
    """A few frames with exact masks. Frame 0 is the anchor (long ago), the last two are neighbours in time.

    images: uint8 [T, S, S, 3] RGB, the padding exactly 128; labels: uint8 [T, S, S], 0 background, else the object_id that is visible;
    objects: the labelled things; hidden: things that move too but are not labelled; valid_hw: the picture's part of the square, from
    the top left.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    objects: tuple[Thing, ...]
    valid_hw: tuple[int, int]
    hidden: tuple[Thing, ...] = ()


def categories(clip: Clip, t: int) -> dict[str, np.ndarray]:
    """Every category present on frame `t`, with the union of its visible pixels, bool [S, S]. Things without a name are left out."""
    found: dict[str, np.ndarray] = {}
    for thing in clip.objects:
        mask = clip.labels[t] == thing.object_id
        if thing.category and mask.any():
            found[thing.category] = found[thing.category] | mask if thing.category in found else mask
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """A labelled thing as it is on one frame: visible pixels and centre (x, y), both relative to the picture."""

    thing: Thing
    area: float
    pixels: int
    x: float
    y: float


def _seen(clip: Clip, t: int) -> list[_Seen]:
    h, w = clip.valid_hw
    found = []
    for thing in clip.objects:
        ys, xs = np.nonzero(clip.labels[t] == thing.object_id)
        if len(ys):
            found.append(_Seen(thing, len(ys) / (h * w), len(ys), xs.mean() / w, ys.mean() / h))
    return found


def sentences(clip: Clip, t: int) -> list[tuple[str, int]]:
    """(sentence, object_id) pairs that are true of exactly one thing on frame `t`; only words of VOCABULARY.

    A colour is said only when no other thing shows it on any part. Sizes and sides are said only with a clear margin, and never when
    an unlabelled thing could meet the same words. Of a clip with a thing of unknown colour (real video) nothing is said.
    """
    if not all(thing.colour for thing in clip.objects):
        return []
    seen = _seen(clip, t)
    said: list[tuple[str, int]] = []
    for target in seen:
        if target.pixels >= MIN_SPOKEN_PIXELS:
            for words, noun in _descriptions(target.thing):
                phrase = " ".join((*words, noun))
                rivals = [s for s in seen if s is not target and _fits(s.thing, words, noun)]
                unlabelled = any(_fits(h, words, noun) for h in clip.hidden)
                if not rivals and not unlabelled and (words or noun not in NOUNS or len(seen) == 1):
                    said.append((f"the {phrase}", target.thing.object_id))
                if rivals and not unlabelled:
                    said += [(s, target.thing.object_id) for s in _compared(target, rivals, phrase)]
    return said


def _descriptions(thing: Thing) -> list[tuple[tuple[str, ...], str]]:
    nouns = (*((thing.category,) if thing.category else ()), *NOUNS)
    words: list[tuple[str, ...]] = [(), (thing.colour,), (thing.pattern,), (thing.colour, thing.pattern)]
    words += [(thing.colour, "and", other) for other in thing.others[:1] if other != thing.colour]
    return [(w, n) for n in nouns for w in words]


def _fits(thing: Thing, words: tuple[str, ...], noun: str) -> bool:
    """Whether the words could be said of a thing, read generously: any part's colour counts."""
    known = thing.colours | {thing.pattern, "and"}
    return all(w in known for w in words) and (noun in NOUNS or noun == thing.category)


def _compared(target: _Seen, rivals: list[_Seen], phrase: str) -> list[str]:
    said = []
    if all(target.area > 1.4 * r.area for r in rivals):
        said.append(f"the largest {phrase}")
    if all(r.area > 1.4 * target.area for r in rivals):
        said.append(f"the smallest {phrase}")
    sides = {
        "on the left": min(r.x for r in rivals) - target.x,
        "on the right": target.x - max(r.x for r in rivals),
        "at the top": min(r.y for r in rivals) - target.y,
        "at the bottom": target.y - max(r.y for r in rivals),
    }
    return said + [f"the {phrase} {side}" for side, margin in sides.items() if margin > 0.1]

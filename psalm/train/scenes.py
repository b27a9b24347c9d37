"""Procedural clips: jointed many-part things that move, deform and hide each other before a cluttered, moving background.

`draw_clip` is a pure function of its generator. Outlines live in shapes.py, textures in textures.py, words in clip.py; real video in
real.py. Time is counted in steps between neighbouring frames; a clip is (anchor, a gap of 1..12 steps, then consecutive frames).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .clip import CATEGORIES, COLOURS, PATTERNS, Clip, Thing
from .lens import Lens
from .paths import Path, picture_size, project, random_camera, random_path, shifted
from .shapes import BODIES, Part, blob, body, polygon
from .textures import bank, muted_stops, named_stops, patch, table

PADDING = 128
_BACKDROP_ODDS = [0.15, 0.15, 0.1, 0.05, 0.05, 0.4, 0.1]  # of PATTERNS, in their order
_SHIFT = 4  # fractional bits of cv2.fillPoly


@dataclass(frozen=True, slots=True)
class _Actor:
    """Something drawn: parts with their texture patches, a path, and the label it leaves (0: unlabelled)."""

    parts: list[Part]
    patches: list[np.ndarray]
    path: Path
    label: int
    wobble: tuple[float, float, float, float]
    thing: Thing | None = None

    def bent(self, points: np.ndarray, t: float) -> np.ndarray:
        """The outline after a smooth deformation of the local frame."""
        amount, rate, f, phase = self.wobble
        return points + amount * np.sin(f * points[:, ::-1] + phase + rate * t)


def draw_clip(rng: np.random.Generator, size: int = 256, frames: int = 3) -> Clip:
    """Draw one clip of `frames` pictures of size x size pixels. Frame 0 shows at least one labelled thing."""
    while True:
        clip = _draw(rng, size, frames)
        present = np.bincount(clip.labels[0].ravel(), minlength=2)[1:]
        if present.max() > 0.002 * clip.valid_hw[0] * clip.valid_hw[1]:
            return clip


def _draw(rng: np.random.Generator, size: int, frames: int) -> Clip:
    h, w = valid_hw = picture_size(rng, size)
    times = [0.0, *(float(rng.integers(1, 13)) + np.arange(frames - 1))]
    count, unseen = int(rng.integers(1, 6)), int(rng.choice([0, 0, 1, 2, 4]))
    looks = [_look(rng, i + 1) for i in range(count + unseen)]
    if rng.random() < 0.3:  # a crowd of look-alikes
        looks = [Thing(i + 1, looks[0].category, looks[0].colour, looks[0].pattern, looks[0].others) for i in range(len(looks))]
    actors = [_actor(rng, thing, valid_hw, times, thing.object_id <= count) for thing in looks]
    things = [actor.thing for actor in actors]
    order = rng.permutation(len(actors))
    cast = [actors[i] for i in order] + [_occluder(rng, valid_hw, times) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    still = rng.random() < 0.25
    camera = random_camera(rng, valid_hw, times, still)
    backdrop = _backdrop(rng, valid_hw, actors)
    images = np.full((frames, size, size, 3), PADDING, np.uint8)
    labels = np.zeros((frames, size, size), np.uint8)
    lens = Lens(rng, valid_hw)
    for i, t in enumerate(times):
        view = camera.matrix(t) @ shifted(-w / 2, -h / 2)
        picture, label = project(backdrop, view, valid_hw), np.zeros((h, w), np.uint8)
        for actor in cast:
            _draw_actor(picture, label, actor, view, t)
        images[i, :h, :w] = lens.expose(rng, picture, t)
        labels[i, :h, :w] = label
    return Clip(images, labels, tuple(things[:count]), valid_hw, tuple(things[count:]))


def _look(rng: np.random.Generator, object_id: int) -> Thing:
    category = "" if rng.random() < 0.4 else str(rng.choice(CATEGORIES))
    colours = [str(c) for c in rng.choice(list(COLOURS), 3, replace=False)]
    return Thing(object_id, category, colours[0], str(rng.choice(PATTERNS)), tuple(colours[1 : rng.integers(1, 4)]))


def _actor(rng: np.random.Generator, thing: Thing, size_hw: tuple[int, int], times: list[float], labelled: bool) -> _Actor:
    parts = body(rng, thing.category)
    short = min(size_hw)
    radius = short * float(np.exp(rng.uniform(np.log(0.07), np.log(0.6))))
    path = random_path(rng, size_hw, times, radius)
    if thing.category in BODIES and thing.category:
        path = replace(path, angle=rng.normal(0, 0.25))
    palette = (*thing.others, thing.colour)
    patches, used = [], set()
    for i, part in enumerate(parts):
        main = i == 0 or (thing.category == "tree" and i < len(parts) - 1)
        colour = thing.colour if main else palette[(i - 1) % len(palette)]
        pattern = thing.pattern if main or rng.random() < 0.4 else str(rng.choice(PATTERNS))
        used.add(colour)
        extent = float(np.ptp(part.outline, 0).max())
        patches.append(patch(rng, pattern, named_stops(rng, colour, pattern), int(np.clip(1.1 * extent * radius, 8, 160))))
    wobble = (rng.choice([0, 0.06, 0.15]), rng.uniform(0.1, 0.8), rng.uniform(1.5, 4), rng.uniform(0, 6))
    shown = replace(thing, others=tuple(c for c in thing.others if c in used))
    return _Actor(parts, patches, path, thing.object_id if labelled else 0, wobble, shown)


def _occluder(rng: np.random.Generator, size_hw: tuple[int, int], times: list[float]) -> _Actor:
    """An unlabelled pole, wire or lump in front of everything, still in the world."""
    h, w = size_hw
    path = random_path(rng, size_hw, times, min(h, w) * rng.uniform(0.2, 0.8))
    fixed = replace(path, velocity=np.zeros(2), turn=0.0, growth=0.0, shear=(0.0, 0.0))
    width = rng.uniform(0.01, 0.12)
    pole = np.array([(-4, -width), (4, -width), (4, width), (-4, width)], np.float32)
    outline = pole if rng.random() < 0.6 else blob(rng) * np.float32(0.5)
    pattern = str(rng.choice(PATTERNS))
    return _Actor([Part(outline)], [patch(rng, pattern, muted_stops(rng, 3), 80)], fixed, 0, (0, 0, 0, 0))


def _backdrop(rng: np.random.Generator, size_hw: tuple[int, int], actors: list[_Actor]) -> np.ndarray:
    """The world behind the things, uint8 [2H, 2W, 3]: two mixed textures and still clutter, some of it textured like the things."""
    h, w = 2 * size_hw[0], 2 * size_hw[1]
    layers = []
    for _ in range(2):
        tiles = bank()[str(rng.choice(PATTERNS, p=_BACKDROP_ODDS))]
        zoom = rng.uniform(0.8, 3)
        crop = tiles[rng.integers(len(tiles))][: int(320 / zoom), : int(320 / zoom)]
        layers.append(cv2.applyColorMap(cv2.resize(crop, (w, h)), table(muted_stops(rng, 4))))
    share = cv2.resize(rng.random((3, 3), dtype=np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    share = (share * 3 - 1).clip(0, 1)
    world = cv2.blendLinear(layers[0], layers[1], share, 1 - share)
    for _ in range(int(rng.choice([0, 6, 15, 35]))):
        outline = blob(rng) if rng.random() < 0.6 else polygon(rng)
        if rng.random() < 0.2:
            outline = outline * np.array([1, 0.05], np.float32)
        angle, radius = rng.uniform(0, 6.3), min(h, w) * float(np.exp(rng.uniform(np.log(0.015), np.log(0.2))))
        turn = radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = outline @ turn.T + rng.uniform(0, 1, 2) * (w, h)
        if rng.random() < 0.3:
            donor = actors[rng.integers(len(actors))].patches
            fill = donor[rng.integers(len(donor))]
        else:
            fill = patch(rng, str(rng.choice(PATTERNS)), muted_stops(rng, 2), int(np.clip(2 * radius, 8, 120)))
        _stamp(world, None, points, fill, _fit(fill, points), 0)
    if rng.random() < 0.4:
        world = cv2.GaussianBlur(world, (0, 0), rng.uniform(0.8, 3))
    return world


def _fit(fill: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Patch pixels to picture: the patch laid squarely over the points, float [3, 3]."""
    low, high = points.min(0), points.max(0)
    zoom = (high - low).max() / fill.shape[0]
    return np.array([[zoom, 0, low[0]], [0, zoom, low[1]], [0, 0, 1]])


def _draw_actor(picture: np.ndarray, label: np.ndarray, actor: _Actor, view: np.ndarray, t: float) -> None:
    world = view @ actor.path.matrix(t)
    turned: list[np.ndarray] = []
    for part, fill in zip(actor.parts, actor.patches, strict=True):
        c, n = np.cos(part.angle(t)), np.sin(part.angle(t))
        local = shifted(*part.joint) @ np.array([[c, -n, 0], [n, c, 0], [0, 0, 1]]) @ shifted(-part.joint[0], -part.joint[1])
        turned.append(local if part.parent < 0 else turned[part.parent] @ local)
        moved = actor.bent(_apply(turned[-1], part.outline), t)
        points = _apply(world, moved)
        _stamp(picture, label, points, fill, world @ turned[-1] @ _fit(fill, part.outline), actor.label)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _stamp(picture: np.ndarray, label: np.ndarray | None, points: np.ndarray, fill: np.ndarray, matrix: np.ndarray, value: int) -> None:
    """Fill a polygon with a texture patch, edges anti-aliased, and write its label where it covers at least half of a pixel."""
    h, w = picture.shape[:2]
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 2, (w, h))
    if x1 <= x0 or y1 <= y0:
        return
    cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
    inside = ((points - (x0, y0)) * (1 << _SHIFT)).round().astype(np.int32)
    cv2.fillPoly(cover, [inside], 255, cv2.LINE_AA, _SHIFT)
    local = shifted(-x0, -y0) @ matrix
    texture = cv2.warpAffine(fill, local[:2], (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    share = cover * np.float32(1 / 255)
    roi = picture[y0:y1, x0:x1]
    roi[:] = cv2.blendLinear(texture, np.ascontiguousarray(roi), share, 1 - share)
    if label is not None:
        label[y0:y1, x0:x1][cover > 127] = value

"""Outlines and jointed bodies of the procedural scenes: closed polygons in a local frame of about unit radius.

A body is a list of parts, the main one first; each turns about its joint, after its parent. No pixels here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

TAU = 2 * np.pi


@dataclass(frozen=True, slots=True)
class Part:
    """One rigid piece. outline: float32 [N, 2]; at time t it is turned by `spin * t + swing * sin(rate * t + phase)` about `joint`."""

    outline: np.ndarray
    joint: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    rate: float = 0.0
    phase: float = 0.0
    spin: float = 0.0
    parent: int = -1

    def angle(self, t: float) -> float:
        """Turn about the joint at time t, in radians."""
        return self.spin * t + self.swing * np.sin(self.rate * t + self.phase)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], n: int = 28) -> np.ndarray:
    """Outline of an axis-aligned ellipse, float32 [n, 2]."""
    a = np.linspace(0, TAU, n, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(a), centre[1] + radii[1] * np.sin(a)], 1).astype(np.float32)


def capsule(start: tuple[float, float], end: tuple[float, float], radius: float, taper: float = 1.0) -> np.ndarray:
    """Outline of a limb: a thick segment with round ends, the far end `taper` times as thick."""
    s, e = np.array(start), np.array(end)
    direction = np.arctan2(*(e - s)[::-1])
    a = np.linspace(-np.pi / 2, np.pi / 2, 8) + direction
    arc = np.stack([np.cos(a), np.sin(a)], 1)
    return np.concatenate([e + radius * taper * arc, s - radius * arc]).astype(np.float32)


def blob(rng: np.random.Generator, roughness: float = 0.5, n: int = 44) -> np.ndarray:
    """A smooth random outline (Fourier series of the radius), stretched and of radius at most 1."""
    a = np.linspace(0, TAU, n, endpoint=False)
    k = np.arange(1, 8)[:, None]
    waves = rng.normal(0, roughness, (7, 1)) / k**0.9 * np.cos(k * a + rng.uniform(0, TAU, (7, 1)))
    radius = np.maximum(1 + waves.sum(0), 0.12)
    points = np.stack([np.cos(a), np.sin(a) * rng.uniform(0.35, 1)], 1) * (radius / radius.max())[:, None]
    return points.astype(np.float32)


def polygon(rng: np.random.Generator) -> np.ndarray:
    """A random star-shaped polygon of 3 to 8 corners."""
    n = int(rng.integers(3, 9))
    a = np.sort((np.arange(n) + rng.uniform(0, 0.8, n)) * TAU / n)
    r = rng.uniform(0.4, 1, n)
    return np.stack([r * np.cos(a), r * np.sin(a)], 1).astype(np.float32)


def _polar(radius: np.ndarray) -> np.ndarray:
    a = np.arange(len(radius)) * TAU / len(radius) - np.pi / 2
    return np.stack([radius * np.cos(a), radius * np.sin(a)], 1).astype(np.float32)


def _star(rng: np.random.Generator) -> np.ndarray:
    return _polar(np.tile([1.0, rng.uniform(0.35, 0.55)], int(rng.integers(4, 8))))


def _ring(rng: np.random.Generator) -> np.ndarray:
    hole = rng.uniform(0.45, 0.7)
    circle = np.concatenate([ellipse((0, 0), (1, 1)), ellipse((0, 0), (1, 1))[:1]])
    return np.concatenate([circle, hole * circle[::-1]])


def _bar(rng: np.random.Generator) -> np.ndarray:
    w = rng.uniform(0.07, 0.25)
    return np.array([(-1, -w), (1, -w), (1, w), (-1, w)], np.float32)


def _cross(rng: np.random.Generator) -> np.ndarray:
    w = rng.uniform(0.2, 0.4)
    corner = [(w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1)]
    return np.array(corner + [(-x, -y) for x, y in corner], np.float32)


def _crescent(rng: np.random.Generator) -> np.ndarray:
    a = np.linspace(-2.2, 2.2, 24)
    outer = np.stack([np.cos(a), np.sin(a)], 1)
    bite = np.linspace(1.0, rng.uniform(0.1, 0.35), 12)
    inner = outer * np.concatenate([bite, bite[::-1]])[:, None]
    return np.concatenate([outer, inner[::-1]]).astype(np.float32)


def _arrow(rng: np.random.Generator) -> np.ndarray:
    w, h = rng.uniform(0.12, 0.3), rng.uniform(0.0, 0.4)
    half = [(-1, -w), (h, -w), (h, -0.6), (1, 0)]
    return np.array(half + [(x, -y) for x, y in half[2::-1]], np.float32)


def _heart(rng: np.random.Generator) -> np.ndarray:
    a = np.linspace(0, TAU, 40, endpoint=False)
    y = -(13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)) / 17
    return np.stack([16 * np.sin(a) ** 3 / 17, y], 1).astype(np.float32)


def _square(rng: np.random.Generator) -> np.ndarray:
    h = rng.uniform(0.5, 0.71)
    return np.array([(-0.71, -h), (0.71, -h), (0.71, h), (-0.71, h)], np.float32)


OUTLINES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "disc": lambda rng: ellipse((0, 0), (1, rng.uniform(0.75, 1))),
    "square": _square,
    "triangle": lambda rng: _polar(rng.uniform(0.7, 1, 3)),
    "star": _star,
    "ring": _ring,
    "bar": _bar,
    "cross": _cross,
    "crescent": _crescent,
    "arrow": _arrow,
    "heart": _heart,
}


def _limb(rng: np.random.Generator, root: tuple[float, float], tip: tuple[float, float], radius: float, parent: int = 0) -> Part:
    outline = capsule(root, tip, radius * rng.uniform(0.6, 1.3), rng.uniform(0.5, 1.1))
    return Part(outline, root, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0, TAU), 0.0, parent)


def figure(rng: np.random.Generator) -> list[Part]:
    """A standing person: torso, legs, arms, head."""
    w = rng.uniform(0.16, 0.26)
    torso = Part(capsule((0, -0.35), (0, 0.15), w, rng.uniform(0.7, 1.1)))
    legs = [_limb(rng, (side * w * 0.5, 0.2), (side * rng.uniform(0.05, 0.35), 1.0), 0.11) for side in (-1, 1)]
    arms = [_limb(rng, (side * w * 0.8, -0.4), (side * rng.uniform(0.25, 0.7), rng.uniform(-0.5, 0.3)), 0.08) for side in (-1, 1)]
    head = Part(ellipse((0, -0.76), (0.15, 0.2)), (0, -0.55), 0.25, 0.5, rng.uniform(0, TAU), 0.0, 0)
    return [torso, *legs, head, *arms]


def animal(rng: np.random.Generator) -> list[Part]:
    """A four-legged animal seen from the side: body, legs, tail, head."""
    body = Part(ellipse((0, 0), (0.6, rng.uniform(0.22, 0.36))))
    legs = [_limb(rng, (x, 0.15), (x + rng.uniform(-0.1, 0.1), 0.75), 0.08) for x in (-0.45, -0.3, 0.3, 0.45)]
    tail = _limb(rng, (-0.55, -0.05), (-0.95, rng.uniform(-0.5, 0.3)), 0.05)
    head = Part(ellipse((0.72, -0.28), (0.25, 0.18)), (0.5, -0.1), 0.4, 0.4, rng.uniform(0, TAU), 0.0, 0)
    return [body, *legs[: int(rng.integers(2, 5))], tail, head]


def vehicle(rng: np.random.Generator) -> list[Part]:
    """A car or cart seen from the side: hull, cabin, two turning wheels."""
    h = rng.uniform(0.15, 0.35)
    hull = Part(np.array([(-0.95, -h), (rng.uniform(0.5, 0.95), -h), (0.95, 0.25), (-0.95, 0.25)], np.float32))
    left, right = np.sort(rng.uniform(-0.8, 0.7, 2)) + np.array([0, 0.15])
    cabin = Part(np.array([(left, -h), (left + 0.1, -h - 0.35), (right, -h - 0.35), (right + 0.1, -h)], np.float32), parent=0)
    r, spin = rng.uniform(0.16, 0.3), rng.uniform(-0.8, 0.8)
    wheels = [Part(ellipse((x, 0.3), (r, r)), (x, 0.3), spin=spin, parent=0) for x in (-0.55, 0.55)]
    return [hull, cabin, *wheels]


def tree(rng: np.random.Generator) -> list[Part]:
    """A swaying crown of one to three lumps on a trunk."""
    trunk = Part(capsule((0, 0.95), (0, 0), rng.uniform(0.06, 0.14), 0.7))
    lumps = [blob(rng, 0.25) * rng.uniform(0.4, 0.65) + rng.uniform(-0.3, 0.3, 2) + (0, -0.4) for _ in range(rng.integers(1, 4))]
    return [Part(lump.astype(np.float32), (0, 0.5), 0.15, 0.4, rng.uniform(0, TAU), 0.0, -1) for lump in lumps] + [trunk]


def flower(rng: np.random.Generator) -> list[Part]:
    """Petals about a centre, on a thin stalk."""
    n, spin = int(rng.integers(4, 9)), rng.uniform(-0.1, 0.1)
    a = np.linspace(0, TAU, 64, endpoint=False)
    petals = _polar(0.45 + 0.2 * np.cos(n * a)) + np.array([0, -0.3], np.float32)
    return [Part(petals, (0, -0.3), spin=spin), Part(ellipse((0, -0.3), (0.2, 0.2))), Part(capsule((0, 0.2), (0.1, 1), 0.05))]


def bird(rng: np.random.Generator) -> list[Part]:
    """A body with two flapping wings and a head."""
    body = Part(ellipse((0, 0), (0.5, rng.uniform(0.15, 0.25))))
    rate, phase = rng.uniform(0.3, 1.5), rng.uniform(0, TAU)
    wing = np.array([(-0.25, 0), (0.2, 0), (0.1, -0.6), (-0.2, -0.95)], np.float32)
    wings = [Part(wing * (1, s), (0, 0), 0.7 * s, rate, phase, 0.0, 0) for s in (-1, rng.uniform(0.6, 1))]
    return [body, *(replace(w, outline=w.outline.astype(np.float32)) for w in wings), Part(ellipse((0.55, -0.1), (0.16, 0.13)), parent=0)]


def snake(rng: np.random.Generator) -> list[Part]:
    """A chain of three to five links, each hanging on the one before."""
    n, r = int(rng.integers(3, 6)), rng.uniform(0.07, 0.2)
    step = 1.9 / n
    at = [(-0.95 + i * step, 0.0) for i in range(n + 1)]
    rate, bend = rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9)
    return [Part(capsule(at[i], at[i + 1], r, 0.9), at[i], bend, rate, i * 1.1, 0.0, i - 1) for i in range(n)]


def creature(rng: np.random.Generator) -> list[Part]:
    """A free shape without a name: a blob or polygon with up to four contrasting lumps or limbs that hang on it."""
    outline = blob(rng, rng.uniform(0.1, 0.7)) if rng.random() < 0.7 else polygon(rng)
    parts = [Part((outline * rng.uniform(0.55, 0.85)).astype(np.float32))]
    for _ in range(rng.integers(0, 5)):
        root = parts[0].outline[rng.integers(len(parts[0].outline))] * rng.uniform(0.2, 0.9)
        joint = (float(root[0]), float(root[1]))
        if rng.random() < 0.5:
            tip = root + rng.normal(0, 0.45, 2)
            parts.append(_limb(rng, joint, (float(tip[0]), float(tip[1])), rng.uniform(0.03, 0.2)))
        else:
            lump = blob(rng, 0.4) if rng.random() < 0.7 else polygon(rng)
            moved = (lump * rng.uniform(0.15, 0.5) + root).astype(np.float32)
            parts.append(Part(moved, joint, rng.uniform(0, 0.6), rng.uniform(0.1, 0.8), rng.uniform(0, TAU), 0.0, 0))
    return parts


BODIES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "figure": figure,
    "animal": animal,
    "vehicle": vehicle,
    "tree": tree,
    "flower": flower,
    "bird": bird,
    "snake": snake,
    "": creature,
}


def body(rng: np.random.Generator, category: str) -> list[Part]:
    """The parts of a random body of a category; a plain outline gets a contrasting patch inside half of the time."""
    if category in BODIES:
        return BODIES[category](rng)
    parts = [Part(OUTLINES[category](rng))]
    if category in ("disc", "square", "heart", "triangle") and rng.random() < 0.5:
        for _ in range(rng.integers(1, 3)):
            parts.append(Part((blob(rng, 0.3) * rng.uniform(0.15, 0.35) + rng.uniform(-0.25, 0.25, 2)).astype(np.float32), parent=0))
    return parts

"""How things and the camera move in a made-up clip, and the shape of its picture: smooth paths as functions of time, in steps.

No drawing here beyond looking at a backdrop through the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Path:
    """Smooth motion: saturates `reach` pixels from `centre`, so that even a fast thing stays near the picture."""

    centre: np.ndarray
    velocity: np.ndarray
    reach: float
    angle: float
    turn: float
    scale: np.ndarray
    growth: float
    shear: tuple[float, float]
    start: float

    def matrix(self, t: float) -> np.ndarray:
        """Local to world at time t, float [3, 3]."""
        u = t - self.start
        speed = max(float(np.hypot(*self.velocity)), 1e-6)
        x, y = self.centre + self.velocity * (self.reach / speed * np.tanh(speed * u / self.reach))
        a = self.angle + 1.5 * np.tanh(self.turn * u / 1.5)
        grow = np.exp(0.5 * np.tanh(self.growth * u / 0.5))
        amount, rate = self.shear
        s = amount * np.sin(rate * u)
        c, n = np.cos(a), np.sin(a)
        linear = np.array([[c, -n], [n, c]]) @ np.array([[1 + s, s], [0, 1 - s]]) @ np.diag(self.scale * grow)
        return np.array([[*linear[0], x], [*linear[1], y], [0, 0, 1]])


def picture_size(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """(H, W) of the picture in the square: 16:9 half of the time, else square, or narrower either way."""
    kind = rng.random()
    if kind < 0.5:
        return round(size * 9 / 16), size
    if kind < 0.7:
        return size, size
    short = round(size * rng.uniform(0.5, 0.95))
    return (short, size) if kind < 0.85 else (size, short)


def random_path(rng: np.random.Generator, size_hw: tuple[int, int], times: list[float], radius: float) -> Path:
    """A thing's way through the picture (H, W): slow to 15 % of it a step; some turn, grow, shear."""
    h, w = size_hw
    margin = -0.1 if rng.random() < 0.15 else 0.12
    centre = np.array([rng.uniform(margin, 1 - margin) * w, rng.uniform(margin, 1 - margin) * h])
    fastest = 0.15 if rng.random() < 0.4 else 0.02
    speed = max(h, w) * float(np.exp(rng.uniform(np.log(0.001), np.log(fastest))))
    heading = rng.uniform(0, 2 * np.pi)
    start = rng.choice([times[0], times[-1], rng.uniform(times[0], times[-1])], p=[0.35, 0.35, 0.3])
    return Path(
        centre=centre,
        velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
        reach=rng.uniform(0.1, 0.5) * max(h, w),
        angle=rng.uniform(0, 2 * np.pi),
        turn=rng.normal(0, 0.08) if rng.random() < 0.7 else 0.0,
        scale=radius * np.array([rng.choice([-1, 1]) * rng.uniform(0.75, 1.2), 1.0]),
        growth=rng.normal(0, 0.04),
        shear=(abs(rng.normal(0, 0.12)), rng.uniform(0.05, 0.6)),
        start=float(start),
    )


def random_camera(rng: np.random.Generator, size_hw: tuple[int, int], times: list[float], still: bool) -> Path:
    """A camera that pans, turns and zooms a little."""
    h, w = size_hw
    speed = 0.0 if still else max(h, w) * float(np.exp(rng.uniform(np.log(0.0005), np.log(0.05))))
    heading = rng.uniform(0, 2 * np.pi)
    return Path(
        centre=np.array([w / 2, h / 2]),
        velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
        reach=0.22 * max(h, w),
        angle=0.0,
        turn=0.0 if still else rng.normal(0, 0.008),
        scale=np.ones(2),
        growth=0.0 if still else rng.normal(0, 0.01),
        shear=(0.0, 0.0),
        start=float(rng.uniform(times[0], times[-1])),
    )


def shifted(x: float, y: float) -> np.ndarray:
    """A translation, float [3, 3]."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def project(backdrop: np.ndarray, view: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The backdrop, whose middle is the world's middle, seen through the camera; mirrored where it ends. uint8 [H, W, 3]."""
    (h, w), (tall, wide) = size_hw, backdrop.shape[:2]
    matrix = view @ shifted((w - wide) / 2, (h - tall) / 2)
    return cv2.warpAffine(backdrop, matrix[:2], (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

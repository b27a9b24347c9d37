"""Textures of the procedural scenes: a bank of grey patterns, built once, and the colouring that makes a patch of one.

Drawing a patch is a crop, a resize and a table look-up (about 0.1 ms), which is what keeps a scene cheap.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from .clip import COLOURS, PATTERNS

TILE = 320
PER_PATTERN = 12
_LETTERS = "abcdefghiklmnoprstuvwxyzABDEGHKMNRSTWXZ0123456789#%&"


def smooth_noise(rng: np.random.Generator, size_hw: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise, float32 [H, W] in 0..1, about `cells` bumps across the longer side."""
    h, w = size_hw
    longest = max(h, w)
    small = rng.random((max(2, cells * h // longest + 1), max(2, cells * w // longest + 1)), dtype=np.float32)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR if cells < 4 else cv2.INTER_CUBIC).clip(0, 1)


def fractal(rng: np.random.Generator, size_hw: tuple[int, int], roughness: float) -> np.ndarray:
    """Noise of several scales added up, float32 [H, W] in 0..1; roughness 0..1 is the gain from one scale to the next finer one."""
    total = sum(roughness**i * (smooth_noise(rng, size_hw, 3 * 2**i) - 0.5) for i in range(6))
    low, high = np.percentile(total, (1, 99))
    return ((total - low) / (high - low + 1e-6)).clip(0, 1)


def _pattern(rng: np.random.Generator, name: str) -> np.ndarray:
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), float(np.exp(rng.uniform(np.log(5), np.log(36))))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if name == "plain":
        return 0.12 * fractal(rng, (TILE, TILE), rng.uniform(0.3, 0.9))
    if name == "shaded":
        return 0.5 + 0.5 * np.sin(u / rng.uniform(30, 80) + rng.uniform(0, 6))
    if name == "striped":
        bend = rng.choice([0, 0, 12]) * smooth_noise(rng, (TILE, TILE), 5)
        return (np.sin((u + bend) * 2 * np.pi / period) * rng.choice([1.0, 6.0]) * 0.5 + 0.5).clip(0, 1)
    if name == "checkered":
        return ((u // (period / 2) + v // (period / 2)) % 2).astype(np.float32)
    if name == "dotted":
        wave = np.cos(u * 2 * np.pi / period) + np.cos(v * 2 * np.pi / period)
        return ((wave - rng.uniform(0, 0.9)) * 4).clip(0, 1)
    if name == "rough":
        return fractal(rng, (TILE, TILE), rng.uniform(0.5, 1.1))
    tile = np.zeros((TILE, TILE), np.uint8)
    scale = rng.uniform(0.25, 0.8)
    for row in np.arange(10, TILE + 30, 34 * scale):
        text = "".join(rng.choice(list(_LETTERS + "   "), 40))
        cv2.putText(
            tile, text, (int(rng.integers(-40, 5)), int(row)), int(rng.integers(0, 5)), scale, 255, int(rng.integers(1, 3)), cv2.LINE_AA
        )
    return tile / np.float32(255)


@cache
def bank() -> dict[str, list[np.ndarray]]:
    """Grey tiles by pattern name, uint8 [TILE, TILE]; always the same, about 1 s to build."""
    rng = np.random.default_rng(20)
    return {name: [(255 * _pattern(rng, name)).astype(np.uint8) for _ in range(PER_PATTERN)] for name in PATTERNS}


@cache
def grain() -> np.ndarray:
    """Unit Gaussian sensor noise, float32 [640, 640, 3], to be cropped at random."""
    noise = np.random.default_rng(21).normal(0, 1, (640, 640, 3)).astype(np.float32)
    return noise


def shade(rng: np.random.Generator, colour: str) -> np.ndarray:
    """A random RGB value, float [3], that still goes by the colour's name."""
    spread = 8 if colour in ("white", "black", "gray") else 22
    value = np.array(COLOURS[colour], float) + rng.normal(0, spread / 2, 3)
    return (value * rng.uniform(0.8, 1.1)).clip(0, 255)


def table(stops: np.ndarray) -> np.ndarray:
    """A colour look-up table through the given RGB stops, uint8 [256, 1, 3]."""
    at = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), at, stops[:, c]) for c in range(3)], 1).astype(np.uint8)[:, None]


def patch(rng: np.random.Generator, pattern: str, stops: np.ndarray, side: int) -> np.ndarray:
    """A square of texture, uint8 [side, side, 3]: a random crop of the pattern, coloured through the stops, lit from one side."""
    tiles = bank()[pattern]
    tile = tiles[rng.integers(len(tiles))]
    crop = int(min(TILE, max(4, side * rng.uniform(0.6, 1.6))))
    y, x = rng.integers(0, TILE - crop + 1, 2)
    grey = cv2.resize(tile[y : y + crop, x : x + crop], (side, side), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap(grey, table(stops))
    if rng.random() < 0.6:
        corner = rng.uniform(0.6, 1.25, (2, 2)).astype(np.float32)
        light = cv2.resize(corner, (side, side), interpolation=cv2.INTER_LINEAR)
        coloured = cv2.multiply(coloured, cv2.merge([light] * 3), dtype=cv2.CV_8U)
    return coloured


def muted_stops(rng: np.random.Generator, n: int) -> np.ndarray:
    """Colour stops, [n, 3], as real scenes have them: any brightness, mostly near grey, of one mood."""
    mood = rng.normal(0, rng.choice([5, 15, 40]), 3)
    brightness = rng.uniform(15, 240) + rng.normal(0, rng.choice([12, 30, 70]), (n, 1))
    return (brightness + mood + rng.normal(0, rng.choice([4, 12, 30]), (n, 3))).clip(0, 255)


def named_stops(rng: np.random.Generator, colour: str, pattern: str) -> np.ndarray:
    """Colour stops, [2, 3], for a patch that a person would call by the colour and the pattern."""
    first = shade(rng, colour)
    if pattern in ("plain", "shaded", "rough") or rng.random() < 0.3:
        dark = first.mean() > 90
        second = first * rng.uniform(0.35, 0.6) if dark else first + rng.uniform(50, 90)
    else:
        second = shade(rng, rng.choice(["white", "black", "gray"])) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
        if np.abs(second - first).max() < 70:
            second = 255 - second
    return np.stack([first, second]).clip(0, 255)

"""Masks as optical flow leaves them after carrying them for a while: the training input of a model that corrects its mask prior.

`corrupt` damages a true mask with a severity drawn from none to heavy. No flow is computed here.
"""

from __future__ import annotations

import cv2
import numpy as np

from .shapes import blob
from .textures import smooth_noise

UNTOUCHED, USELESS = 0.08, 0.04


def corrupt(mask: np.ndarray, rng: np.random.Generator, image: np.ndarray | None = None) -> np.ndarray:
    """A damaged copy of a mask, bool [H, W]: bent borders, a shift, lost parts, leaked lumps, holes, a trailing edge.

    mask: bool [H, W]; image: uint8 [H, W, 3] of the same frame; when given, some leaks follow its colours. One time in 12 the mask comes
    back as it is, one in 25 as something empty or quite wrong. An empty mask comes back empty.
    """
    if not mask.any():
        return mask.copy()
    fate = rng.random()
    if fate < UNTOUCHED:
        return mask.copy()
    if fate < UNTOUCHED + USELESS:
        return _wrong(mask, rng)
    severity = float(rng.beta(1.1, 2.0))
    size = float(np.sqrt(mask.sum()))
    value = _bent(mask, rng, severity, size)
    if rng.random() < 0.3:  # an edge dragged along: the mask together with where it has been
        dx, dy = rng.normal(0, 0.25 * severity * size, 2)
        value = np.maximum(value, _moved(value, dx, dy)) if rng.random() < 0.6 else np.minimum(value, _moved(value, dx, dy))
    if rng.random() < 0.5:
        value = _resized(value, rng, severity, size)
    out = value > 0.5
    if min(mask.shape) > 5 and rng.random() < 0.7:  # flow rarely shreds a mask
        out = cv2.medianBlur(out.astype(np.uint8), 5).astype(bool)
    for chance, change in ((0.45, _lose_part), (0.45, _leak), (0.15, _hole)):
        if rng.random() < chance * (0.4 + severity):
            out = change(out, rng, severity)
    if image is not None and rng.random() < 0.35 * (0.4 + severity):
        out = _leak_by_colour(out, rng, image, size * severity)
    return out


def _bent(mask: np.ndarray, rng: np.random.Generator, severity: float, size: float) -> np.ndarray:
    """The mask through a shift and an elastic field of random coarseness, float32 [H, W] in 0..1."""
    h, w = mask.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    shift = rng.normal(0, 0.12 * severity * size, 2)
    cells = int(np.clip(max(h, w) / size * rng.uniform(1, 6), 3, 40))
    reach = rng.uniform(0.1, 0.5) * severity * size + 0.6
    field = [reach * 2 * (smooth_noise(rng, (h, w), cells) - 0.5) + s for s in shift]
    value = mask.astype(np.float32)
    return cv2.remap(value, x + field[0].astype(np.float32), y + field[1].astype(np.float32), cv2.INTER_LINEAR)


def _moved(value: np.ndarray, dx: float, dy: float) -> np.ndarray:
    h, w = value.shape
    return cv2.warpAffine(value, np.array([[1, 0, dx], [0, 1, dy]], np.float32), (w, h))


def _resized(value: np.ndarray, rng: np.random.Generator, severity: float, size: float) -> np.ndarray:
    """Grown or shrunk by up to a few pixels, more for large masks."""
    radius = 1 + int(rng.uniform(0, 0.12) * severity * size)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(value, kernel) if rng.random() < 0.5 else cv2.erode(value, kernel)


def _lump(shape: tuple[int, int], rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    a = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    cv2.fillPoly(canvas, [(blob(rng, 0.4) @ turn * radius + centre).round().astype(np.int32)], 1)
    return canvas.astype(bool)


def _point(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    i = rng.integers(len(ys))
    return np.array([xs[i], ys[i]], float)


def _border(mask: np.ndarray) -> np.ndarray:
    return mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)


def _lose_part(mask: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Without a lump at the border, or without everything beyond a line; at least a tenth is left."""
    if not mask.any():
        return mask
    size = np.sqrt(mask.sum())
    if rng.random() < 0.6:
        left = mask & ~_lump(mask.shape, rng, _point(mask, rng), size * rng.uniform(0.15, 0.3 + 0.5 * severity))
    else:
        ys, xs = np.nonzero(mask)
        a = rng.uniform(0, 2 * np.pi)
        along = xs * np.cos(a) + ys * np.sin(a)
        keep = along < np.quantile(along, 1 - rng.uniform(0.05, 0.15 + 0.6 * severity))
        left = np.zeros_like(mask)
        left[ys[keep], xs[keep]] = True
    return left if left.sum() > 0.1 * mask.sum() else mask


def _leak(mask: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """With one to three lumps attached at the border."""
    if not mask.any():
        return mask
    size = np.sqrt(mask.sum())
    border = _border(mask)
    out = mask.copy()
    for _ in range(rng.integers(1, 4)):
        out |= _lump(mask.shape, rng, _point(border, rng), size * rng.uniform(0.1, 0.2 + 0.4 * severity))
    return out


def _hole(mask: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    if not mask.any():
        return mask
    return mask & ~_lump(mask.shape, rng, _point(mask, rng), np.sqrt(mask.sum()) * rng.uniform(0.05, 0.1 + 0.25 * severity))


def _leak_by_colour(mask: np.ndarray, rng: np.random.Generator, image: np.ndarray, reach: float) -> np.ndarray:
    """Grown over neighbouring pixels that look like one point just outside of it."""
    if not mask.any():
        return mask
    radius = 2 + int(reach * rng.uniform(0.1, 0.6))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    near = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool) & ~mask
    if not near.any():
        return mask
    x, y = _point(near, rng).astype(int)
    alike = np.abs(image.astype(np.int16) - image[y, x]).max(-1) < rng.uniform(12, 40)
    return mask | (near & alike)


def _wrong(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Empty, elsewhere, or a random lump."""
    h, w = mask.shape
    kind = rng.integers(3)
    if kind == 0:
        return np.zeros_like(mask)
    if kind == 1:
        dx, dy = rng.uniform(-0.5, 0.5, 2) * (w, h)
        return _moved(mask.astype(np.float32), dx, dy) > 0.5
    return _lump((h, w), rng, rng.uniform(0, 1, 2) * (w, h), rng.uniform(0.05, 0.3) * min(h, w))

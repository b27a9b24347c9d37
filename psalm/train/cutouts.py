"""Clips made of real textures with exact masks: regions cut out of real frames, moved over other real frames.

The regions and frames come from real.py, the paths from paths.py; nothing is mined here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .clip import Clip
from .lens import Lens
from .paths import Path, picture_size, project, random_camera, random_path, shifted
from .real import PADDING, Real, read, things_of

LARGEST = 160


@dataclass(frozen=True, slots=True)
class _CutOut:
    """A piece of a real frame: RGB uint8 [h, w, 3], cover float32 [h, w] in 0..1; bend: amount (of its size), waves, rate, phase."""

    texture: np.ndarray
    cover: np.ndarray
    path: Path
    label: int
    bend: tuple[float, float, float, float]


def paste(rng: np.random.Generator, real: Real, size: int = 256, frames: int = 3) -> Clip:
    """A clip of real cut-outs over a real frame; frame 0 shows at least one labelled. Unlabelled cut-outs are among them half the time."""
    while True:
        clip = _paste(rng, real, size, frames)
        if np.bincount(clip.labels[0].ravel(), minlength=2)[1:].max() > 0.002 * clip.valid_hw[0] * clip.valid_hw[1]:
            return clip


def _paste(rng: np.random.Generator, real: Real, size: int, frames: int) -> Clip:
    h, w = valid_hw = picture_size(rng, size)
    times = [0.0, *(float(rng.integers(1, 13)) + np.arange(frames - 1))]
    count, unseen = int(rng.integers(1, 5)), int(rng.choice([0, 0, 1, 2]))
    cast = [_cut_out(rng, real, valid_hw, times, i + 1 if i < count else 0) for i in range(count + unseen)]
    cast = [cast[i] for i in rng.permutation(len(cast))]
    world = _world(rng, real, valid_hw)
    camera = random_camera(rng, valid_hw, times, rng.random() < 0.25)
    images = np.full((frames, size, size, 3), PADDING, np.uint8)
    labels = np.zeros((frames, size, size), np.uint8)
    lens = Lens(rng, valid_hw)
    for i, t in enumerate(times):
        view = camera.matrix(t) @ shifted(-w / 2, -h / 2)
        picture, label = project(world, view, valid_hw), np.zeros((h, w), np.uint8)
        for cut_out in cast:
            _lay(picture, label, cut_out, view, t)
        images[i, :h, :w] = lens.expose(rng, picture, t)
        labels[i, :h, :w] = label
    return Clip(images, labels, things_of(labels), valid_hw)


def _world(rng: np.random.Generator, real: Real, size_hw: tuple[int, int]) -> np.ndarray:
    """A real frame, cropped, flipped or not, a third larger than the picture, uint8."""
    (frame,), _ = read(real.files[rng.integers(len(real.files))], (int(rng.integers(3)),))
    h, w = round(1.3 * size_hw[0]), round(1.3 * size_hw[1])
    zoom = max(h / frame.shape[0], w / frame.shape[1]) * rng.uniform(1, 1.3)
    frame = cv2.resize(frame, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    y, x = (int(rng.integers(0, free + 1)) for free in (frame.shape[0] - h, frame.shape[1] - w))
    crop = frame[y : y + h, x : x + w]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def _cut_out(rng: np.random.Generator, real: Real, size_hw: tuple[int, int], times: list[float], label: int) -> _CutOut:
    (image,), masks = read(real.files[rng.integers(len(real.files))], (0,))
    mask = masks[rng.integers(len(masks)), 0].astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    texture, cover = image[y : y + h, x : x + w], cv2.erode(mask, np.ones((3, 3), np.uint8))[y : y + h, x : x + w]
    zoom = min(1.0, LARGEST / max(w, h))
    texture, cover = (cv2.resize(part, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA) for part in (texture, cover * np.float32(1)))
    if rng.random() < 0.5:
        texture = cv2.convertScaleAbs(texture, alpha=rng.uniform(0.6, 1.4), beta=rng.uniform(-30, 30))
    rim = (LARGEST // 10,) * 4  # room to bend into
    texture, cover = cv2.copyMakeBorder(texture, *rim, cv2.BORDER_REPLICATE), cv2.copyMakeBorder(cover, *rim, cv2.BORDER_CONSTANT)
    radius = min(size_hw) * float(np.exp(rng.uniform(np.log(0.08), np.log(0.42))))
    path = random_path(rng, size_hw, times, radius)
    bend = (float(rng.choice([0, 0.03, 0.06])), rng.uniform(2, 6), rng.uniform(0.1, 0.8), rng.uniform(0, 6))
    return _CutOut(texture, cv2.GaussianBlur(cover, (0, 0), 0.7), path, label, bend)


def _lay(picture: np.ndarray, label: np.ndarray, cut_out: _CutOut, view: np.ndarray, t: float) -> None:
    """Draw a cut-out, bent and moved, and write its label where it covers at least half of a pixel."""
    h, w = cut_out.cover.shape
    texture, cover = _bent(cut_out, t)
    matrix = view @ cut_out.path.matrix(t) @ np.diag([2 / max(h, w), 2 / max(h, w), 1]) @ shifted(-w / 2, -h / 2)
    size = picture.shape[1::-1]
    share = cv2.warpAffine(cover, matrix[:2], size, flags=cv2.INTER_LINEAR)
    moved = cv2.warpAffine(texture, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    picture[:] = cv2.blendLinear(moved, picture, share, 1 - share)
    label[share > 0.5] = cut_out.label


def _bent(cut_out: _CutOut, t: float) -> tuple[np.ndarray, np.ndarray]:
    amount, waves, rate, phase = cut_out.bend
    if amount == 0:
        return cut_out.texture, cut_out.cover
    h, w = cut_out.cover.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    reach, k = np.float32(amount * max(h, w)), np.float32(waves / max(h, w))
    at = x + reach * np.sin(k * y + np.float32(phase + rate * t)), y + reach * np.sin(k * x + np.float32(phase - rate * t))
    return cv2.remap(cut_out.texture, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), cv2.remap(
        cut_out.cover, *at, cv2.INTER_LINEAR
    )

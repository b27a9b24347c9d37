"""What lies between a drawn (or real) picture and the network: light, blur, grain and compression of a made-up camera."""

from __future__ import annotations

import cv2
import numpy as np

from .textures import grain, smooth_noise


class Lens:
    """What a camera does to the light: exposure and colour that drift, uneven light, blur, softness, grain, compression."""

    def __init__(self, rng: np.random.Generator, size_hw: tuple[int, int]) -> None:
        self.gain = rng.normal(1, 0.06, 3) * rng.uniform(0.6, 1.2)
        self.drift = rng.normal(0, rng.choice([0, 0.01, 0.03]), 3)
        self.light = cv2.merge([0.6 + 0.6 * smooth_noise(rng, size_hw, 2)] * 3) if rng.random() < 0.4 else None
        self.sigma = rng.uniform(0.3, 1.4) if rng.random() < 0.5 else 0.0
        self.grain = rng.uniform(1, 10) if rng.random() < 0.5 else 0.0
        self.quality = int(rng.integers(25, 95)) if rng.random() < 0.4 else 100

    def expose(self, rng: np.random.Generator, picture: np.ndarray, t: float) -> np.ndarray:
        """The picture as the sensor delivers it at time t, uint8 [H, W, 3]."""
        h, w = picture.shape[:2]
        gain = self.gain * (1 + 0.3 * np.tanh(self.drift * t / 0.3))
        value = picture * gain.astype(np.float32)
        if self.light is not None:
            value *= self.light
        if self.sigma:
            value = cv2.GaussianBlur(value, (0, 0), self.sigma)
        if rng.random() < 0.08:
            value = _smear(rng, value)
        if self.grain:
            y, x = rng.integers(0, 640 - h + 1), rng.integers(0, 640 - w + 1)
            value = value + self.grain * grain()[y : y + h, x : x + w]
        out = value.clip(0, 255).astype(np.uint8)
        if self.quality < 100:
            out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1], cv2.IMREAD_COLOR)
        return out


def _smear(rng: np.random.Generator, value: np.ndarray) -> np.ndarray:
    """Motion blur along a random line of 3 to 9 pixels."""
    kernel = np.zeros((9, 9), np.float32)
    a, half = rng.uniform(0, np.pi), rng.uniform(1, 4)
    dx, dy = round(half * np.cos(a)), round(half * np.sin(a))
    cv2.line(kernel, (4 - dx, 4 - dy), (4 + dx, 4 + dy), 1.0)
    return cv2.filter2D(value, -1, kernel / kernel.sum())

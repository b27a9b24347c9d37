"""A textured table with textured things on it, seen by cameras as homographies of its plane: what both drawn multi-view benchmarks share.

Coordinates of the table are 0..1 in x and y. Which things, cameras and stories there are is two_cameras.py's and egoexo/scenes.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..psalm.train.shapes import Part
from ..psalm.train.textures import fractal, muted_stops, table

SHIFT = 4  # fractional bits of cv2.fillPoly


@dataclass(frozen=True, slots=True)
class Thing:
    """Something on the table: its parts and their textures; where it is at first, and how it moves in a second, in table sides."""

    parts: tuple[Part, ...]
    textures: tuple[np.ndarray, ...]
    place: np.ndarray
    step: np.ndarray
    radius: float
    angle: float
    name: str = ""

    def matrix(self, t_s: float) -> np.ndarray:
        """Its own coordinates to the table's, float [3, 3]."""
        x, y = self.place + self.step * t_s
        c, s = self.radius * np.cos(self.angle), self.radius * np.sin(self.angle)
        return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def draw_table(seed: int, side_px: int) -> np.ndarray:
    """What lies under the things, uint8 [S, S, 3]."""
    rng = np.random.default_rng((seed, 1))
    return cv2.applyColorMap((255 * fractal(rng, (side_px, side_px), 0.7)).astype(np.uint8), table(muted_stops(rng, 4)))


def camera_matrix(size_hw: tuple[int, int], middle: np.ndarray, seen: float, angle: float, tilt: np.ndarray) -> np.ndarray:
    """The table to the pixels of a camera that looks at `middle` and sees `seen` table sides from top to bottom: float [3, 3]."""
    height, width = size_hw
    c, s, zoom = np.cos(angle), np.sin(angle), height / seen
    turned = np.array([[c, -s, 0], [s, c, 0], [*tilt, 1]]) @ np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])
    return np.array([[zoom, 0, width / 2], [0, zoom, height / 2], [0, 0, 1]]) @ turned


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 2] through a homography, float64 [N, 2]."""
    return cv2.perspectiveTransform(points[None].astype(np.float64), matrix)[0]


def fixed(points: np.ndarray) -> np.ndarray:
    """Points in the fixed-point numbers of cv2.fillPoly, int32 [N, 2]."""
    return (points * (1 << SHIFT)).round().astype(np.int32)


def warped(picture: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A picture through a homography, mirrored beyond its edges."""
    return cv2.warpPerspective(picture, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def laid_over(texture: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Texture pixels to the outline's coordinates: the square laid over its box, float [3, 3]."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    zoom = (high - low).max() / len(texture)
    return np.array([[zoom, 0, low[0]], [0, zoom, low[1]], [0, 0, 1]])

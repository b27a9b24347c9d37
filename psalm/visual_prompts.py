"""From what a user draws to a region: points, boxes, scribbles and masks as binary masks at source resolution.

Shapes are checked here, against the frame they were drawn on, and nowhere else. Resizing and padding to the network's square
belong to preprocess.py, pooling to regions.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..stream.errors import BadPrompt
from ..stream.rle import decode
from ..stream.types import Box, Mask, Points, Scribble, Shape
from .overlap import pair_iou

POINT_RADIUS_PX = 10
SCRIBBLE_RADIUS_PX = 5


def rasterize(shape: Shape, size_hw: tuple[int, int]) -> np.ndarray:
    """The region a shape means on a frame of size_hw = (H, W): bool [H, W], never empty.

    Points become filled discs of radius 10 px, a scribble its polyline grown by 5 px, a box every pixel it touches, a mask itself.
    Raises BadPrompt for a shape that is empty, leaves the frame, or is a mask of another size.
    Source: the interactive prompts of PSALM's evaluation, grown before any resizing.
    """
    match shape:
        case Points(xy):
            return grow(_mark(_pixels(xy, size_hw, "point"), size_hw), POINT_RADIUS_PX)
        case Scribble(xy):
            vertices = _pixels(xy, size_hw, "scribble vertex")
            stroke = _mark(vertices, size_hw).astype(np.uint8)
            cv2.polylines(stroke, [np.array(vertices, np.int32)], isClosed=False, color=1)
            return grow(stroke.astype(bool), SCRIBBLE_RADIUS_PX)
        case Box(xyxy):
            return _fill(xyxy, size_hw)
        case Mask(rle):
            if tuple(rle.size_hw) != tuple(size_hw):
                raise BadPrompt(
                    f"mask prompt is {tuple(rle.size_hw)}, its frame {tuple(size_hw)} (height, width); send it at the frame's size"
                )
            mask = decode(rle)
            if not mask.any():
                raise BadPrompt("mask prompt has no pixel; mark at least one, or leave the object out")
            return mask


def meets(shape: Shape, region: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How well masks meet what was drawn, float [N], 0..1: a box or mask by IoU, clicks and strokes by the share of them that is covered.

    region: bool [H, W], what `rasterize` made of the shape; masks: bool [N, H, W].
    """
    if isinstance(shape, Box | Mask):
        return pair_iou(region[None], masks)[0]
    return masks[:, region].sum(axis=1) / region.sum()


def grow(marked: np.ndarray, radius_px: int) -> np.ndarray:
    """Every pixel within a Euclidean distance of `radius_px` of a marked one: bool [H, W] -> bool [H, W]."""
    reach = np.arange(-radius_px, radius_px + 1)
    disc = (reach[:, None] ** 2 + reach[None, :] ** 2 <= radius_px**2).astype(np.uint8)
    return cv2.dilate(marked.astype(np.uint8), disc).astype(bool)


def _pixels(xy: Sequence[tuple[float, float]], size_hw: tuple[int, int], what: str) -> list[tuple[int, int]]:
    """The pixels (x, y) that contain these coordinates."""
    height, width = size_hw
    if not xy:
        raise BadPrompt(f"a {what} prompt without a single {what}; give at least one as x,y")
    for x, y in xy:
        if not (0 <= x < width and 0 <= y < height):  # also refuses NaN
            raise BadPrompt(f"{what} is ({x}, {y}), expected 0 <= x < {width} and 0 <= y < {height}; give pixels of the displayed frame")
    return [(math.floor(x), math.floor(y)) for x, y in xy]


def _mark(pixels: Sequence[tuple[int, int]], size_hw: tuple[int, int]) -> np.ndarray:
    marked = np.zeros(size_hw, bool)
    for x, y in pixels:
        marked[y, x] = True
    return marked


def _fill(xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    x0, y0, x1, y1 = xyxy
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise BadPrompt(
            f"box is {tuple(xyxy)}, expected x0,y0,x1,y1 with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}; clip it to the frame"
        )
    filled = np.zeros(size_hw, bool)
    filled[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return filled

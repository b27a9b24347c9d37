"""MaskFrames -> pixels: the DAVIS palette, label maps, and the overlay picture people look at.

Arrays in, arrays out. Files and video encoding live in sinks.py.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import rle
from .types import FrameStatus, MaskFrame, ObjectMask, ObjectStatus

FILL = 0.45  # opacity of a mask; a carried one gets half of it
INK, PAPER = (20, 20, 24), (245, 245, 245)  # of text and status chips
_SHARP = 3  # chips are drawn this many times larger and averaged: Pillow's shapes have hard edges


def _voc_palette() -> np.ndarray:
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours |= ((ids[:, None] >> (3 * bit + np.arange(3)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


PALETTE = _voc_palette()
"""Colours of object ids, uint8 [256, 3], 0 black. Source: PASCAL VOC's colour map, which DAVIS uses: bits 0, 3, 6 of the id are the
highest bits of red, 1, 4, 7 of green, 2, 5 of blue."""
PALETTE.flags.writeable = False


def label_map(masks: MaskFrame) -> np.ndarray:
    """Object ids as uint8 [H, W], 0 where there is none. Where masks overlap, the higher score owns the pixel."""
    labels = np.zeros(masks.size_hw, np.uint8)
    for item in sorted((o for o in masks.objects if o.rle is not None), key=lambda o: o.score):
        labels[rle.decode(item.rle)] = item.object_id
    return labels


def overlay(image: np.ndarray | None, masks: MaskFrame, size_hw: tuple[int, int]) -> np.ndarray:
    """What people look at: the picture under translucent masks, each with a contour and its name; uint8 [H, W, 3] RGB of `size_hw`.

    A picture of another size is letterboxed; None (undecodable) is black. A carried mask has a dashed contour and a fainter fill. Absent
    objects, and a frame status other than ok, stand in the bottom left corner.
    """
    canvas = np.zeros((*size_hw, 3), np.uint8)
    labels = np.zeros(size_hw, np.uint8)
    window = _window(masks.size_hw, size_hw)
    if image is not None:
        canvas[window] = _resized(image, window, cv2.INTER_AREA)
        labels[window] = _resized(label_map(masks), window, cv2.INTER_NEAREST)
    shown = [(item, (labels == item.object_id).view(np.uint8)) for item in masks.objects]
    shown = [(item, mask, cv2.boundingRect(mask)) for item, mask in shown if mask.any()]
    for draw in (_draw_fill, _draw_contour, _draw_name):
        for item, mask, (x, y, width, height) in shown:
            draw(canvas, mask[y : y + height, x : x + width], (x, y), item)
    _draw_status(canvas, masks)
    return canvas


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with a tag in its top left corner."""
    canvas = picture.copy()
    size = _text_px(canvas)
    _paste(canvas, _chip(title, INK, PAPER, size), size // 3, size // 3)
    return canvas


def _window(inner_hw: tuple[int, int], outer_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Where a picture lies in a canvas: as large as fits with its aspect kept, centred."""
    scale = min(outer / inner for inner, outer in zip(inner_hw, outer_hw, strict=True))
    sides = [max(1, round(inner * scale)) for inner in inner_hw]
    starts = [(outer - side) // 2 for outer, side in zip(outer_hw, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _resized(array: np.ndarray, window: tuple[slice, slice], interpolation: int) -> np.ndarray:
    height, width = (side.stop - side.start for side in window)
    return array if array.shape[:2] == (height, width) else cv2.resize(array, (width, height), interpolation=interpolation)


def _colour(object_id: int) -> tuple[int, int, int]:
    """The palette's colour, half white: the pure one drowns in a dark picture."""
    return tuple(int(c) for c in np.rint(PALETTE[object_id] / 2 + 255 / 2))


def _unit(canvas: np.ndarray) -> float:
    """Width of a thin line: 1 px at 480 lines."""
    return max(1.0, min(canvas.shape[:2]) / 480)


# A mask below is its bounding box cut out, uint8 [h, w]; corner is the (x, y) of the box in the canvas.


def _draw_fill(canvas: np.ndarray, mask: np.ndarray, corner: tuple[int, int], item: ObjectMask) -> None:
    x, y = corner
    part = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
    share = FILL if item.status is ObjectStatus.SEEN else FILL / 2
    tinted = cv2.addWeighted(part, 1 - share, np.full_like(part, PALETTE[item.object_id]), share, 0)
    np.copyto(part, tinted, where=mask[..., None] > 0)


def _draw_contour(canvas: np.ndarray, mask: np.ndarray, corner: tuple[int, int], item: ObjectMask) -> None:
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner)
    closed = item.status is ObjectStatus.SEEN
    if not closed:
        dash = max(4, round(9 * _unit(canvas)))
        contours = [contour[start : start + dash] for contour in contours for start in range(0, len(contour), 2 * dash)]
    thickness = max(1, round(2 * _unit(canvas)))
    for width, colour in ((2 * thickness, INK), (thickness, _colour(item.object_id))):  # a dark rim: red lines are lost on a red cup
        cv2.polylines(canvas, contours, closed, colour, width, cv2.LINE_AA)


def _draw_name(canvas: np.ndarray, mask: np.ndarray, corner: tuple[int, int], item: ObjectMask) -> None:
    """Put the object's id and label into its widest place, or above it (below at the upper edge) when it is too small to carry them."""
    chip = _chip(_name(item), tuple(PALETTE[item.object_id].tolist()), PAPER, _text_px(canvas))
    rows, columns = chip.shape[:2]
    depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    _, radius, _, (x, y) = cv2.minMaxLoc(depth)
    if radius < rows:
        gap = rows // 2 + 3
        above = corner[1] - gap >= rows // 2
        x, y = mask.shape[1] // 2, -gap if above else mask.shape[0] + gap
    _paste(canvas, chip, corner[0] + x - columns // 2, corner[1] + y - rows // 2)


def _draw_status(canvas: np.ndarray, masks: MaskFrame) -> None:
    """Chips from the bottom left corner on, row over row."""
    size = _text_px(canvas)
    chips = [] if masks.status is FrameStatus.OK else [_chip(masks.status.replace("_", " "), INK, PAPER, size)]
    absent = (item for item in masks.objects if item.status is ObjectStatus.ABSENT)
    chips += [_chip(f"{_name(item)} absent", INK, _colour(item.object_id), size) for item in absent]
    gap = size // 3
    x, y = gap, canvas.shape[0]
    for chip in chips:
        if x == gap or x + chip.shape[1] > canvas.shape[1]:
            x, y = gap, y - chip.shape[0] - gap
        _paste(canvas, chip, x, y)
        x += chip.shape[1] + gap


def _name(item: ObjectMask) -> str:
    return f"{item.object_id} {item.label}".strip()


def _text_px(canvas: np.ndarray) -> int:
    return max(9, round(16 * _unit(canvas)))


@lru_cache(maxsize=256)
def _chip(text: str, paper: tuple[int, int, int], ink: tuple[int, int, int], size_px: int) -> np.ndarray:
    """A rounded tag with text: uint8 [h, w, 4] RGBA."""
    font = ImageFont.load_default(size_px * _SHARP)
    left, _, right, _ = font.getbbox(text)
    rise, fall = font.getmetrics()
    margin = size_px * _SHARP // 3
    width, height = right - left + 2 * margin, rise + fall + margin // 2
    image = Image.new("RGBA", (width - width % -_SHARP, height - height % -_SHARP))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, image.width - 1, image.height - 1), radius=margin, fill=(*paper, 225))
    draw.text((margin - left, margin // 4), text, font=font, fill=(*ink, 255))
    return np.asarray(image.reduce(_SHARP))


def _paste(canvas: np.ndarray, chip: np.ndarray, x: int, y: int) -> None:
    """Blend a chip in, moved to lie inside the canvas; what does not fit even so is cut."""
    height, width = (min(a, b) for a, b in zip(chip.shape[:2], canvas.shape[:2], strict=True))
    x, y = min(max(x, 0), canvas.shape[1] - width), min(max(y, 0), canvas.shape[0] - height)
    part = canvas[y : y + height, x : x + width]
    alpha = chip[:height, :width, 3:] / 255
    part[:] = np.rint(part * (1 - alpha) + chip[:height, :width, :3] * alpha)

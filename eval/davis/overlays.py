"""Pictures of a report: a frame under the answered masks, with the true outlines drawn over it, as data that a page can hold.

Which frames are worth looking at is decided here too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ...stream.errors import Undecodable
from ...stream.paint import INK, PALETTE
from ...stream.pictures import decode_rgb, displayed_size
from .metrics import Score

WIDTH = 640
FILL = 0.5
QUALITY = 82
TRUTH = (255, 255, 255)


def frame_scores(score: Score) -> np.ndarray:
    """J&F of every scored frame, float [N]: the mean over the objects."""
    return np.mean([(o.j_frames + o.f_frames) / 2 for o in score.objects], axis=0)


def telling_frames(scores: np.ndarray) -> dict[str, int]:
    """The best, the median and the worst frame by their scores, float [N]: index among all frames, of which the first is not scored.

    Of very short sequences there are fewer than three.
    """
    order = np.argsort(-scores, kind="stable")
    found = {"best": order[0], "worst": order[-1], "median": order[len(order) // 2]}
    kept: dict[str, int] = {}
    for name, index in found.items():
        if int(index) + 1 not in kept.values():
            kept[name] = int(index) + 1
    return {name: kept[name] for name in ("best", "median", "worst") if name in kept}


def picture(image: Path | None, truth: np.ndarray, answer: np.ndarray) -> str:
    """A frame as a data URI of a JPEG at most WIDTH wide. truth, answer: label maps uint8 [H, W].

    Without an image, or with one that cannot be decoded, on grey.
    """
    height, width = truth.shape
    scale = min(1.0, WIDTH / width)
    size = round(width * scale), round(height * scale)
    pixels = None if image is None else _pixels(image)
    canvas = np.full((size[1], size[0], 3), 96, np.uint8) if pixels is None else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    truth, answer = (cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST) for labels in (truth, answer))
    for object_id in _ids(answer):
        mask = answer == object_id
        canvas[mask] = (canvas[mask] * (1 - FILL) + np.array(bright(object_id)) * FILL).astype(np.uint8)
        _outline(canvas, mask, ((2, bright(object_id)),))
    for object_id in _ids(truth):
        _outline(canvas, truth == object_id, ((4, INK), (2, TRUTH)))
    return _jpeg_uri(canvas)


def _pixels(image: Path) -> np.ndarray | None:
    """The picture as the tracker saw it, RGB uint8 [H, W, 3], upright by its EXIF; None for one that it could not decode."""
    data = image.read_bytes()
    try:
        return decode_rgb(data, displayed_size(data))
    except Undecodable:
        return None


def _ids(labels: np.ndarray) -> Sequence[int]:
    return [int(i) for i in np.unique(labels) if i not in (0, 255)]


def bright(object_id: int) -> tuple[int, int, int]:
    """The palette's hue at full brightness: the dark red of object 1 is lost on a picture."""
    colour = PALETTE[object_id].astype(float)
    return tuple(int(c) for c in 35 + 220 * colour / colour.max())


def _outline(canvas: np.ndarray, mask: np.ndarray, strokes: Sequence[tuple[int, tuple[int, int, int]]]) -> None:
    """Draw a mask's outline, bool [H, W], with strokes of (thickness, colour), the widest first."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for thickness, colour in strokes:
        cv2.polylines(canvas, contours, True, colour, thickness, cv2.LINE_AA)


def _jpeg_uri(rgb: np.ndarray) -> str:
    held = io.BytesIO()
    Image.fromarray(rgb).save(held, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"

"""Motion: binary masks carried from one frame to the next by dense optical flow (OpenCV DIS), once for all objects.

What a carried mask is worth beside a proposal is decided in honest_policy.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

# DAVIS dev, J&F of motion alone: ULTRAFAST 39.0 (6 ms a 480p frame), FAST 36.4, MEDIUM 41.4 (44 ms); MEDIUM at half resolution 38.2.
PRESET = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
# Below this DIS runs out of pyramid levels: it refuses 11 px, and 15 x 40 px killed the process (OpenCV 5.0). Such frames are padded.
SMALLEST_SIDE_PX = 64


def carry(masks: Mapping[int, np.ndarray], previous_rgb: np.ndarray, current_rgb: np.ndarray) -> dict[int, np.ndarray]:
    """Bring masks of the previous frame to the current one; an id whose mask leaves no pixel is left out.

    masks: bool [H', W'] per id, the size of previous_rgb uint8 [H', W', 3]; current_rgb: uint8 [H, W, 3], the size of the answer.
    Backward warping: flow from the current to the previous frame, masks sampled through it bilinearly and cut at 0.5 (a pixel
    at exactly 0.5 stays out, so that masks that did not overlap still do not). What flows in from outside the frame is background.
    """
    if not masks:
        return {}
    current, previous = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (current_rgb, previous_rgb))
    source_x, source_y = _sources(backward_flow(current, previous), previous.shape)
    carried = {}
    for object_id, mask in masks.items():
        warped = cv2.remap(mask.astype(np.float32), source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) > 0.5
        if warped.any():
            carried[object_id] = warped
    return carried


def backward_flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Where each pixel of `current` was in `previous`, as an offset (dx, dy): float32 [H, W, 2], in pixels of `current`.

    Both grey, uint8; a previous frame of another size is resized to the current one first.
    """
    height, width = current.shape
    if previous.shape != current.shape:
        previous = cv2.resize(previous, (width, height), interpolation=cv2.INTER_AREA)
    below, right = max(0, SMALLEST_SIDE_PX - height), max(0, SMALLEST_SIDE_PX - width)
    if below or right:
        current, previous = (cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE) for grey in (current, previous))
    flow = cv2.DISOpticalFlow.create(PRESET).calc(current, previous, None)
    return flow[:height, :width]


def _sources(flow: np.ndarray, previous_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates in the previous frame, at its own size, of every pixel of the current one: x and y, float32 [H, W]."""
    height, width = flow.shape[:2]
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    scale_y, scale_x = previous_hw[0] / height, previous_hw[1] / width
    source_x = (columns + flow[..., 0] + 0.5) * scale_x - 0.5
    source_y = (rows + flow[..., 1] + 0.5) * scale_y - 0.5
    return source_x, source_y

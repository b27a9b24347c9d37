"""A drawn scene whose objects differ in colour, and a segmenter that really finds them by colour: a second implementation of the model."""

import cv2
import numpy as np
from psalm_stream.stream import rle
from psalm_stream.stream.types import Frame, FrameKey, Mask, ObjectPrompt, Prompt, Proposals

SIZE_HW = (72, 96)
COLOURS = {1: (224, 32, 32), 2: (32, 224, 32), 3: (32, 32, 224)}  # RGB; every channel in the middle of a bin of 64
BIN = 64


def box_of(object_id, index):
    """Where object `object_id` is on frame `index`: x0, y0, x1, y1."""
    x, y = 6 + 2 * index, 4 + 22 * (object_id - 1)
    return x, y, x + 24, y + 18


def mask_of(object_id, index):
    x0, y0, x1, y1 = box_of(object_id, index)
    mask = np.zeros(SIZE_HW, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def picture(index, objects=(1, 2)):
    """Frame `index` as PNG bytes."""
    image = np.full((*SIZE_HW, 3), 160, np.uint8)
    for object_id in objects:
        image[mask_of(object_id, index)] = COLOURS[object_id]
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def frames(count, *, session="run", view="main", objects=(1, 2)):
    """A clip of `count` frames, the objects moving right by 2 px a frame."""
    return [
        Frame(FrameKey(session, view, i), t_ns=i * 40_000_000, live=False, size_hw=SIZE_HW, data=picture(i, objects)) for i in range(count)
    ]


def mask_prompt(index, *object_ids, session="run", view="main"):
    """The true masks of some objects on frame `index`."""
    shapes = tuple(ObjectPrompt(i, Mask(rle.encode(mask_of(i, index)))) for i in object_ids)
    return Prompt(FrameKey(session, view, index), f"{view}@{index}-{object_ids}", shapes)


class ColourSegmenter:
    """Proposals: the picture cut by colour. Score of a region for a proposal: how near their mean colours are, 1 when equal."""

    digest = "colour"

    def __init__(self):
        self.batches = []

    def segment(self, requests):
        self.batches.append([r.frame.key.session for r in requests])
        return [self._one(request) for request in requests]

    def _one(self, request):
        pixels = request.frame.pixels()
        bins = (pixels // BIN).astype(int) @ np.array([16, 4, 1])
        masks = np.array([bins == value for value in np.unique(bins)])
        found = np.array([pixels[mask].mean(axis=0) for mask in masks])
        wanted = np.array([region.frame.pixels()[region.mask].mean(axis=0) for region in request.condition.regions]).reshape(-1, 3)
        distance = np.linalg.norm(wanted[:, None] - found[None], axis=2)
        return Proposals(np.exp(-distance / 40).astype(np.float32), lambda queries: masks[list(queries)])


class DriftSegmenter:
    """Proposes each object where it was last remembered, 2 px further right: one answer too many or too few in a history stays visible."""

    digest = "drift"

    def segment(self, requests):
        return [self._one(request) for request in requests]

    def _one(self, request):
        newest = {}
        for region in request.condition.regions:
            if region.object_id not in newest or region.frame.key.index > newest[region.object_id].frame.key.index:
                newest[region.object_id] = region
        masks = np.array([np.roll(region.mask, 2, axis=1) for region in newest.values()]).reshape(-1, *request.frame.size_hw)
        scores = [[0.95 * (region is found) for found in newest.values()] for region in request.condition.regions]
        return Proposals(np.array(scores, np.float32).reshape(len(scores), len(newest)), lambda queries: masks[list(queries)])

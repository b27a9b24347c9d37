"""A take small enough to score by hand: rectangles in an ego camera of 1408 x 1408 and exo cameras of 3840 x 2160 and 4000 x 3000."""

from __future__ import annotations

from functools import cache

import numpy as np
from psalm_stream.eval.egoexo.data import Take
from psalm_stream.eval.egoexo.lz_string import compress
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json

EGO, EXO, TALL = "aria01_214-1", "cam01", "cam02"
FULL = {EGO: (1408, 1408), EXO: (2160, 3840), TALL: (3000, 4000)}
SCORING = {EGO: (480, 480), EXO: (270, 480), TALL: (360, 480)}


def full_mask(camera, rows, columns):
    """A rectangle given at scoring size, at the camera's full size: exactly that rectangle again once it is shrunk."""
    mask = np.zeros(FULL[camera], bool)
    (height, width), (h, w) = FULL[camera], SCORING[camera]
    top, bottom = (row * height // h for row in rows)
    left, right = (column * width // w for column in columns)
    mask[top:bottom, left:right] = True
    return mask


def stored(camera, rows, columns):
    """Such a mask as a processed annotation stores it."""
    return rle_json(encoded(camera, rows, columns))


def raw(camera, rows, columns):
    """Such a mask as a relations file stores it."""
    height, width = FULL[camera]
    return {"width": width, "height": height, "encodedMask": compress(encoded(camera, rows, columns).counts.decode())}


@cache
def encoded(camera, rows, columns):
    """Such a mask as run-lengths."""
    return rle.encode(full_mask(camera, rows, columns))


def predicted(camera, rows, columns, confidence):
    """An answer with a rectangle at scoring size; rows None: an empty mask."""
    mask = np.zeros(SCORING[camera], bool)
    if rows is not None:
        mask[slice(*rows), slice(*columns)] = True
    return {"pred_mask": rle_json(rle.encode(mask)), "confidence": confidence}


def cup_take(uid="take-1"):
    """A cup in the ego camera on frames 0, 30, 60, in the exo camera on 0 and 30, looked for there on 0, 30, 90; a knife in one alone."""
    masks = {
        "cup_0": {
            EGO: {f: stored(EGO, (100, 200), (100, 200)) for f in (0, 30, 60)},
            EXO: {f: stored(EXO, (100, 150), (200, 280)) for f in (0, 30)},
        },
        "knife_1": {EGO: {0: stored(EGO, (10, 20), (10, 40))}},
    }
    annotated = {"cup_0": {EGO: frozenset({0, 30, 60, 90}), EXO: frozenset({0, 30, 90})}, "knife_1": {EGO: frozenset({0})}}
    return Take(uid, masks, (0, 30, 60, 90), annotated, "kitchen_1")

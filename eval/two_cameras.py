"""Drawn scenes seen by two cameras, with known truth: what a session of several views is measured and tested on, and can be tried with.

    python -m psalm_stream.eval.two_cameras DIR [--seed N] [--frames N]

Textured things move on a textured table; a worn camera wanders over it, near, another stands farther away, turned and tilted. Here are the
clips, what becomes of a view (late, dropping out), and a segmenter that is given the true correspondence. Tracking them, and figures, are
multi_view.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console

from ..psalm.overlap import pair_iou
from ..psalm.train.clip import CATEGORIES, COLOURS, PATTERNS
from ..psalm.train.shapes import Part, body
from ..psalm.train.textures import fractal, muted_stops, named_stops, patch, table
from ..stream import rle
from ..stream.sinks import VideoWriter, write_label_map
from ..stream.types import Frame, FrameKey, Mask, ObjectPrompt, Prompt, Proposals, Request

SESSION, EGO, EXO = "scene", "ego", "exo"
SIZES_HW = {EGO: (288, 384), EXO: (288, 512)}
FPS = 10
THINGS = 4
STEP = 0.03  # table sides that a thing moves in a second
LEAST_PX = 60  # of a thing that counts as visible
TEXTURE_PX, TABLE_PX = 160, 768
QUALITY = 95
_SHIFT = 4  # fractional bits of cv2.fillPoly


@dataclass(frozen=True, slots=True)
class Thing:
    """Something on the table: its parts and their textures; where it is at first, and how it moves in a second, in table sides."""

    parts: tuple[Part, ...]
    textures: tuple[np.ndarray, ...]
    place: np.ndarray
    step: np.ndarray
    radius: float
    angle: float

    def matrix(self, t_s: float) -> np.ndarray:
        """Its own coordinates to the table's, float [3, 3]."""
        x, y = self.place + self.step * t_s
        c, s = self.radius * np.cos(self.angle), self.radius * np.sin(self.angle)
        return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


@cache
def things_of(seed: int) -> tuple[Thing, ...]:
    """Four things of different colours, each on its own way."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation([(x, y) for x in (0.35, 0.65) for y in (0.35, 0.65)])
    things = []
    for colour, cell in zip(rng.choice(list(COLOURS), THINGS, replace=False), cells, strict=True):
        pattern, heading = str(rng.choice(PATTERNS)), rng.uniform(0, 6.3)
        parts = tuple(body(rng, str(rng.choice(CATEGORIES))))
        textures = tuple(patch(rng, pattern, named_stops(rng, str(colour), pattern), TEXTURE_PX) for _ in parts)
        step = STEP * np.array([np.cos(heading), np.sin(heading)])
        things.append(Thing(parts, textures, cell, step, rng.uniform(0.09, 0.13), rng.uniform(0, 6.3)))
    return tuple(things)


@cache
def table_of(seed: int) -> np.ndarray:
    """What lies under the things, uint8 [S, S, 3]."""
    rng = np.random.default_rng((seed, 1))
    return cv2.applyColorMap((255 * fractal(rng, (TABLE_PX, TABLE_PX), 0.7)).astype(np.uint8), table(muted_stops(rng, 4)))


def camera(seed: int, view: str, t_s: float) -> np.ndarray:
    """The table, 0..1 in x and y, to the pixels of a view: a homography, float [3, 3]."""
    rng = np.random.default_rng((seed, 2, view == EXO))
    height, width = SIZES_HW[view]
    angle, phases, tilt = rng.uniform(-0.6, 0.6), rng.uniform(0, 6.3, 2), rng.normal(0, 0.25, 2)
    middle, seen = (0.5 + 0.08 * np.sin(0.8 * t_s + phases), 0.75) if view == EGO else ((0.5, 0.5), 1.0)
    c, s = np.cos(angle), np.sin(angle)
    lean = (0, 0) if view == EGO else tilt
    turned = np.array([[c, -s, 0], [s, c, 0], [*lean, 1]]) @ np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])
    return np.array([[height / seen, 0, width / 2], [0, height / seen, height / 2], [0, 0, 1]]) @ turned


@lru_cache(maxsize=256)
def draw(seed: int, view: str, index: int) -> tuple[bytes, np.ndarray]:
    """A frame: the bytes of its JPEG, and the object id at every pixel, uint8 [H, W], 0: none; ids are the things' numbers, from 1."""
    height, width = SIZES_HW[view]
    seen = camera(seed, view, index / FPS)
    picture = _warped(table_of(seed), seen / np.array([TABLE_PX, TABLE_PX, 1]), (height, width)).astype(np.float32)
    labels = np.zeros((height, width), np.uint8)
    for number, thing in enumerate(things_of(seed), start=1):
        matrix = seen @ thing.matrix(index / FPS)
        for part, texture in zip(thing.parts, thing.textures, strict=True):
            outline = (cv2.perspectiveTransform(part.outline[None].astype(float), matrix)[0] * (1 << _SHIFT)).round().astype(np.int32)
            cover = cv2.fillPoly(np.zeros((height, width), np.uint8), [outline], 255, cv2.LINE_AA, _SHIFT)
            filled = _warped(texture, matrix @ _laid_over(part.outline), (height, width))
            picture += cover[..., None] / np.float32(255) * (filled - picture)
            labels[cover > 127] = number
    gain = np.random.default_rng((seed, 3, view == EXO)).normal(1, 0.08, 3)
    bgr = cv2.cvtColor((picture * gain).clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), labels


def _warped(picture: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return cv2.warpPerspective(picture, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _laid_over(outline: np.ndarray) -> np.ndarray:
    """Texture pixels to the outline's coordinates: the square laid over its box, float [3, 3]."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    zoom = (high - low).max() / TEXTURE_PX
    return np.array([[zoom, 0, low[0]], [0, zoom, low[1]], [0, 0, 1]])


@dataclass(frozen=True)
class TwoCameras:
    """A scene filmed by both cameras, `count` frames at FPS each."""

    seed: int
    count: int

    def truth(self, view: str, index: int) -> dict[int, np.ndarray]:
        """The true mask of every object that is visible on a frame, bool [H, W] by id."""
        _, labels = draw(self.seed, view, index)
        masks = {object_id: labels == object_id for object_id in range(1, THINGS + 1)}
        return {object_id: mask for object_id, mask in masks.items() if mask.sum() >= LEAST_PX}

    def frame(self, view: str, index: int) -> Frame:
        """A frame as it travels."""
        data, _ = draw(self.seed, view, index)
        return Frame(FrameKey(SESSION, view, index), round(index * 1e9 / FPS), False, SIZES_HW[view], data)

    def prompt(self, view: str = EGO, index: int = 0) -> Prompt:
        """The true masks of all that is visible on a frame."""
        shapes = tuple(ObjectPrompt(i, Mask(rle.encode(mask))) for i, mask in self.truth(view, index).items())
        return Prompt(FrameKey(SESSION, view, index), f"true-{view}", shapes)


@dataclass(frozen=True, slots=True)
class Story:
    """What becomes of the views: when each of them has frames, as shares of the clip, from and to."""

    name: str
    ego: tuple[tuple[float, float], ...]
    exo: tuple[tuple[float, float], ...]

    def indices(self, view: str, count: int) -> list[int]:
        """The moments of a clip at which a view has a frame."""
        return [i for i in range(count) if any(start <= i / count < end for start, end in getattr(self, view))]


ALL = ((0.0, 1.0),)
STORIES = (
    Story("both all the time", ALL, ALL),
    Story("exo joins late", ALL, ((0.3, 1.0),)),
    Story("exo drops out, returns", ALL, ((0.0, 0.4), (0.7, 1.0))),
    Story("ego drops out", ((0.0, 0.4),), ALL),
)


def frames_of(clip: TwoCameras, story: Story, views: Sequence[str] = (EGO, EXO)) -> list[Frame]:
    """The frames of both views in the order of their capture times, ego first; numbered by moment."""
    present = {view: story.indices(view, clip.count) for view in views}
    return [clip.frame(view, index) for index in range(clip.count) for view in views if index in present[view]]


class TrueSegmenter:
    """Proposes the true masks of a frame; a region's score for one of them is its IoU with that very object, on the region's own frame."""

    digest = "truth"

    def __init__(self, clip: TwoCameras) -> None:
        self.clip = clip

    def segment(self, requests: Sequence[Request]) -> list[Proposals]:
        """One Proposals a request, in order."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Proposals:
        truth = self.clip.truth(request.frame.key.view, request.frame.key.index)
        scores = np.zeros((len(request.condition.regions), len(truth)), np.float32)
        for row, region in enumerate(request.condition.regions):
            meant = self.clip.truth(region.frame.key.view, region.frame.key.index)
            for column, object_id in enumerate(truth):
                if object_id in meant:
                    scores[row, column] = pair_iou(region.mask[None], meant[object_id][None])[0, 0]
        masks = np.array(list(truth.values())).reshape(-1, *request.frame.size_hw)
        return Proposals(scores, lambda queries: masks[list(queries)])


def draw_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where ego.mp4, exo.mp4 and first.png go.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the scene.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Of each video, ten a second.")] = 40,
) -> None:
    """Draw a scene as two cameras see it, and the objects of ego's first frame."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = TwoCameras(seed, frames)
    for view in (EGO, EXO):
        with closing(VideoWriter(folder / f"{view}.mp4", FPS)) as video:
            for index in range(frames):
                video.write(clip.frame(view, index).pixels())
    write_label_map(folder / "first.png", draw(seed, EGO, 0)[1])
    views = " ".join(f"--view {view}={folder / view}.mp4" for view in (EGO, EXO))
    Console(highlight=False).print(f"try  psalm-stream run {views} --mask ego/{folder / 'first.png'} --out results", soft_wrap=True)


if __name__ == "__main__":
    typer.run(draw_command)

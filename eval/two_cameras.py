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
from ..psalm.train.shapes import body
from ..psalm.train.textures import named_stops, patch
from ..stream import rle
from ..stream.sinks import VideoWriter, write_label_map
from ..stream.types import Frame, FrameKey, Mask, ObjectPrompt, Prompt, Proposals, Request
from .tabletop import SHIFT, Thing, camera_matrix, draw_table, fixed, laid_over, project, warped

SESSION, EGO, EXO = "scene", "ego", "exo"
SIZES_HW = {EGO: (288, 384), EXO: (288, 512)}
FPS = 10
THINGS = 4
STEP = 0.03  # table sides that a thing moves in a second
LEAST_PX = 60  # of a thing that counts as visible
TEXTURE_PX, TABLE_PX = 160, 768
QUALITY = 95


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
    return draw_table(seed, TABLE_PX)


def camera(seed: int, view: str, t_s: float) -> np.ndarray:
    """The table, 0..1 in x and y, to the pixels of a view: a homography, float [3, 3]."""
    rng = np.random.default_rng((seed, 2, view == EXO))
    angle, phases, tilt = rng.uniform(-0.6, 0.6), rng.uniform(0, 6.3, 2), rng.normal(0, 0.25, 2)
    middle, seen = (0.5 + 0.08 * np.sin(0.8 * t_s + phases), 0.75) if view == EGO else ((0.5, 0.5), 1.0)
    return camera_matrix(SIZES_HW[view], middle, seen, angle, (0, 0) if view == EGO else tilt)


@lru_cache(maxsize=256)
def draw(seed: int, view: str, index: int) -> tuple[bytes, np.ndarray]:
    """A frame: the bytes of its JPEG, and the object id at every pixel, uint8 [H, W], 0: none; ids are the things' numbers, from 1."""
    height, width = SIZES_HW[view]
    seen = camera(seed, view, index / FPS)
    picture = warped(table_of(seed), seen / np.array([TABLE_PX, TABLE_PX, 1]), (height, width)).astype(np.float32)
    labels = np.zeros((height, width), np.uint8)
    for number, thing in enumerate(things_of(seed), start=1):
        matrix = seen @ thing.matrix(index / FPS)
        for part, texture in zip(thing.parts, thing.textures, strict=True):
            outline = fixed(project(matrix, part.outline))
            cover = cv2.fillPoly(np.zeros((height, width), np.uint8), [outline], 255, cv2.LINE_AA, SHIFT)
            filled = warped(texture, matrix @ laid_over(texture, part.outline), (height, width))
            picture += cover[..., None] / np.float32(255) * (filled - picture)
            labels[cover > 127] = number
    gain = np.random.default_rng((seed, 3, view == EXO)).normal(1, 0.08, 3)
    bgr = cv2.cvtColor((picture * gain).clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), labels


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

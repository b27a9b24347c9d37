"""Drawn takes in the exact layout of Ego-Exo4D correspondence: a table of things seen by a worn camera and by others around it.

    python -m psalm_stream.eval.egoexo.scenes ROOT [--takes N] [--frames N] [--seed N] [--traps]

Every camera is a homography of one plane, so the true mask of everything in every camera is known to the pixel; somebody stands before the
other cameras, and the worn one looks past things, so that not everything is seen always. For tests, for trying the
evaluation out, and to measure a model without the licensed data; what is drawn is what nano was trained on (psalm/train), not photographs.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.progress import track

from ...psalm.train.clip import CATEGORIES, COLOURS, PATTERNS
from ...psalm.train.shapes import body
from ...psalm.train.textures import named_stops, patch
from ...stream import rle
from ...stream.coco import rle_json
from ..tabletop import SHIFT, Thing, camera_matrix, draw_table, fixed, laid_over, project, warped
from .lz_string import compress

EGO = "aria01_214-1"
STEP = 30  # frames between two pictures: one a second
LEAST_SHARE = 3e-4  # of a camera's pixels; smaller things are not annotated
_CLOTH = (92, 84, 78)  # RGB of who stands before a camera


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera.

    full_hw: (H, W) of its masks as stored; shrink: how much smaller its pictures are; turns: quarter turns that they are stored with.
    """

    name: str
    full_hw: tuple[int, int]
    shrink: int
    turns: int = 0

    @property
    def picture_hw(self) -> tuple[int, int]:
        """(H, W) of its pictures as stored."""
        return self.full_hw[0] // self.shrink, self.full_hw[1] // self.shrink


CAMERAS = (Camera(EGO, (1408, 1408), 2, turns=1), Camera("cam01", (2160, 3840), 4), Camera("cam02", (2028, 2704), 4))
LOW = Camera("cam03", (1080, 1920), 4)  # lower than 1408 px: the official tool saves no picture of it


@dataclass(frozen=True)
class Scene:
    """One take. cameras: the ego camera first."""

    uid: str
    name: str
    seed: int
    frames: tuple[int, ...]
    cameras: tuple[Camera, ...]
    things: tuple[Thing, ...]

    @cached_property
    def table(self) -> np.ndarray:
        """What lies under the things, uint8 [S, S, 3]."""
        return draw_table(self.seed, 1024)

    def view(self, camera: Camera, frame: int) -> np.ndarray:
        """The table, 0..1 in x and y, to the upright full picture of a camera: a homography, float [3, 3]."""
        rng = np.random.default_rng((self.seed, 2, self.cameras.index(camera)))
        if camera.turns:  # worn: near, and wandering over the table
            rates, phases = rng.uniform(0.3, 0.8, 2), rng.uniform(0, 6.3, 2)
            middle, seen = 0.5 + 0.18 * np.sin(rates * frame / STEP + phases), rng.uniform(0.5, 0.7)
            angle, tilt = rng.normal(0, 0.3), rng.normal(0, 0.08, 2)
        else:
            middle, seen, angle, tilt = rng.uniform(0.35, 0.65, 2), rng.uniform(0.6, 1.0), rng.normal(0, 0.15), rng.normal(0, 0.25, 2)
        return camera_matrix(camera.full_hw, middle, seen, angle, tilt)

    def hidden(self, camera: Camera, frame: int, size_hw: tuple[int, int]) -> slice:
        """The columns of an upright picture in which somebody stands before the camera; none of a worn one."""
        rng = np.random.default_rng((self.seed, 4, self.cameras.index(camera)))
        middle, width = 0.5 + 0.3 * np.sin(rng.uniform(0.4, 0.9) * frame / STEP + rng.uniform(0, 6.3)), rng.uniform(0.1, 0.2)
        left, right = (round(float(side) * size_hw[1]) for side in (middle - width / 2, middle + width / 2))
        return slice(0, 0) if camera.turns else slice(left, right)

    def labels(self, camera: Camera, frame: int, size_hw: tuple[int, int]) -> np.ndarray:
        """The number (from 1) of the thing that is visible at every pixel of the stored picture, uint8 of size_hw, 0: none."""
        view, upright = self._scaled(camera, frame, size_hw)
        labels = np.zeros(upright, np.uint8)
        for number, thing in enumerate(self.things, start=1):
            for part in thing.parts:
                cv2.fillPoly(labels, [fixed(project(view @ thing.matrix(frame / STEP), part.outline))], number, cv2.LINE_8, SHIFT)
        labels[:, self.hidden(camera, frame, upright)] = 0
        return np.ascontiguousarray(np.rot90(labels, camera.turns))

    def picture(self, camera: Camera, frame: int) -> np.ndarray:
        """The stored picture, RGB uint8 [H, W, 3]."""
        view, (height, width) = self._scaled(camera, frame, camera.picture_hw)
        shown = warped(self.table, view @ np.diag([1 / len(self.table), 1 / len(self.table), 1]), (height, width)).astype(np.float32)
        for thing in self.things:
            matrix = view @ thing.matrix(frame / STEP)
            for part, texture in zip(thing.parts, thing.textures, strict=True):
                _paint(shown, project(matrix, part.outline), texture, matrix @ laid_over(texture, part.outline))
        shown[:, self.hidden(camera, frame, (height, width))] = _CLOTH
        gain = np.random.default_rng((self.seed, 3, self.cameras.index(camera))).normal(1, 0.08, 3)
        return np.ascontiguousarray(np.rot90((shown * gain).clip(0, 255).astype(np.uint8), camera.turns))

    def _scaled(self, camera: Camera, frame: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """The view into a picture of another size, and that size upright."""
        upright = size_hw[::-1] if camera.turns % 2 else tuple(size_hw)
        full = camera.full_hw[::-1] if camera.turns % 2 else camera.full_hw
        return np.diag([upright[1] / full[1], upright[0] / full[0], 1]) @ self.view(camera, frame), upright


def draw_scene(seed: int, frames: int, traps: bool = False) -> Scene:
    """A take of `frames` pictures a camera, one a second. traps: with a camera that the official tool leaves empty."""
    rng = np.random.default_rng((seed, 0))
    places = [np.array([x, y]) for x in (0.22, 0.5, 0.78) for y in (0.25, 0.5, 0.75)]
    count = int(rng.integers(3, 6))
    things = tuple(_thing(rng, number, places[at]) for number, at in enumerate(rng.permutation(len(places))[:count]))
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"psalm-stream-drawn-{seed}"))
    cameras = (*CAMERAS, LOW) if traps else CAMERAS
    return Scene(uid, f"drawn_table_{seed:02d}", seed, tuple(range(0, frames * STEP, STEP)), cameras, things)


def _thing(rng: np.random.Generator, number: int, place: np.ndarray) -> Thing:
    category, colour, pattern = str(rng.choice(CATEGORIES)), str(rng.choice(list(COLOURS))), str(rng.choice(PATTERNS))
    parts = tuple(body(rng, category))
    textures = tuple(patch(rng, pattern, named_stops(rng, colour, pattern), 160) for _ in parts)
    step = rng.normal(0, 0.02, 2)
    place = place + rng.normal(0, 0.03, 2)
    return Thing(parts, textures, place, step, rng.uniform(0.05, 0.13), rng.uniform(0, 6.3), f"{category}_{number}")


def _paint(shown: np.ndarray, points: np.ndarray, texture: np.ndarray, matrix: np.ndarray) -> None:
    """Fill a polygon of a picture, float32 [H, W, 3], with a texture, its edges anti-aliased. matrix: texture pixels to the picture's."""
    x, y, width, height = cv2.boundingRect(points.astype(np.float32))
    left, top = max(x - 1, 0), max(y - 1, 0)
    right, bottom = min(x + width + 2, shown.shape[1]), min(y + height + 2, shown.shape[0])
    if left >= right or top >= bottom:
        return
    cover = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(cover, [fixed(points - (left, top))], 255, cv2.LINE_AA, SHIFT)
    filled = warped(texture, np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix, cover.shape)
    place = shown[top:bottom, left:right]
    place += cover[..., None] / np.float32(255) * (filled - place)


# -- files ------------------------------------------------------------------------------------------------------------


def write_takes(root: Path, scenes: Sequence[Scene], traps: bool = False) -> Iterator[Scene]:
    """Write relations_val.json, split.json and the processed takes into `root`, take after take; yields each when its folder is whole.

    traps: as the official tools leave real data: a mask that cannot be decoded, a camera without pictures, split_checking.json.
    """
    root.mkdir(parents=True, exist_ok=True)
    annotations = {}
    for scene in scenes:
        tracks = _tracks(scene)
        if traps:
            _spoil(tracks)
        annotations[scene.uid] = {
            "take_name": scene.name,
            "scenario": "Drawing",
            "object_names": {"annotation": list(tracks)},
            "object_masks": tracks,
        }
        _write_processed(root / scene.uid, scene, tracks)
        yield scene
    uids = [scene.uid for scene in scenes]
    (root / "relations_val.json").write_text(json.dumps({"version": "drawn", "annotations": annotations}))
    (root / "split.json").write_text(json.dumps({"train": [], "val": uids, "test": []}))
    if traps:
        (root / "split_checking.json").write_text(json.dumps({"train": [], "val": uids[:1], "test": []}))


def _tracks(scene: Scene) -> dict[str, dict]:
    """Every thing in every camera that sees it: its masks, and the frames on which somebody looked. The last is in the ego camera alone."""
    tracks: dict[str, dict] = {thing.name: {} for thing in scene.things}
    for camera in scene.cameras:
        maps = {frame: scene.labels(camera, frame, camera.full_hw) for frame in scene.frames}
        for number, thing in enumerate(scene.things[: None if camera.name == EGO else -1], start=1):
            masks = {str(frame): labels == number for frame, labels in maps.items()}
            found = {frame: _encoded(mask) for frame, mask in masks.items() if mask.mean() >= LEAST_SHARE}
            if found:
                tracks[thing.name][camera.name] = {"annotation": found, "annotated_frames": list(scene.frames)}
    return tracks


def _encoded(mask: np.ndarray) -> dict[str, object]:
    height, width = mask.shape
    return {"width": width, "height": height, "encodedMask": compress(rle.encode(mask).counts.decode())}


def _spoil(tracks: dict[str, dict]) -> None:
    """Make the first exo mask one that cannot be decoded."""
    masks = next(track["annotation"] for cameras in tracks.values() for camera, track in cameras.items() if camera != EGO)
    spoilt = next(iter(masks.values()))
    spoilt["encodedMask"] = spoilt["encodedMask"][: len(spoilt["encodedMask"]) // 2]


def _write_processed(folder: Path, scene: Scene, tracks: dict[str, dict]) -> None:
    from .data import stored_rle  # what a reader makes of a mask: null where it cannot be decoded

    for camera in scene.cameras:
        (folder / camera.name).mkdir(parents=True, exist_ok=True)
        for frame in scene.frames if camera is not LOW else ():
            bgr = cv2.cvtColor(scene.picture(camera, frame), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / camera.name / f"{frame}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    masks = {
        name: {
            camera: {frame: found and rle_json(found) for frame, stored in track["annotation"].items() for found in [stored_rle(stored)]}
            for camera, track in cameras.items()
        }
        for name, cameras in tracks.items()
    }
    (folder / "annotation.json").write_text(json.dumps({"masks": masks, "subsample_idx": list(scene.frames)}))


def scenes_command(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder for the takes.")],
    takes: Annotated[int, typer.Option(min=1, help="How many takes.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Pictures of each camera, one a second.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the first take; the others count on.")] = 0,
    traps: Annotated[bool, typer.Option("--traps", help="With the damage that real data has.")] = False,
) -> None:
    """Draw takes with known truth in the layout of Ego-Exo4D correspondence."""
    scenes = [draw_scene(seed + number, frames, traps) for number in range(takes)]
    for _ in track(write_takes(root, scenes, traps), "drawing takes", total=takes):
        pass


if __name__ == "__main__":
    typer.run(scenes_command)

"""Clips from unlabelled real video: `prepare` mines it once into a folder, `load_real` samples augmented clips from there.

A stored file is one anchor frame, a frame some steps later and the next one after that, with every region that motion could be trusted
to carry through all three. Masks are as good as flow and graph segments are: no names, no colours, hence no sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

import cv2
import numpy as np
from rich.progress import track

from ...stream.errors import BadInput
from .clip import Clip, Thing
from .lens import Lens
from .mining import chain, consistent, dis, find_regions, follow, snap
from .paths import picture_size

VIDEOS = ("bedroom.mp4", "cups.mp4", "gallery/*.mp4")  # and no other: evaluation sequences must stay unseen
SHORT_SIDE = 256
PADDING = 128


@dataclass(frozen=True, slots=True)
class Mining:
    """How densely video is mined: an anchor every `every` frames, followed for 1 to `longest` frames."""

    every: int = 4
    longest: int = 7
    regions: int = 12
    seed: int = 0


def prepare(videos_dir: FilePath, out_dir: FilePath, mining: Mining | None = None) -> int:
    """Mine the videos VIDEOS names under `videos_dir` into `out_dir`, one .npz an anchor; returns the number of region tracks.

    A few minutes on one core. Raises BadInput when no such video is there.
    """
    mining = mining or Mining()
    videos = sorted(path for pattern in VIDEOS for path in FilePath(videos_dir).glob(pattern))
    if not videos:
        raise BadInput(f"no video found under {videos_dir}, expected some of {VIDEOS}; pass the folder that holds them")
    out = FilePath(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rng, tracks = np.random.default_rng(mining.seed), 0
    for video in track(videos, description="mining video"):
        for name, images, masks in _triples(_frames(video), rng, mining):
            _store(out / f"{video.stem}-{name:05d}.npz", images, masks)
            tracks += len(masks)
    return tracks


def _frames(video: FilePath) -> Iterator[np.ndarray]:
    """Frames as RGB, short side SHORT_SIDE."""
    reader = cv2.VideoCapture(str(video))
    while True:
        ok, frame = reader.read()
        if not ok:
            return
        zoom = SHORT_SIDE / min(frame.shape[:2])
        small = cv2.resize(frame, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        yield np.ascontiguousarray(small[..., ::-1])


def _triples(frames: Iterator[np.ndarray], rng: np.random.Generator, mining: Mining) -> Iterator[tuple[int, list[np.ndarray], np.ndarray]]:
    """(anchor index, three frames, masks bool [R, 3, H, W]) for every anchor with at least one trusted region."""
    flow, images, forward, backward = dis(), [], [], []
    for index, image in enumerate(frames):
        if images:
            grey = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (images[-1], image)]
            forward.append(flow.calc(grey[0], grey[1], None))
            backward.append(flow.calc(grey[1], grey[0], None))
        images.append(image)
        if len(images) <= mining.longest:
            continue
        first = index - mining.longest
        if first % mining.every == 0:
            last = int(rng.integers(2, mining.longest + 1))
            masks = _tracks(images, forward, backward, (last - 1, last), mining.regions)
            if len(masks):
                yield first, [images[i] for i in (0, last - 1, last)], masks
        for window in (images, forward, backward):
            window.pop(0)


def _tracks(images: list, forward: list, backward: list, steps: tuple[int, int], limit: int) -> np.ndarray:
    h, w = images[0].shape[:2]
    regions = find_regions(images[0], chain(forward[:4]), limit)
    ways = []
    for step in steps:
        there, back = chain(forward[:step]), chain(backward[:step][::-1])
        ways.append((there, back, consistent(there, back), images[step]))
    kept = []
    for region in regions:
        mask = snap(region.mask, images[0])
        if mask.any():
            carried = [follow(mask, *way) for way in ways]
            if all(m is not None for m in carried):
                kept.append([mask, *carried])
    return np.array(kept, bool).reshape(-1, 3, h, w)


def _store(path: FilePath, images: list[np.ndarray], masks: np.ndarray) -> None:
    jpegs = {f"image{i}": cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1] for i, image in enumerate(images)}
    np.savez_compressed(path, masks=np.packbits(masks, axis=-1), shape=np.array(masks.shape), **jpegs)


def read(path: FilePath, frames: tuple[int, ...] = (0, 1, 2)) -> tuple[list[np.ndarray], np.ndarray]:
    """One stored anchor: the asked of its three RGB frames, uint8 [H, W, 3], and masks bool [R, 3, H, W], the best region first."""
    with np.load(path) as stored:
        images = [np.ascontiguousarray(cv2.imdecode(stored[f"image{i}"], cv2.IMREAD_COLOR)[..., ::-1]) for i in frames]
        shape = tuple(stored["shape"])
        return images, np.unpackbits(stored["masks"], axis=-1, count=shape[-1]).astype(bool)


@dataclass(frozen=True, slots=True)
class Real:
    """A sampler over the files `prepare` left. `draw(rng)` is a pure function of its generator."""

    files: tuple[FilePath, ...]

    def draw(self, rng: np.random.Generator, size: int = 256) -> Clip:
        """A clip of three frames with 1 to 4 labelled regions that do not overlap; cropped, turned, flipped, recoloured at random."""
        while True:
            images, masks = read(self.files[rng.integers(len(self.files))])
            labels = disjoint(masks, rng)
            clip = _augment(images, labels, rng, size)
            if all((clip.labels[t] == 1).sum() > 40 for t in (0, 1, 2)):
                return clip


def load_real(out_dir: FilePath) -> Real:
    """A sampler of the clips that `prepare` left in `out_dir`. Raises BadInput when there are none."""
    files = tuple(sorted(FilePath(out_dir).glob("*.npz")))
    if not files:
        raise BadInput(f"no .npz file in {out_dir}, expected those that prepare() writes; run it on a folder of videos first")
    return Real(files)


def disjoint(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Label maps uint8 [3, H, W] of up to four random regions, the better ones likelier, none hiding 3 % of another; the first is 1."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    count = 0
    odds = 0.8 ** np.arange(len(masks))
    for i in rng.choice(len(masks), len(masks), replace=False, p=odds / odds.sum()):
        hidden = (labels > 0) & masks[i]
        if count < 4 and hidden.sum() < 0.03 * masks[i].sum():
            count += 1
            labels[masks[i] & (labels == 0)] = count
    return labels


def _augment(images: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator, size: int) -> Clip:
    """Through one random affine view (with a little camera shake between frames), one lens, into the padded square."""
    order = slice(None, None, -1) if rng.random() < 0.2 else slice(None)
    images, labels = images[order], labels[order]
    h, w = valid_hw = picture_size(rng, size)
    ys, xs = np.nonzero(labels[0] == 1)
    focus = np.array([xs.mean(), ys.mean()]) if len(ys) else np.array(images[0].shape[1::-1]) / 2
    fit = max(h / images[0].shape[0], w / images[0].shape[1])
    view = _view(rng, focus, images[0].shape[:2], valid_hw, fit)
    shake = rng.choice([0.0, 0.0, 0.01, 0.03])
    lens = Lens(rng, valid_hw) if rng.random() < 0.6 else None
    out = np.full((3, size, size, 3), PADDING, np.uint8)
    marked = np.zeros((3, size, size), np.uint8)
    for t in range(3):
        matrix = view.copy()
        matrix[:, 2] += rng.normal(0, 1, 2) * shake * (w, h)
        picture = cv2.warpAffine(images[t], matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        out[t, :h, :w] = lens.expose(rng, picture, float(t)) if lens else picture
        marked[t, :h, :w] = cv2.warpAffine(labels[t], matrix, (w, h), flags=cv2.INTER_NEAREST)
    return Clip(out, marked, things_of(marked), valid_hw)


def _view(rng: np.random.Generator, focus: np.ndarray, from_hw: tuple[int, int], to_hw: tuple[int, int], fit: float) -> np.ndarray:
    """Source to picture, float [2, 3]: zoomed 1 to 2 times about the focus, turned and flipped a little, covering the picture."""
    zoom = fit * (1.0 if rng.random() < 0.3 else rng.uniform(1, 2.0))
    half = np.array(to_hw[::-1]) / 2 / zoom
    wanted = focus + rng.normal(0, 0.4, 2) * half
    centre = np.clip(
        wanted, np.minimum(half, np.array(from_hw[::-1]) / 2), np.maximum(np.array(from_hw[::-1]) - half, np.array(from_hw[::-1]) / 2)
    )
    a = rng.normal(0, 0.1) if rng.random() < 0.4 else 0.0
    linear = zoom * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
    return np.concatenate([linear, (np.array(to_hw[::-1]) / 2 - linear @ centre)[:, None]], 1)


def things_of(labels: np.ndarray) -> tuple[Thing, ...]:
    """Nameless, colourless things, one a label: nothing true can be said of them by rule."""
    return tuple(Thing(int(i), "", "", "") for i in np.unique(labels) if i)

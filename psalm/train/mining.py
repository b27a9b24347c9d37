"""Object-like regions of unlabelled video, and where motion takes them: pairs and triples for self-supervised training.

Motion is OpenCV's dense DIS flow, trusted only where going there and back again ends where it began. What is kept on disk, and how it
is sampled, is real.py's affair.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

MIN_SHARE, MAX_SHARE = 0.005, 0.40
CONSISTENT = 0.7


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a frame: mask bool [H, W]; merit: how much it looks like an object of its own (motion and colour against its ring)."""

    mask: np.ndarray
    merit: float


def dis() -> cv2.DISOpticalFlow:
    """The dense flow used throughout: medium preset."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def chain(flows: list[np.ndarray]) -> np.ndarray:
    """Displacement over several steps, float32 [H, W, 2] (x, y): the flows, each from one frame to the next, walked one after another."""
    h, w = flows[0].shape[:2]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    at = grid.copy()
    for flow in flows:
        at += cv2.remap(flow, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return at - grid


def consistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Where `there` followed by `back` returns to within 1.5 px + 5 % of the way, inside the picture; bool [H, W]."""
    h, w = there.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    at = grid + there
    returned = there + cv2.remap(back, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (at[..., 0] >= 0) & (at[..., 0] < w) & (at[..., 1] >= 0) & (at[..., 1] < h)
    return inside & (np.linalg.norm(returned, axis=-1) < 1.5 + 0.05 * np.linalg.norm(there, axis=-1))


def snap(mask: np.ndarray, image: np.ndarray, radius: int = 5) -> np.ndarray:
    """The mask with its border drawn to nearby edges of the picture, bool [H, W].

    Source: K. He, J. Sun, X. Tang, Guided Image Filtering, ECCV 2010 (grey guide, eps 1e-3).
    """
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    value, size = mask.astype(np.float32), (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_v = cv2.blur(guide, size), cv2.blur(value, size)
    a = (cv2.blur(guide * value, size) - mean_g * mean_v) / (cv2.blur(guide * guide, size) - mean_g**2 + 1e-3)
    b = mean_v - a * mean_g
    return cv2.blur(a, size) * guide + cv2.blur(b, size) > 0.5


def residual_motion(flow: np.ndarray) -> np.ndarray:
    """Flow less the camera's part of it (an affine fit by RANSAC), float32 [H, W, 2]."""
    h, w = flow.shape[:2]
    y, x = np.mgrid[4:h:8, 4:w:8]
    points = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    fit, _ = cv2.estimateAffine2D(points, points + flow[y, x].reshape(-1, 2), ransacReprojThreshold=1.0)
    if fit is None:
        return flow - np.median(flow, (0, 1))
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    return flow - (grid @ fit[:, :2].T.astype(np.float32) + fit[:, 2].astype(np.float32) - grid)


def find_regions(image: np.ndarray, flow: np.ndarray, limit: int = 10) -> list[Region]:
    """Up to `limit` object-like regions of a frame, the best first, no two nearly equal.

    image: uint8 [H, W, 3] RGB; flow: displacement to a frame a few steps later. Candidates: fine segments that together move against
    the camera, at three strengths; coarse segments of colour and motion. Judged at half resolution, which is four times as fast.
    """
    h, w = image.shape[:2]
    half = (w // 2, h // 2)
    motion = cv2.resize(residual_motion(flow), half, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.resize(image, half, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)
    masks = _moving(_graph(lab, motion, 0.4), motion)
    for scale in (1.5, 6):
        masks += [part for labels in [_graph(lab, motion, scale)] for i in np.unique(labels) for part in _pieces(labels == i)]
    found = [Region(mask, _merit(mask, motion, lab)) for mask in masks]
    found.sort(key=lambda region: -region.merit)
    kept: list[Region] = []
    for region in found:
        if len(kept) < limit and all(_overlap(region.mask, other.mask) < 0.7 for other in kept):
            kept.append(region)
    return [Region(cv2.resize(k.mask.astype(np.float32), (w, h)) > 0.5, k.merit) for k in kept]


def _graph(lab: np.ndarray, motion: np.ndarray, scale: float) -> np.ndarray:
    """Graph segments of colour and motion, int [H, W]; source: Felzenszwalb and Huttenlocher 2004, as scikit-image has it."""
    moved = 60 * np.tanh(motion / max(float(np.percentile(np.abs(motion), 99)), 1.0))
    features = np.concatenate([lab, moved], -1) / 255
    smallest = int((0.2 if scale < 1 else 1) * MIN_SHARE * lab.shape[0] * lab.shape[1])
    with warnings.catch_warnings():  # five channels are meant
        warnings.simplefilter("ignore", RuntimeWarning)
        return felzenszwalb(features, scale=scale, sigma=0.6, min_size=smallest, channel_axis=-1)


def _moving(labels: np.ndarray, motion: np.ndarray) -> list[np.ndarray]:
    """Connected unions of the segments that move: whole objects of many colours, with borders on edges and not where flow bleeds."""
    speed = np.linalg.norm(motion, axis=-1)
    top = float(np.percentile(speed, 98.5))
    if top < 0.4:
        return []
    sizes = np.maximum(np.bincount(labels.ravel()), 1)
    typical = (np.bincount(labels.ravel(), speed.ravel()) / sizes)[labels]
    return [part for share in (0.25, 0.4, 0.6) for part in _pieces(typical > share * top)]


_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def _pieces(where: np.ndarray) -> list[np.ndarray]:
    """Connected pieces of a fitting size, small holes closed."""
    binary = cv2.morphologyEx(where.astype(np.uint8), cv2.MORPH_CLOSE, _DISC)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary)
    fit = [i for i in range(1, count) if MIN_SHARE <= stats[i, cv2.CC_STAT_AREA] / binary.size <= MAX_SHARE]
    opened = [cv2.medianBlur((labels == i).astype(np.uint8), 5).astype(bool) for i in fit]
    return [mask for mask in opened if mask.mean() >= MIN_SHARE]


def _merit(mask: np.ndarray, motion: np.ndarray, lab: np.ndarray) -> float:
    """Motion against the surrounding ring counts most, then colour, then compactness; lying along the picture's border costs."""
    solid = mask.astype(np.uint8)
    ring = cv2.dilate(solid, _DISC, iterations=2).astype(bool) & ~mask
    if not ring.any():
        return 0.0
    apart = float(np.linalg.norm(motion[mask].mean(0) - motion[ring].mean(0)))
    colour = float(np.linalg.norm(lab[mask].mean(0) - lab[ring].mean(0)))
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    edge = (mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()) / np.sqrt(mask.sum())
    return float(np.tanh(apart / 1.5) + 0.5 * np.tanh(colour / 40) + 0.5 * mask.sum() / max(hull, 1) - 0.3 * min(edge, 2))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def follow(mask: np.ndarray, there: np.ndarray, back: np.ndarray, good: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """The mask on a later frame, bool [H, W], or None where motion cannot be trusted with it.

    there, back: displacement to the later frame and from it; good: `consistent(there, back)`; image: the later frame.
    """
    if good[mask].mean() < CONSISTENT:
        return None
    h, w = mask.shape
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    value = cv2.remap(mask.astype(np.float32), grid + back, None, cv2.INTER_LINEAR)
    moved = snap(value > 0.5, image)
    ratio = moved.sum() / mask.sum()
    return moved if 0.6 < ratio < 1.7 else None

"""`psalm-stream demo`: a first look for who has no prompt, or not even a video, at hand.

Chooses an input and a prompt for `psalm-stream run`, which does everything else. Without a video it takes cups.mp4 of the shared videos
when that is there, else it draws a short clip.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from ..stream.sinks import VideoWriter
from ..stream.sources import open_source

CUPS = Path("../shared/videos/cups.mp4")
CUPS_PROMPT = ("--box", "1:572,292,736,542", "--box", "2:832,292,998,542", "--box", "3:362,422,440,502")
DRAWN_FRAMES, DRAWN_FPS, WIDTH, HEIGHT = 48, 24, 480, 270
SHAPES = (((225, 120, 40), 24, 1.0), ((70, 190, 230), 5, 0.45), ((200, 60, 110), 2, 0.7))  # colour, corners, inner radius
PROMPT_FLAGS = ("--mask", "--point", "--box", "--scribble")


def demo_arguments(video: str | None, extra: list[str], out: Path) -> tuple[list[str], str]:
    """Arguments for `run`, and one line that says what was chosen. extra: more flags of `run`; prompts among them are taken as they are."""
    if video is not None and video.startswith("-"):  # flags without a video: the first one was taken for it
        video, extra = None, [video, *extra]
    run = ["--out", str(out), "--overwrite", *extra]
    prompted = any(word.split("=")[0] in PROMPT_FLAGS for word in extra)
    if video is None and CUPS.exists():
        return [str(CUPS), *([] if prompted else CUPS_PROMPT), *run], f"no video given: taking {CUPS}, two cups and the ball"
    if video is None:
        clip, mask = draw(out.parent / f"{out.name}-input")
        return [str(clip), *([] if prompted else ("--mask", str(mask))), *run], f"no video given: drew a short clip, {clip}"
    if prompted:
        return [video, *run], f"segmenting {video}"
    box = middle_box(video)
    return [video, "--box", f"1:{box}", *run], f"no prompt given: taking the middle of the first frame, --box 1:{box}"


def middle_box(video: str) -> str:
    """The middle half of a video's first frame as x0,y0,x1,y1 in pixels. Raises SourceFailed."""
    with open_source(video, session="demo", limit=1) as source:
        height, width = source.size_hw
    return f"{width // 4},{height // 4},{width - width // 4},{height - height // 4}"


def draw(folder: Path) -> tuple[Path, Path]:
    """Draw a clip of a disc, a star and a diamond on their ways: writes clip.mp4 and the first frame's objects, mask.png, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(7).integers(0, 255, (9, 16), np.uint8)
    backdrop = cv2.merge([offset + cv2.resize(grain, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) // 3 for offset in (60, 75, 55)])
    with closing(VideoWriter(folder / "clip.mp4", DRAWN_FPS)) as video:
        for index in range(DRAWN_FRAMES):
            image, labels = backdrop.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
            for object_id, (colour, corners, inner) in enumerate(SHAPES, start=1):
                outline = _outline(object_id, corners, inner, index / DRAWN_FRAMES)
                cv2.fillPoly(image, [outline], colour, cv2.LINE_AA)
                cv2.fillPoly(labels, [outline], object_id)
            video.write(image)
            if index == 0:
                cv2.imwrite(str(folder / "mask.png"), labels)
    return folder / "clip.mp4", folder / "mask.png"


def _outline(number: int, corners: int, inner: float, time: float) -> np.ndarray:
    """A regular shape turning along its own arc at time 0..1: int32 [2 * corners, 2] pixels."""
    angle = np.pi * np.arange(2 * corners) / corners + 2 * time * (-1) ** number
    radius = 46 * np.where(np.arange(2 * corners) % 2, inner, 1.0)
    centre = WIDTH * (0.2 * number + 0.25 * time), HEIGHT * (0.5 + 0.25 * np.sin(2.5 * time + 2 * number))
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1).round().astype(np.int32)

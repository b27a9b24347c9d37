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
DRAWN_FRAMES, DRAWN_SIDE, DRAWN_FPS = 48, 384, 24
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
    """Draw a clip of moving things: writes clip.mp4 and the first frame's objects, mask.png, into `folder`."""
    from ..psalm.train.scenes import draw_clip

    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_clip(np.random.default_rng(7), DRAWN_SIDE, DRAWN_FRAMES + 1)
    height, width = drawn.valid_hw
    with closing(VideoWriter(folder / "clip.mp4", DRAWN_FPS)) as video:
        for image in drawn.images[1:]:
            video.write(image[:height, :width])
    even = ((0, height % 2), (0, width % 2))
    cv2.imwrite(str(folder / "mask.png"), np.pad(drawn.labels[1, :height, :width], even))
    return folder / "clip.mp4", folder / "mask.png"

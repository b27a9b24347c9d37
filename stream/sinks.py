"""MaskFrames -> files: indexed PNGs with the DAVIS palette, JSON lines, an overlay video.

Each sink takes every frame once, in order, with its answer; what is written stays readable when a run is interrupted, the overlay video
once it is closed. How a frame is painted lives in paint.py.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from PIL import Image

from .codec import mask_frame_json
from .errors import Undecodable
from .paint import PALETTE, label_map, overlay
from .types import Frame, MaskFrame


class Sink(Protocol):
    """Where answers go."""

    def write(self, frame: Frame | None, mask_frame: MaskFrame) -> None:
        """Take the next frame and its answer. None: the frame is not kept anywhere any more."""

    def close(self) -> None:
        """Finish what is being written; nothing may follow. May be called twice."""


class PaletteSink:
    """`00000.png ...` in a folder, by frame index: indexed PNG of the source's size, value = object id, DAVIS palette."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, frame: Frame | None, mask_frame: MaskFrame) -> None:
        """Write one file."""
        write_label_map(self.folder / f"{mask_frame.key.index:05d}.png", label_map(mask_frame))

    def close(self) -> None:
        """Nothing is open between frames."""


def write_label_map(target: Path, labels: np.ndarray) -> None:
    """Write object ids, uint8 [H, W], as an indexed PNG; under another name first, so that a file of the final name is whole."""
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    part = target.with_suffix(".part")
    image.save(part, format="PNG")
    os.replace(part, target)


class JsonLinesSink:
    """One MaskFrame a line (codec.mask_frame_json); a line is handed to the system as soon as it is whole."""

    def __init__(self, path: Path | str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)

    def write(self, frame: Frame | None, mask_frame: MaskFrame) -> None:
        """Append one line."""
        self._file.write(json.dumps(mask_frame_json(mask_frame), ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class OverlaySink:
    """An H.264 mp4 of the frames under their masks, as large as the first frame; other sizes are letterboxed into it."""

    def __init__(self, path: Path | str, fps: float) -> None:
        self._video = VideoWriter(path, fps)
        self._size_hw: tuple[int, int] | None = None

    def write(self, frame: Frame | None, mask_frame: MaskFrame) -> None:
        """Paint and encode one frame; the masks of one that is gone are drawn on black."""
        self._size_hw = self._size_hw or mask_frame.size_hw
        try:
            image = np.zeros((*mask_frame.size_hw, 3), np.uint8) if frame is None else frame.pixels()
        except Undecodable:  # answered as such: the overlay says so on black
            image = None
        self._video.write(overlay(image, mask_frame, self._size_hw))

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        self._video.close()


class VideoWriter:
    """An H.264 mp4 of RGB pictures of one size, uint8 [H, W, 3]; odd sides are padded by one pixel, as yuv420p wants."""

    def __init__(self, path: Path | str, fps: float) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(
            "libx264", Fraction(fps).limit_denominator(1001), options={"crf": "20", "preset": "veryfast"}
        )
        self._stream.pix_fmt = "yuv420p"
        self._started = False

    def write(self, rgb: np.ndarray) -> None:
        """Encode one picture."""
        height, width = rgb.shape[:2]
        if not self._started:
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
            self._started = True
        even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def close(self) -> None:
        """Encode what is still in the encoder and finish the file. May be called twice."""
        if self._started:
            self._container.mux(self._stream.encode())
            self._started = False
        self._container.close()

"""An input -> Frames: video file, folder of pictures, single picture, HTTP / HLS / RTSP URL, camera.

Pictures of a folder pass through untouched; video is decoded, turned upright and encoded once by video.py. Nothing here reconnects
or drops frames (capture.py), or publishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

from .errors import SourceFailed, Undecodable
from .pictures import displayed_size
from .types import Frame, FrameKey
from .url import is_camera, is_url
from .video import Access, Encoded, Opened, Picture, open_video

FOLDER_FPS = 24.0  # pictures carry no clock: a folder plays at DAVIS' rate
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(slots=True)
class Source:
    """An opened input: iterate it once for its Frames; a context manager that closes it.

    fps: pictures per second, nominal; frames: how many to expect, None when nobody can say; size_hw: of the first picture; live: whether
    the input waits for nobody. Iterating raises SourceFailed where the input is damaged or goes away, after the frames before it.
    """

    fps: float
    frames: int | None
    size_hw: tuple[int, int]
    live: bool
    _iterator: Iterator[Frame] = field(repr=False)
    _close: Callable[[], None] = field(repr=False)

    def __iter__(self) -> Iterator[Frame]:
        return self._iterator

    def close(self) -> None:
        """Let go of the file, socket or device. May be called twice."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(url: str, *, session: str, view: str = "main", limit: int | None = None) -> Source:
    """Open a path, URL or camera (`camera:0`, `/dev/video0`) as one view of a session; at most `limit` frames of it.

    Capture clock: a file's presentation times from its first frame on; a folder's index / FOLDER_FPS; live: the host's clock at the first
    packet plus presentation times since. The first picture is read here. Raises SourceFailed, without the credentials of a URL.
    """
    opened = open_input(url)
    frames = (
        Frame(FrameKey(session, view, index), picture.t_ns, opened.live, *picture.encode())
        for index, picture in enumerate(islice(opened.pictures, limit))
    )
    expected = opened.count if limit is None or opened.count is None else min(limit, opened.count)
    return Source(opened.fps, expected, opened.size_hw, opened.live, frames, opened.close)


def open_input(url: str, access: Access | None = None) -> Opened:
    """Open a path, URL or camera for its pictures; the first is read here. Raises SourceFailed, without the credentials of a URL."""
    path = Path(url)
    if is_url(url) or is_camera(url):
        return open_video(url, access)
    if path.is_dir():
        return _open_pictures(sorted((p for p in path.iterdir() if _is_picture(p)), key=natural_order), f"folder {url}")
    if not path.exists():
        raise SourceFailed(
            f"input {url}: no such file or folder, expected a video, a picture, a folder of pictures, a URL or camera:N; check the path"
        )
    return _open_pictures([path], f"picture {url}") if _is_picture(path) else open_video(url)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key of the pictures of a folder: puts frame10 after frame9."""
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [(int(part), part) if at % 2 else (0, part) for at, part in enumerate(parts)]


def _open_pictures(paths: Sequence[Path], name: str) -> Opened:
    if not paths:
        raise SourceFailed(
            f"{name}: no picture directly in it, expected files in {', '.join(PICTURE_SUFFIXES)}; name the folder that holds them"
        )
    pictures = [Picture(round(index * 1e9 / FOLDER_FPS), None, partial(_read_picture, path)) for index, path in enumerate(paths)]
    return Opened(FOLDER_FPS, len(paths), pictures[0].encode()[0], False, iter(pictures), lambda: None)


def _read_picture(path: Path) -> Encoded:
    """Displayed size and untouched bytes of a picture file. Only its header is looked at: pixels are the business of whoever decodes."""
    try:
        data = path.read_bytes()
        return displayed_size(data), data
    except (OSError, Undecodable) as error:
        raise SourceFailed(f"picture {path}: {error}; replace it or take it out of the folder") from error

"""PyAV: the video stream of a file, URL or camera -> upright pictures with their capture times, made into JPEG when asked for.

Decoded video is encoded once, here, as JPEG quality 95 4:4:4, so that every reader sees the same pixels. Damage and timeouts become
SourceFailed. Folders of pictures, and everything about sessions and views, live in sources.py; nothing here reconnects.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from .errors import SourceFailed
from .url import is_camera, is_url, without_credentials

UNKNOWN_FPS = 25  # of a stream that does not say
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_MISSING_TAIL_S = 1.0  # a file this much shorter than its header says was cut off; encoders round durations by far less

Encoded = tuple[tuple[int, int], bytes]  # size_hw, JPEG or PNG bytes


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an input, not encoded yet: one that is left out costs no encoding.

    t_ns: capture clock; pts_ns: the stamp it came with, None without one; encode: may be called once the input is closed, in any one
    thread; of a picture file it raises SourceFailed.
    """

    t_ns: int
    pts_ns: int | None
    encode: Callable[[], Encoded]


@dataclass(slots=True)
class Opened:
    """What every kind of input comes down to.

    count: pictures to expect, None when nobody can say; size_hw: of the first picture; bursts: whether pictures come a segment at a time,
    under stamps that go on when the input is opened again (HLS).
    """

    fps: float
    count: int | None
    size_hw: tuple[int, int]
    live: bool
    pictures: Iterator[Picture]
    close: Callable[[], None]
    bursts: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """How a URL is read. transport: of RTSP, tcp or udp, "": tcp if it can; read_timeout_s: of a silent input, None: READ_TIMEOUT_S."""

    transport: str = ""
    read_timeout_s: float | None = None


class _DamagedError(Exception):
    """The stream cannot be read on; the message says why."""


@dataclass(slots=True)
class _Video:
    """An open container and what is known of the stream taken from it."""

    name: str
    container: av.container.InputContainer
    stream: av.VideoStream
    live: bool
    fps: Fraction
    strict: bool  # a packet flagged as corrupt is damage: not so in transport streams, where HLS packagers restart the counters
    silence_s: float  # without a picture, after which a live input counts as stalled
    started_ns: int | None = None  # host clock at the first packet; 0 for a file


def open_video(url: str, access: Access | None = None) -> Opened:
    """Open a path, URL or camera and decode its first frame. Raises SourceFailed, without the credentials of a URL."""
    name = f"input {without_credentials(url)}"
    access = access or Access()
    silence_s = access.read_timeout_s or READ_TIMEOUT_S
    container = _open_container(url, name, access.transport, silence_s)
    try:
        video = _video_stream(container, url, name, silence_s)
        pictures = _pictures(video)
        first = next(pictures, None)
        if first is None:
            raise SourceFailed(f"{name}: its video stream holds no frame; check that the file is complete")
        size_hw, _ = encoded = first.encode()
    except BaseException:
        container.close()
        raise
    pictures = chain([Picture(first.t_ns, first.pts_ns, lambda: encoded)], pictures)
    bursts = container.format.name == "hls"
    return Opened(float(video.fps), _expected_frames(video), size_hw, video.live, pictures, container.close, bursts)


def _open_container(url: str, name: str, transport: str, silence_s: float) -> av.container.InputContainer:
    timeout = (OPEN_TIMEOUT_S, silence_s)
    if is_url(url):
        options = {}
        if url.split("://")[0].lower() == "rtsp":
            options = {"rtsp_transport": transport} if transport else {"rtsp_flags": "prefer_tcp"}
        how = {"file": url, "timeout": timeout, "options": options}
    elif is_camera(url):
        how = {"file": url.replace("camera:", "/dev/video"), "format": "v4l2", "timeout": timeout}
    else:
        how = {"file": f"file:{url}"}  # else FFmpeg takes what stands before a colon for a protocol
    try:
        return av.open(**how)
    except (FFmpegError, ValueError) as error:  # from None: FFmpeg's message repeats the URL
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceFailed(f"{name}: cannot be opened as video ({reason}); check address, access and format") from None


def _video_stream(container: av.container.InputContainer, url: str, name: str, silence_s: float) -> _Video:
    """Pick the video stream among audio, data and subtitles."""
    stream = container.streams.best("video")
    if stream is None or container.format.name == "tty":  # FFmpeg would show a text file as a film of a terminal
        found = "text" if stream else ", ".join(s.type for s in container.streams) or "nothing"
        raise SourceFailed(f"{name}: has no video stream, only {found}; expected a video")
    if stream.codec_context is None:
        raise SourceFailed(f"{name}: no decoder for its video stream; convert it, to H.264 for example")
    stream.thread_type = "AUTO"
    scheme = url.split("://")[0].lower() if is_url(url) else ""
    live = is_camera(url) or scheme in _LIVE_SCHEMES or (scheme in ("http", "https") and container.duration is None)
    fps = stream.average_rate or stream.guessed_rate or Fraction(UNKNOWN_FPS)
    strict = not is_url(url) and container.format.name != "mpegts"
    return _Video(name, container, stream, live, fps, strict, silence_s)


def _expected_frames(video: _Video) -> int | None:
    if video.live:
        return None
    if video.stream.frames:
        return video.stream.frames
    duration_us = video.container.duration
    return None if duration_us is None else round(duration_us * video.fps / av.time_base)


def _pictures(video: _Video) -> Iterator[Picture]:
    """Every frame with its capture time. Raises SourceFailed that says where, after the last good frame."""
    reformatter = VideoReformatter()  # one for all frames: it keeps the conversion tables
    clock, matrix, count, t_ns = None, None, 0, 0
    try:
        for frame in _decoded(video):
            if clock is None:
                clock = _Clock(video.started_ns, round(10**9 / video.fps), frame.time_base or video.stream.time_base)
                matrix = _display_matrix(frame)
            t_ns = clock.at(frame.pts)
            pts_ns = None if frame.pts is None else round(frame.pts * clock.time_base * 10**9)
            yield Picture(t_ns, pts_ns, partial(_jpeg, frame, reformatter, matrix))
            count += 1
    except _DamagedError as damage:
        at = f"after frame {count - 1} ({(t_ns - video.started_ns) / 1e9:.2f} s)" if count else "before its first frame"
        remedy = "check the network and the sender" if video.live else "use a complete copy, or convert what is left of it with ffmpeg"
        raise SourceFailed(f"{video.name}: {damage} {at}; {remedy}") from None


def _jpeg(frame: av.VideoFrame, reformatter: VideoReformatter, matrix: bytes | None) -> Encoded:
    image = _upright(reformatter.reformat(frame, format="bgr24").to_ndarray(), matrix)
    return image.shape[:2], cv2.imencode(".jpg", image, _JPEG)[1].tobytes()


def _decoded(video: _Video) -> Iterator[av.VideoFrame]:
    """Frames in display order. At damage the decoder is drained, then _DamagedError is raised; live streams play on over bad packets."""
    last, waited_since_s = None, time.monotonic()
    try:
        for packet in video.container.demux(video.stream):
            if video.started_ns is None:
                video.started_ns = time.time_ns() if video.live else 0
            if packet.is_corrupt and video.strict:
                raise _DamagedError("is cut off or damaged")
            for last in _decode(video, packet):
                waited_since_s = time.monotonic()
                yield last
            if video.live and time.monotonic() - waited_since_s > video.silence_s:
                raise _DamagedError(f"sent no picture for {video.silence_s:.0f} s")
        _check_end(video, last)
    except (_DamagedError, FFmpegError) as error:
        with suppress(FFmpegError):
            yield from video.stream.decode(None)
        reason = str(error) if isinstance(error, _DamagedError) else f"stops ({error.strerror})"  # not the error itself: it repeats the URL
        raise _DamagedError(reason) from None


def _decode(video: _Video, packet: av.Packet) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        if not video.live:
            raise
        return []  # joined between key frames, or a packet was lost: the next key frame heals it


def _check_end(video: _Video, last: av.VideoFrame | None) -> None:
    """Raise _DamagedError when a stream ended that should have gone on; FFmpeg reports both as an ordinary end."""
    if video.live and video.container.format.name in ("rtsp", "video4linux2,v4l2"):
        raise _DamagedError("went away")
    declared_s = _declared_end_s(video)
    if last is None or last.time is None or declared_s is None:
        return
    missing_s = declared_s - last.time
    if missing_s > _MISSING_TAIL_S + 2 / video.fps:
        raise _DamagedError(f"ends {missing_s:.1f} s early")


def _declared_end_s(video: _Video) -> float | None:
    """When the stream ends by its container's header; None where FFmpeg would guess from the file's size or tail."""
    stream, container = video.stream, video.container
    if container.format.name.startswith("mov") and stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    if container.format.name.startswith("matroska"):
        tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
        if tag is not None:
            return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
        if len(container.streams) == 1 and container.duration is not None:
            return container.duration / av.time_base
    return None


@dataclass(slots=True)
class _Clock:
    """Capture time from presentation stamps; a missing or backward stamp is one nominal period after the frame before."""

    start_ns: int
    period_ns: int
    time_base: Fraction
    first_pts: int | None = None
    last_ns: int | None = None

    def at(self, pts: int | None) -> int:
        if self.first_pts is None:
            self.first_pts = pts
        t_ns = self.start_ns if pts is None else self.start_ns + round((pts - self.first_pts) * self.time_base * 10**9)
        if self.last_ns is not None and t_ns <= self.last_ns:
            t_ns = self.last_ns + self.period_ns
        self.last_ns = t_ns
        return t_ns


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    """The container's display matrix. For one frame only: PyAV ties frame and side data into a cycle, so the picture stays."""
    return next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)


def _upright(image: np.ndarray, matrix: bytes | None) -> np.ndarray:
    """The image as it is to be displayed: turned in quarters and mirrored as the display matrix says.

    Source: ISO 14496-12, transformation matrix (a b u; c d v; x y w), 16.16 fixed point: x' = a x + c y, y' = b x + d y.
    """
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32, count=5).tolist()
    across, down = a, d
    if abs(b) > abs(a):
        image, across, down = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])

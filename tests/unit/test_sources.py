"""Inputs: the displayed picture with its capture time, damage named where it is, and no password in any message."""

import gc
import threading
import time
import traceback
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from psalm_stream.stream import sources, video
from psalm_stream.stream.errors import SourceFailed
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.types import FrameKey

SHARED = Path(__file__).parents[3] / "shared" / "videos"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/videos is not there")
RED, GREEN, BLUE, GREY = (220, 40, 40), (40, 200, 40), (40, 40, 220), (128, 128, 128)


def corners(size_hw):
    """A picture that tells its eight orientations apart: red top left, green top right, blue bottom left."""
    height, width = size_hw
    image = np.full((height, width, 3), GREY, np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width - width // 2 :] = GREEN
    image[height - height // 2 :, : width // 2] = BLUE
    return image


def moving(index, size_hw):
    """Noise that the encoder cannot skip, brighter from frame to frame."""
    return np.random.default_rng(index).integers(0, 100, (*size_hw, 3), np.uint8) + np.uint8(2 * index)


def write_clip(path, images, *, fps=10, pts=None, turn=None, codec="libx264", pix_fmt="yuv420p", audio=False, options=None):
    """A clip of RGB images; pts in units of 1 / (100 fps). turn: (degrees, mirrored) of the display matrix."""
    with av.open(str(path), "w", options=options or {}) as container:
        if audio:
            sound = container.add_stream("aac", rate=16000, layout="mono")
        stream = container.add_stream(codec, rate=fps, options={"crf": "12", "g": "8"} if codec == "libx264" else {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 100 * fps)
        if turn:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 16000
            container.mux([*sound.encode(silence), *sound.encode()])
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = 100 * index if pts is None else pts[index]
            frame.time_base = Fraction(1, 100 * fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def read(url, **kwargs):
    with open_source(str(url), session="s", **kwargs) as source:
        return list(source)


def read_until_damage(url):
    """The frames before the damage, and what was said about it."""
    frames = []
    with open_source(str(url), session="s") as source, pytest.raises(SourceFailed) as failed:
        frames.extend(frame for frame in source)
    return frames, str(failed.value)


def colour_at(image, down, across):
    height, width = image.shape[:2]
    return image[round(down * (height - 1)), round(across * (width - 1))].astype(int)


# -- video files -------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("name", "count", "fps", "size_hw"), [("cups.mp4", 300, 30000 / 1001, (720, 1280)), ("bedroom.mp4", 200, 30.0, (540, 960))]
)
def test_a_real_video_says_what_it_is_and_picks_its_video_stream(name, count, fps, size_hw):
    with open_source(str(SHARED / name), session="s") as source:
        assert (source.frames, source.fps, source.size_hw, source.live) == (count, fps, size_hw, False)
        frame = next(iter(source))
    assert frame.pixels().shape == (*size_hw, 3)


@needs_shared
def test_a_real_video_is_the_picture_that_ffmpeg_decodes():
    with av.open(str(SHARED / "cups.mp4")) as container:
        truth = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    ours = read(SHARED / "cups.mp4", limit=1)[0].pixels()
    assert np.abs(ours - truth).mean() < 1.0


def test_every_frame_comes_once_in_order_under_its_key(tmp_path):
    images = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    frames = read(write_clip(tmp_path / "a.mp4", images), view="left")
    assert [f.key for f in frames] == [FrameKey("s", "left", i) for i in range(30)]
    assert np.allclose([f.pixels().mean() for f in frames], [8 * i for i in range(30)], atol=3)
    assert not any(f.live for f in frames)


def test_capture_times_are_presentation_times_from_the_first_frame_on(tmp_path):
    pts = [500, 600, 750, 760, 2000]
    frames = read(write_clip(tmp_path / "a.mkv", [corners((32, 48))] * 5, pts=pts))
    assert [f.t_ns for f in frames] == [1_000_000 * (p - 500) for p in pts]


def test_a_missing_or_backward_stamp_is_one_period_after_the_frame_before():
    clock = video._Clock(start_ns=1000, period_ns=40, time_base=Fraction(1, 10**8))
    assert [clock.at(pts) for pts in (None, 7, 9, None, 3, 30)] == [1000, 1040, 1080, 1120, 1160, 1230]


@pytest.mark.parametrize("size_hw", [(2, 2), (33, 47), (48, 17), (31, 64)])
def test_odd_sizes_stay_as_they_are(tmp_path, size_hw):
    path = write_clip(tmp_path / "a.mkv", [corners(size_hw)] * 2, codec="ffv1", pix_fmt="bgr0")
    with open_source(path, session="s") as source:
        assert source.size_hw == size_hw
        assert [f.pixels().shape[:2] for f in source] == [size_hw] * 2


def test_pictures_go_without_waiting_for_the_garbage_collector(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [moving(i, (48, 64)) for i in range(40)])
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
        read(clip)
        after = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after - before <= 1  # the first frame, whose side data was looked at


@pytest.mark.parametrize(("degrees", "turned"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_or_mirrored_video_is_shown_as_displayed(tmp_path, degrees, turned, mirrored):
    stored = corners((48, 80))
    displayed = np.rot90(stored, turned)
    displayed = displayed[:, ::-1] if mirrored else displayed
    with open_source(write_clip(tmp_path / "a.mp4", [stored] * 2, turn=(degrees, mirrored)), session="s") as source:
        assert source.size_hw == displayed.shape[:2]
        shown = next(iter(source)).pixels()
    assert shown.shape == displayed.shape
    for down, across in ((0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)):
        assert np.abs(colour_at(shown, down, across) - colour_at(displayed, down, across)).max() < 25


def test_colour_is_kept_at_full_resolution(tmp_path):
    """4:2:0 would smear the colours of alternate columns; the source encodes 4:4:4."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, ::2], image[:, 1::2] = RED, BLUE
    frame = read(write_clip(tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="bgr0"))[0]
    assert np.abs(frame.pixels().astype(int) - image).max() < 40


def test_a_limit_cuts_the_frames_and_the_expected_count(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [corners((32, 48))] * 9)
    with open_source(path, session="s", limit=4) as source:
        assert source.frames == 4
        assert len(list(source)) == 4
    with open_source(path, session="s", limit=40) as source:
        assert source.frames == 9


def test_the_count_is_estimated_when_the_container_does_not_hold_it(tmp_path):
    with open_source(write_clip(tmp_path / "a.mkv", [corners((32, 48))] * 20), session="s") as source:
        assert source.frames == 20


def test_a_name_with_a_colon_is_a_file_not_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip("a.mp4", [corners((32, 48))])
    Path("a.mp4").rename("http:a.mp4")
    assert len(read("http:a.mp4")) == 1


def whole_packets(path):
    """How many packets of a file are complete, as its container tells."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(video=0))


@pytest.mark.parametrize(
    ("suffix", "share", "audio"), [("mp4", 0.6, True), ("mp4", 0.99, False), ("mkv", 0.6, False), ("mkv", 0.6, True), ("avi", 0.6, False)]
)
def test_a_cut_off_video_gives_the_frames_before_the_cut_and_says_where(tmp_path, suffix, share, audio):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}  # the index first, as a cut file needs it
    whole = write_clip(tmp_path / f"whole.{suffix}", [moving(i, (64, 96)) for i in range(60)], audio=audio, options=options)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(Path(whole).read_bytes()[: int(Path(whole).stat().st_size * share)])
    frames, message = read_until_damage(cut)
    assert 20 <= len(frames) < 60
    assert len(frames) == whole_packets(cut)
    assert all(abs(f.pixels().mean() - (49.5 + 2 * i)) < 4 for i, f in enumerate(frames[:-5]))
    assert f"after frame {len(frames) - 1} " in message
    assert str(cut) in message
    assert len(read(whole)) == 60


def test_a_video_damaged_in_the_middle_stops_there(tmp_path):
    path = Path(write_clip(tmp_path / "a.mp4", [moving(i, (64, 96)) for i in range(60)], options={"movflags": "faststart"}))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    path.write_bytes(data)
    frames, message = read_until_damage(path)
    assert 15 <= len(frames) <= 35
    assert "Invalid data" in message
    assert f"after frame {len(frames) - 1} " in message


def test_sound_that_lasts_longer_than_the_picture_is_no_damage(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.height, picture.width, picture.pix_fmt = 32, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(picture.encode(av.VideoFrame.from_ndarray(corners((32, 48)), format="rgb24")))
        container.mux(picture.encode())
        for index in range(80):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 16000, 1024 * index
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    assert len(read(path)) == 1


# -- what cannot be opened ---------------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceFailed, match=r"nowhere\.mp4: no such file"):
        open_source(str(tmp_path / "nowhere.mp4"), session="s")


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_a_file_that_is_no_video_is_named(tmp_path, name):
    (tmp_path / name).write_text("not a video at all\n" * 50)
    with pytest.raises(SourceFailed, match=rf"{name}: (cannot be opened as video|has no video stream)"):
        open_source(str(tmp_path / name), session="s")


def test_a_file_with_sound_only_has_no_video_stream(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate = 16000
        container.mux([*sound.encode(silence), *sound.encode()])
    with pytest.raises(SourceFailed, match="no video stream, only audio"):
        open_source(str(tmp_path / "a.mp4"), session="s")


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(SourceFailed, match="camera:97"):
        open_source("camera:97", session="s")


@pytest.mark.parametrize(
    "url", ["rtsp://mallory:hunter2@127.0.0.1:9/x", "http://mallory:hun@ter2@127.0.0.1:9/a.mp4?token=hunter2", "nope://mallory:hunter2@h/a"]
)
def test_no_password_is_shown_when_a_url_fails(url):
    with pytest.raises(SourceFailed) as failed:
        open_source(url, session="s")
    shown = "".join(traceback.format_exception(failed.value))
    assert "ter2" not in shown
    assert "mallory" not in str(failed.value)
    assert "***@" in str(failed.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://cam.local:554/live", "rtsp://cam.local:554/live"),
        ("rtsp://u:p@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://u:p/w@rd@cam.local/live", "rtsp://***@cam.local/live"),
        ("https://h/a.m3u8?sig=abc", "https://h/a.m3u8?***"),
        ("me@home/what?.mp4", "me@home/what?.mp4"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert video.without_credentials(url) == shown


# -- URLs --------------------------------------------------------------------------------------------------------------


@contextmanager
def served(body, *, length, stall_at=None):
    """An HTTP server for one body: with its length said or in chunks without, going silent after `stall_at` bytes."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header(*(("Content-Length", str(len(body))) if length else ("Transfer-Encoding", "chunked")))
            self.end_headers()
            sent = body[:stall_at]
            self.wfile.write(sent if length else b"%x\r\n%s\r\n" % (len(sent), sent) if sent else b"")
            if stall_at is not None:
                over.wait(30)
            elif not length:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/clip"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_behind_a_url_waits_for_its_reader(tmp_path):
    body = Path(write_clip(tmp_path / "a.mp4", [corners((32, 48))] * 12, options={"movflags": "faststart"})).read_bytes()
    with served(body, length=True) as url, open_source(url, session="s") as source:
        assert (source.live, source.frames) == (False, 12)
        assert [f.t_ns for f in source] == [100_000_000 * i for i in range(12)]


def test_an_endless_stream_is_live_and_runs_on_the_hosts_clock(tmp_path):
    body = Path(write_clip(tmp_path / "a.ts", [corners((32, 48))] * 12)).read_bytes()
    before = time.time_ns()
    with served(body, length=False) as url, open_source(url, session="s") as source:
        opened = time.time_ns()
        assert (source.live, source.frames) == (True, None)
        frames = list(source)
    assert before <= frames[0].t_ns <= opened
    assert [f.t_ns - frames[0].t_ns for f in frames] == [100_000_000 * i for i in range(12)]
    assert all(f.live for f in frames)


@pytest.mark.parametrize("stall_at", [0, 20_000])
def test_a_server_that_goes_silent_does_not_hang_the_reader(tmp_path, monkeypatch, stall_at):
    monkeypatch.setattr(video, "OPEN_TIMEOUT_S", 1.0)
    monkeypatch.setattr(video, "READ_TIMEOUT_S", 0.5)
    body = Path(write_clip(tmp_path / "a.mkv", [moving(i, (64, 96)) for i in range(60)], options={"live": "1"})).read_bytes()
    began = time.monotonic()
    with served(body, length=False, stall_at=stall_at) as url, pytest.raises(SourceFailed, match="clip"):
        read(url)
    assert time.monotonic() - began < 10


def test_a_source_may_be_closed_twice(tmp_path):
    source = open_source(write_clip(tmp_path / "a.mp4", [corners((32, 48))] * 3), session="s")
    source.close()
    source.close()
    assert sources.FOLDER_FPS == 24.0

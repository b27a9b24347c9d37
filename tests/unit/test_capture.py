"""Capture: a file comes whole however slowly it is taken, a live input fresh however slowly it is taken, and says what is missing."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path

import av
import numpy as np
import pytest
from psalm_stream.stream import capture
from psalm_stream.stream.capture import KEPT, REPLAY_NS, Capture, Dropped, Gap, Over, Shot, shift_of, without_oldest
from psalm_stream.stream.sources import open_source
from psalm_stream.stream.video import Picture
from psalm_stream.stream.wanted import Position, Wanted
from test_sources import served, write_clip

S = 10**9
START = Position("s", "v")


def wanted(url, **how):
    return Wanted("s", "v", str(url), "r", **how)


def images(count):
    return [np.full((32, 48, 3), 3 * i, np.uint8) for i in range(count)]


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "a.mp4", images(40))


@pytest.fixture
def live(tmp_path, monkeypatch):
    """An endless stream that breaks off after 12 pictures, and plays them again to whoever comes back."""
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.05)
    body = Path(write_clip(tmp_path / "a.ts", images(12))).read_bytes()
    with served(body, length=False) as url:
        yield url


def take(capture, number=None, timeout_s=60.0):
    """The next `number` items, or all up to the last."""
    items, until = [], time.monotonic() + timeout_s
    while (len(items) < number) if number else not (items and isinstance(items[-1], Over)):
        assert time.monotonic() < until, items
        item = capture.take(0.1)
        if item is not None:
            items.append(item)
    return items


def taken(wanted, position=START, number=None):
    with closing(Capture(wanted, position)) as source:
        return take(source, number)


def shots(items):
    return [item for item in items if isinstance(item, Shot)]


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_in_order_as_open_source_reads_it(clip):
    *items, over = taken(wanted(clip))
    with open_source(clip, session="s", view="v") as source:
        assert [(i.index, i.t_ns, i.live, *i.encode()) for i in items] == [(f.key.index, f.t_ns, f.live, f.size_hw, f.data) for f in source]
    assert over == Over("", live=False)


@pytest.mark.parametrize("how", [{}, {"every": 3}, {"max_fps": 4.0}, {"every": 2, "max_fps": 3.0, "offset_ns": -5}])
def test_a_file_goes_on_exactly_where_it_was(clip, how):
    whole = shots(taken(wanted(clip, **how)))
    at = whole[4]
    position = replace(START, run="r", index=at.index, taken=at.taken, t_ns=at.t_ns)
    rest = shots(taken(wanted(clip, **how), position))
    assert [(s.index, s.taken, s.t_ns, s.encode()) for s in rest] == [(s.index, s.taken, s.t_ns, s.encode()) for s in whole[5:]]
    assert len(whole) > 6


def test_another_run_of_a_file_starts_it_over_under_new_indices(clip):
    first, *_ = taken(wanted(clip), Position("s", "v", run="before", index=9, taken=10), number=1)
    assert (first.index, first.taken, first.t_ns) == (10, 1, 0)


def test_a_file_waits_and_is_never_further_ahead_than_the_queue_holds(clip):
    with closing(Capture(wanted(clip), START)) as source:
        (first,) = take(source, 1)
        deadline = time.monotonic() + 10
        while len(source._items) < KEPT and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [len(source._items), source._thread.is_alive()] == [KEPT, True]
        assert [s.index for s in [first, *shots(take(source))]] == list(range(40))


def test_the_clock_of_a_view_may_be_set_off(clip):
    assert [s.t_ns for s in taken(wanted(clip, offset_ns=7), number=3)] == [7, S // 10 + 7, 2 * S // 10 + 7]


def test_a_damaged_file_gives_its_good_frames_and_then_says_what_is_wrong(clip, tmp_path):
    cut = tmp_path / "cut.mp4"
    write_clip(cut, images(40), options={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[:-300])
    *items, over = taken(wanted(cut))
    assert 0 < len(items) < 40
    assert not over.live
    assert "cut.mp4: is cut off or damaged" in over.reason


def test_a_file_that_is_not_there_is_said_to_be_gone_at_once(tmp_path):
    (over,) = taken(wanted(tmp_path / "none.mp4"))
    assert "no such file" in over.reason


# -- live inputs -------------------------------------------------------------------------------------------------------


def test_a_live_input_that_ends_is_opened_again_and_says_what_is_missing(live):
    items = taken(wanted(live), number=3 * 12 + 2)
    assert [s.index for s in shots(items)] == list(range(36))
    gaps = [(at, item) for at, item in enumerate(items) if isinstance(item, Gap)]
    assert [(at, gap.index) for at, gap in gaps] == [(12, 12), (25, 24)]
    assert "connection 2" in gaps[0][1].message
    assert "it ended" in gaps[0][1].message
    assert {s.connection for s in shots(items)} == {1, 2, 3}
    times = [s.t_ns for s in shots(items)]
    assert times == sorted(set(times))


def test_an_heir_of_a_live_input_goes_on_counting_and_reports_the_gap(live):
    now_ns = time.time_ns()
    gap, shot = taken(wanted(live), Position("s", "v", "r", index=99, taken=50, t_ns=now_ns - 5 * S, connection=3), number=2)
    assert (gap.index, shot.index, shot.taken, shot.connection) == (100, 100, 51, 4)
    assert "took over" in gap.message
    assert shot.t_ns >= now_ns


def test_a_live_input_that_nobody_takes_keeps_its_newest_pictures_and_counts_the_others(live):
    with closing(Capture(wanted(live), START)) as source:
        deadline = time.monotonic() + 20
        while source._index < 5 * 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        items = take(source, KEPT + 1)
    dropped = items[0]
    assert isinstance(dropped, Dropped)
    indices = [s.index for s in shots(items)]
    assert dropped.first == 0
    assert dropped.last >= 5 * 12 - KEPT - 1
    assert indices == list(range(dropped.last + 1, dropped.last + 1 + len(indices)))


@pytest.mark.parametrize("url", ["rtsp://mallory:hunter2@127.0.0.1:9/x?token=hunter2", "http://mallory:hunter2@127.0.0.1:9/a.ts"])
def test_an_address_where_nothing_is_is_given_up_after_the_time_it_is_allowed_without_its_password(url, caplog):
    (over,) = taken(wanted(url, give_up_s=0.3))
    assert over.live
    assert "given up" in over.reason
    assert "***@127.0.0.1:9" in over.reason
    assert "hunter2" not in over.reason + caplog.text
    assert "next try" in caplog.text


def test_a_capture_that_is_closed_stops_and_gives_nothing_out_any_more(live):
    source = Capture(wanted(live), START)
    take(source, 3)
    source.close()
    source._thread.join(10)
    assert not source._thread.is_alive()
    assert source.take(0) is None


@pytest.fixture
def playlist(tmp_path):
    """A live HLS playlist behind HTTP, of 10 pictures a second; call it to append a number of pictures."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder, written = tmp_path / "hls", count()
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def append(pictures):
        flags = {"hls_time": "1", "hls_list_size": "5", "hls_flags": "append_list+omit_endlist"}
        with av.open(str(folder / "live.m3u8"), "w", format="hls", options=flags) as container:
            stream = container.add_stream("libx264", rate=10, options={"g": "10", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for index in islice(written, pictures):
                frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 3 * index % 250, np.uint8), format="rgb24")
                frame.pts = index
                frame.time_base = Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return f"http://127.0.0.1:{server.server_port}/live.m3u8"

    yield append
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_playlist_that_stands_still_and_then_goes_on_is_played_once(playlist, monkeypatch):
    monkeypatch.setattr(capture, "PATIENCE_S", 1.5)
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.05)
    url = playlist(30)
    with closing(Capture(wanted(url), START)) as source:
        before = take(source, 30)
        assert source.take(4.0) is None  # it was opened again by now, and its last pictures came again
        playlist(20)
        gap, *behind = take(source, 21)
    assert [s.index for s in (*before, *behind)] == list(range(50))
    assert isinstance(gap, Gap)
    assert "came again" in gap.message
    stamps = [s.pts_ns for s in (*before, *behind)]
    assert stamps == sorted(set(stamps))
    times = [s.t_ns for s in (*before, *behind)]
    assert times == sorted(set(times))


# -- decisions ---------------------------------------------------------------------------------------------------------


def picture(t_s, pts_s=None):
    return Picture(round(t_s * S), None if pts_s is None else round(pts_s * S), lambda: None)


@pytest.mark.parametrize(
    ("first", "last", "bursts", "shift_s", "goes_on"),
    [
        (picture(100, 1), START, False, 0, False),  # the first connection of all
        (picture(100, 1), replace(START, t_ns=90 * S, pts_ns=50 * S), False, 0, False),  # a camera's stamps start anew
        (picture(100, 1), replace(START, t_ns=104 * S, pts_ns=50 * S), False, 4.001, False),  # behind a picture from the future
        (picture(100, 45), replace(START, t_ns=90 * S, pts_ns=50 * S), True, -15, True),  # a playlist plays its end again
        (picture(100, 60), replace(START, t_ns=90 * S, pts_ns=50 * S), True, 0, True),  # a playlist went on meanwhile
        (picture(100, 1), replace(START, t_ns=90 * S, pts_ns=50 * S), True, 0, False),  # another playlist: too far back
        (picture(100, 99), replace(START, t_ns=90 * S, pts_ns=50 * S), True, 0, False),  # another playlist: too far ahead
        (picture(400, 45), replace(START, t_ns=90 * S, pts_ns=50 * S), True, -315, True),  # a dead playlist stays the same
        (picture(100), replace(START, t_ns=90 * S, pts_ns=50 * S), True, 0, False),  # no stamps
    ],
)
def test_a_connection_is_placed_on_the_views_clock(first, last, bursts, shift_s, goes_on):
    assert shift_of(first, last, bursts, 0) == (round(shift_s * S), goes_on)


def test_a_set_off_clock_is_set_off_once():
    last = replace(START, t_ns=95 * S, pts_ns=50 * S)
    assert shift_of(picture(100, 1), START, False, 5 * S) == (5 * S, False)
    assert shift_of(picture(100, 1), last, False, 5 * S) == (5 * S, False)
    assert shift_of(picture(100, 50), last, True, 5 * S) == (-5 * S, True)
    assert REPLAY_NS == 30 * S


def shot(index):
    return Shot(index, index + 1, index, None, True, 1, lambda: None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([shot(3), shot(4)], [Dropped(3, 3), shot(4)]),
        ([Dropped(1, 2), shot(3), shot(4)], [Dropped(1, 3), shot(4)]),
        ([Gap(3, "a"), shot(3), shot(4)], [Dropped(3, 3), Gap(3, "a"), shot(4)]),
        ([Dropped(1, 2), Gap(3, "a"), shot(3), Gap(4, "b"), shot(4)], [Dropped(1, 3), Gap(3, "a"), Gap(4, "b"), shot(4)]),
        ([Dropped(1, 8), *(Gap(i, "") for i in range(9)), shot(9)], [Dropped(1, 9), *(Gap(i, "") for i in range(1, 9))]),
    ],
)
def test_the_oldest_picture_is_dropped_and_reported_in_its_place(before, after):
    strip = [replace(item, encode=None) if isinstance(item, Shot) else item for item in without_oldest(before)]
    assert strip == [replace(item, encode=None) if isinstance(item, Shot) else item for item in after]

"""What a source is to be: refused by name when it cannot, and which of its pictures are taken."""

import pytest
from psalm_stream.stream.errors import BadConfig
from psalm_stream.stream.url import absolute
from psalm_stream.stream.wanted import Sampling, Wanted

MS = 1_000_000


def taken(times_ms, **how):
    sampling = Sampling(**how)
    return [t for t in times_ms if sampling.takes(round(t * MS))]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"session": "a/b"}, "session is 'a/b'"),
        ({"view": ""}, "view is ''"),
        ({"view": "a\nb"}, "printable"),
        ({"url": ""}, "no url"),
        ({"every": 0}, "number from 1"),
        ({"max_fps": 0.0}, "0.0 pictures a second"),
        ({"max_fps": float("nan")}, "nan"),
        ({"give_up_s": -1.0}, "-1.0 s"),
        ({"transport": "pigeon"}, "'pigeon', expected tcp or udp"),
    ],
)
def test_a_source_that_cannot_be_is_refused_by_name(fields, named):
    with pytest.raises(BadConfig, match=named):
        Wanted(**{"session": "s", "view": "v", "url": "cups.mp4", "run": "r"} | fields)


def test_a_source_shows_neither_password_nor_token():
    wanted = Wanted("s", "v", "rtsp://user:secret@camera/1?token=secret", "r")
    assert wanted.shown == "rtsp://***@camera/1?***"
    assert "secret" not in repr(wanted)


def test_every_nth_picture_is_taken_from_the_first_on():
    assert taken(range(10), every=3) == [0, 3, 6, 9]
    assert taken(range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("fps", "most"), [(30, 10), (30, 30), (29.97, 30), (25, 10), (60, 24), (10, 30)])
def test_a_second_holds_no_more_pictures_than_allowed_and_none_is_left_out_without_need(fps, most):
    times = [round(i * 1e9 / fps) / MS for i in range(round(20 * fps))]
    assert abs(len(taken(times, max_fps=most)) - 20 * min(fps, most)) <= 1


def test_after_a_pause_the_rate_is_kept_from_there_on():
    assert taken([0, 50, 100, 9000, 9050, 9100, 9150], max_fps=10) == [0, 100, 9000, 9100]


def test_every_nth_is_counted_before_the_rate_is_looked_at():
    assert taken(range(0, 400, 20), every=2, max_fps=10) == [0, 120, 200, 320]


def test_a_path_is_sent_as_any_worker_finds_it_and_an_address_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("clip.mp4") == str(tmp_path / "clip.mp4")
    assert [absolute(url) for url in ("rtsp://camera/1", "camera:0")] == ["rtsp://camera/1", "camera:0"]

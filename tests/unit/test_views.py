"""Several inputs as views of one session: one order by capture time, whatever the views do."""

from contextlib import closing

import cv2
import numpy as np
import pytest
from psalm_stream.stream.errors import BadConfig, SourceFailed
from psalm_stream.stream.sinks import VideoWriter
from psalm_stream.stream.sources import FOLDER_FPS, Source
from psalm_stream.stream.views import View, Views, open_views, refuse_live
from psalm_stream.workers.view_flags import read_inputs, read_views

STEP_NS = 1e9 / FOLDER_FPS


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of so many pictures."""

    def make(name, count, size_hw=(8, 12)):
        (tmp_path / name).mkdir()
        for index in range(count):
            cv2.imwrite(str(tmp_path / name / f"{index:05}.png"), np.full((*size_hw, 3), index, np.uint8))
        return str(tmp_path / name)

    return make


def order(views, **more):
    """(view, index) of every frame, as it comes."""
    with open_views(views, session="s", **more) as opened:
        return [(frame.key.view, frame.key.index) for frame in opened]


def test_frames_come_by_capture_time_and_at_the_same_time_in_the_order_of_the_views(folder):
    a, b = folder("a", 3), folder("b", 3)
    assert order([View("ego", a), View("exo", b)]) == [("ego", 0), ("exo", 0), ("ego", 1), ("exo", 1), ("ego", 2), ("exo", 2)]
    assert order([View("exo", b), View("ego", a)])[0] == ("exo", 0)


def test_videos_stay_open_until_they_are_closed(tmp_path):
    views = []
    for name in ("ego", "exo"):
        with closing(VideoWriter(tmp_path / f"{name}.mp4", 10.0)) as video:
            for grey in range(20):
                video.write(np.full((32, 48, 3), grey, np.uint8))
        views.append(View(name, str(tmp_path / f"{name}.mp4")))
    assert order(views) == [(name, index) for index in range(20) for name in ("ego", "exo")]


def test_an_offset_moves_the_clock_of_its_view_alone(folder):
    views = [View("ego", folder("a", 3)), View("exo", folder("b", 2), offset_ns=round(1.5 * STEP_NS))]
    assert order(views) == [("ego", 0), ("ego", 1), ("exo", 0), ("ego", 2), ("exo", 1)]
    with open_views(views, session="s") as opened:
        times = {frame.key: frame.t_ns for frame in opened}
    assert times[next(k for k in times if k.view == "exo")] == round(1.5 * STEP_NS)
    assert min(t for key, t in times.items() if key.view == "ego") == 0


def test_a_view_that_ends_early_leaves_the_others_to_go_on(folder):
    assert order([View("ego", folder("a", 1)), View("exo", folder("b", 3))]) == [("ego", 0), ("exo", 0), ("exo", 1), ("exo", 2)]


def test_a_view_that_is_damaged_is_named_when_the_others_have_come_to_their_end(folder, tmp_path):
    views = [View("ego", folder("a", 4)), View("exo", folder("b", 4))]
    (tmp_path / "a" / "00001.png").write_bytes(b"no picture")
    came = []
    with open_views(views, session="s") as opened, pytest.raises(SourceFailed, match=r"^view ego: .*00001\.png"):
        came.extend((frame.key.view, frame.key.index) for frame in opened)
    assert came == [("ego", 0), ("exo", 0), ("exo", 1), ("exo", 2), ("exo", 3)]


def test_a_limit_counts_for_every_view(folder):
    views = [View("ego", folder("a", 5)), View("exo", folder("b", 3))]
    assert len(order(views, limit=2)) == 4
    with open_views(views, session="s") as opened:
        assert opened.frames == 8


def test_an_input_that_cannot_be_opened_is_named_with_its_view(folder):
    with pytest.raises(SourceFailed, match=r"^view exo: input nowhere\.mp4"):
        open_views([View("ego", folder("a", 2)), View("exo", "nowhere.mp4")], session="s")


def some_source(live):
    return Source(25.0, None, (8, 8), live, iter(()), lambda: None)


def test_views_that_are_all_files_are_read_together(folder):
    with open_views([View("ego", folder("a", 2)), View("exo", folder("b", 2))], session="s") as views:
        assert [(frame.key.view, frame.key.index) for frame in views] == [("ego", 0), ("exo", 0), ("ego", 1), ("exo", 1)]


@pytest.mark.parametrize("other", [True, False])
def test_a_live_view_is_refused_with_the_way_to_run_it(other):
    with pytest.raises(BadConfig, match=r"view door is live, expected .*ingest URL --session S --view door` to segment workers"):
        refuse_live({"film": some_source(live=False), "door": some_source(live=True), "other": some_source(other)})


def test_closing_closes_every_view_also_when_one_of_them_fails_to(folder):
    closed = []

    class Stuck:
        def close(self):
            closed.append(self)
            raise SourceFailed("stuck")

    with pytest.raises(SourceFailed, match="stuck"):
        Views((), {"a": Stuck(), "b": Stuck()}).close()
    assert len(closed) == 2


# -- flags -------------------------------------------------------------------------------------------------------------


def test_views_are_read_in_their_order_with_their_offsets():
    found = read_views(["ego=a=b.mp4", " exo = c.mp4 "], ["exo=-0.25"])
    assert found == (View("ego", "a=b.mp4"), View("exo", "c.mp4", -250_000_000))


TWO = ["ego=a.mp4", "exo=b.mp4"]


@pytest.mark.parametrize(
    ("views", "offsets", "said"),
    [
        (["ego"], [], "--view ego cannot be read, expected NAME=INPUT"),
        (["=a.mp4", "exo=b"], [], "cannot be read"),
        (["ego=", "exo=b"], [], "cannot be read"),
        (["a/b=a.mp4", "exo=b"], [], "is 'a/b', expected printable text without '/'"),
        (["run.json=a.mp4", "exo=b"], [], "that of a file of the results"),
        (["ego=a.mp4", "ego=b.mp4"], [], "view 'ego' was given before, as a.mp4"),
        (["ego=a.mp4"], [], "is the only view, expected two or more"),
        (TWO, ["exo"], "--offset exo cannot be read, expected NAME=SECONDS"),
        (TWO, ["top=1"], "view 'top' is not there, expected one of ego, exo"),
        ([], ["exo=1"], "view 'exo' is not there, expected one that --view names"),
        (TWO, ["exo=soon"], "'soon' is no number of seconds"),
        (TWO, ["exo=nan"], "'nan' is no number of seconds"),
        (TWO, ["exo=1", "exo=2"], "has an offset already"),
    ],
)
def test_views_that_make_no_sense_are_refused_by_name(views, offsets, said):
    with pytest.raises(BadConfig, match=said):
        read_views(views, offsets)


@pytest.mark.parametrize(("url", "views", "said"), [(None, [], "nothing is to be run"), ("a.mp4", TWO, "one or the other")])
def test_a_run_has_an_input_or_views(url, views, said):
    with pytest.raises(BadConfig, match=said):
        read_inputs(url, views, [])


def test_a_single_input_has_no_views():
    assert read_inputs("a.mp4", [], []) == ()

"""The overlay of several views: panels of one height, joined by time, dark where there is nothing to see."""

import av
import cv2
import numpy as np
import pytest
from psalm_stream.stream import rle
from psalm_stream.stream.side_by_side import GAP_PX, HIGHEST, WIDEST, Shape, SideBySideSink, panels
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, MaskFrame, ObjectMask, ObjectStatus

SIZE_HW = (64, 96)
BRIGHT = 150  # above it a panel shows a picture, which is 200 grey


def shown(view, index, t_s, size_hw=SIZE_HW, data=None):
    """A bright frame with nothing on it, and its answer."""
    data = cv2.imencode(".png", np.full((*size_hw, 3), 200, np.uint8))[1].tobytes() if data is None else data
    frame = Frame(FrameKey("s", view, index), round(t_s * 1e9), False, size_hw, data)
    return frame, MaskFrame(frame.key, frame.t_ns, size_hw, FrameStatus.OK, (), "m")


def video(tmp_path, moments, fps=10.0, **shapes):
    """For every picture of the video, which of two panels are bright. moments: (view, seconds), in their order."""
    path = tmp_path / "overlay.mp4"
    sink = SideBySideSink(path, {view: shapes.get(view, Shape(SIZE_HW, fps)) for view in ("ego", "exo")})
    for number, (view, t_s) in enumerate(moments):
        sink.write(*shown(view, number, t_s))
    sink.close()
    sink.close()
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    middle = pictures[0].shape[1] // 2
    return ["".join("#" if half[-20:].mean() > BRIGHT else "." for half in (p[:, :middle], p[:, middle:])) for p in pictures]


def both(*tenths):
    return [(view, n / 10) for n in tenths for view in ("ego", "exo")]


def test_two_views_in_step_give_one_picture_a_moment(tmp_path):
    assert video(tmp_path, both(0, 1, 2, 3)) == ["##"] * 4


def test_frames_go_to_the_nearest_picture(tmp_path):
    assert video(tmp_path, [("ego", 0.0), ("exo", 0.04), ("ego", 0.1), ("exo", 0.14), ("ego", 0.2), ("exo", 0.24)]) == ["##"] * 3


def test_a_frame_that_comes_shortly_before_a_picture_waits_for_it(tmp_path):
    assert video(tmp_path, [("ego", 0.0), ("exo", 0.06), ("ego", 0.1), ("exo", 0.16)]) == ["#.", "##", "##"]


def test_a_view_that_joins_late_is_dark_until_then(tmp_path):
    assert video(tmp_path, [("ego", n / 10) for n in range(4)] + both(4, 5)) == ["#."] * 4 + ["##"] * 2


def test_a_view_that_ended_is_dark_after_a_while_and_the_other_goes_on(tmp_path):
    found = video(tmp_path, [*both(0, 1), *(("exo", n / 10) for n in range(2, 12))])
    assert found == ["##"] * 7 + [".#"] * 5


def test_a_slow_view_stays_in_the_picture_between_its_frames(tmp_path):
    moments = sorted([("ego", n / 10) for n in range(25)] + [("exo", 0.0), ("exo", 1.0), ("exo", 2.0)], key=lambda m: m[1])
    assert video(tmp_path, moments, exo=Shape(SIZE_HW, 1.0)) == ["##"] * 25


def test_a_time_in_which_no_view_has_a_frame_is_cut_short(tmp_path):
    found = video(tmp_path, both(0, 1, 600, 601))
    assert len(found) < 20
    assert (found[0], found[-1]) == ("##", "##")


def test_without_a_frame_there_is_no_video_and_no_error(tmp_path):
    SideBySideSink(tmp_path / "o.mp4", {"ego": Shape(SIZE_HW, 10.0)}).close()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_is_no_picture_is_dark_and_one_that_is_gone_shows_its_masks(tmp_path):
    sink = SideBySideSink(tmp_path / "o.mp4", {"ego": Shape(SIZE_HW, 10.0), "exo": Shape(SIZE_HW, 10.0)})
    sink.write(*shown("ego", 0, 0.0, data=b"no picture"))
    _, answer = shown("exo", 0, 0.0)
    mask = ObjectMask(2, "", ObjectStatus.SEEN, 0.9, rle.encode(np.ones(SIZE_HW, bool)))
    sink.write(None, MaskFrame(answer.key, 0, SIZE_HW, FrameStatus.OK, (mask,), "m"))
    sink.close()
    with av.open(str(tmp_path / "o.mp4")) as container:
        (picture,) = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert picture[40:, : SIZE_HW[1]].max() < 40
    assert (picture[40:60, -30:-5, 1] - picture[40:60, -30:-5, 0]).mean() > 30


@pytest.mark.parametrize(
    ("sizes_hw", "height"),
    [
        ({"a": (480, 640), "b": (240, 320)}, 480),
        ({"a": (1408, 1408), "b": (2160, 3840)}, HIGHEST),
        ({str(n): (720, 1280) for n in range(5)}, 430),
        ({"a": (1, 1), "b": (1, 4000)}, 1),
    ],
)
def test_panels_have_one_height_keep_their_aspects_and_stay_within_bounds(sizes_hw, height):
    found = panels(sizes_hw)
    assert {h for h, _ in found.values()} == {height}
    assert all(abs(w - height * sizes_hw[view][1] / sizes_hw[view][0]) <= 0.5 for view, (h, w) in found.items())
    assert height == 1 or sum(w for _, w in found.values()) + GAP_PX * (len(found) - 1) <= WIDEST + len(found)

"""What a report draws: lines at their places, statuses as a band, the frames worth a picture, masks under true outlines."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from psalm_stream.eval.davis.charts import LEFT, PLOT, RIGHT, TOP, Chart, Line, spark, stacked
from psalm_stream.eval.davis.metrics import average, score_object
from psalm_stream.eval.davis.overlays import WIDTH, bright, frame_scores, picture, telling_frames

FRAMES = ("00000", "00001", "00002", "00003", "00004")


def chart(**other):
    return str(Chart(FRAMES, [Line("J", "j", [1.0, 0.5, 0.0])], other.pop("marks", {}), width=LEFT + RIGHT + 500, **other).svg())


def test_a_line_covers_the_scored_frames_between_nought_and_one_hundred():
    (points,) = re.findall(r'<polyline class="line j" points="([^"]*)"', chart())
    middles = [LEFT + 100 * (index + 0.5) for index in (1, 2, 3)]
    heights = [TOP, TOP + PLOT / 2, TOP + PLOT]
    assert [tuple(map(float, point.split(","))) for point in points.split()] == list(zip(middles, heights, strict=True))


def test_a_mark_sits_on_the_first_line():
    drawn = chart(marks={2: "w"})
    assert f'cx="{LEFT + 250:.1f}" cy="{TOP + PLOT / 2:.1f}"' in drawn
    assert ">w</text>" in drawn


def test_neighbouring_frames_of_one_status_are_one_piece_of_the_band():
    drawn = chart(statuses=("seen", "seen", "carried", "carried", "absent"))
    pieces = re.findall(r'<rect class="(seen|carried|absent)" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    assert pieces == [
        ("seen", f"{LEFT:.1f}", "200.0"),
        ("carried", f"{LEFT + 200:.1f}", "200.0"),
        ("absent", f"{LEFT + 400:.1f}", "100.0"),
    ]


def test_a_scored_frame_says_its_numbers_when_pointed_at():
    assert "<title>00002: J 50.0, carried</title>" in chart(statuses=("seen", "seen", "carried", "carried", "absent"))


def test_names_in_a_drawing_are_text():
    drawn = str(Chart(("<b>",) * 3, [Line("J", "j", [0.5])], {}).svg()) + str(stacked({"<i>": 1.0}, "ms"))
    assert "<b>" not in drawn
    assert "<i>" not in drawn


@pytest.mark.parametrize("count", [3, 9, 100, 3000])
def test_frame_names_below_a_chart_do_not_meet(count):
    names = tuple(f"{index:05d}" for index in range(count))
    drawn = str(Chart(names, [Line("J", "j", [0.5] * (count - 2))], {}).svg())
    places = [float(x) for x in re.findall(r'<text class="axis" x="([\d.]+)" y="\d+" text-anchor="middle"', drawn)]
    assert len(places) >= min(3, count)
    assert min(np.diff(places), default=100) >= 40


def test_a_stacked_bar_is_cut_in_proportion():
    widths = [float(w) for w in re.findall(r'width="([\d.]+)"', str(stacked({"a": 3.0, "b": 1.0}, "ms")))]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)


def test_a_line_in_a_table_goes_from_left_to_right():
    assert 'points="0.0,1.0 90.0,21.0"' in str(spark([1.0, 0.0]))


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_a_frames_score_is_the_mean_over_objects_of_both_measures():
    score = average([score_object(1, [1.0, 0.5], [0.0, 0.5]), score_object(2, [0.2, 0.4], [0.2, 0.4])])
    np.testing.assert_allclose(frame_scores(score), [0.35, 0.45])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 0.1, 0.5], {"best": 1, "median": 3, "worst": 2}),
        ([0.5, 0.5, 0.5], {"best": 1, "median": 2, "worst": 3}),
        ([0.2, 0.8], {"best": 2, "worst": 1}),
        ([0.2], {"best": 1}),
    ],
)
def test_the_frames_shown_are_the_best_the_median_and_the_worst(scores, expected):
    assert telling_frames(np.array(scores)) == expected


def opened(uri):
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def block(size_hw, rows, columns, value=1):
    labels = np.zeros(size_hw, np.uint8)
    labels[slice(*rows), slice(*columns)] = value
    return labels


def test_an_answer_is_filled_with_its_colour_and_the_truth_outlined_in_white(tmp_path):
    Image.new("RGB", (300, 200), (0, 0, 120)).save(tmp_path / "a.png")
    shown = opened(picture(tmp_path / "a.png", block((200, 300), (20, 180), (20, 100)), block((200, 300), (20, 180), (200, 280), 2)))
    assert np.abs(shown[100, 240] - (np.array([0, 0, 120]) + bright(2)) / 2).max() < 15
    assert shown[100, 20].min() > 200  # the left edge of the truth
    assert np.abs(shown[100, 60] - (0, 0, 120)).max() < 15  # inside it nothing is drawn


def test_a_large_frame_is_shown_smaller_and_a_missing_one_on_grey():
    shown = opened(picture(None, block((960, 1920), (0, 0), (0, 0)), block((960, 1920), (0, 0), (0, 0))))
    assert shown.shape == (WIDTH // 2, WIDTH, 3)
    assert np.abs(shown - 96).max() < 4


def test_void_in_the_truth_is_not_outlined():
    shown = opened(picture(None, block((50, 50), (10, 40), (10, 40), 255), block((50, 50), (0, 0), (0, 0))))
    assert np.abs(shown - 96).max() < 4


def noise(path, orientation=1):
    """A JPEG of noise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(128, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=90, exif=exif)
    return path


def shown_alone(path, size_hw):
    nothing = block(size_hw, (0, 0), (0, 0))
    return opened(picture(path, nothing, nothing))


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_picture_that_was_cut_off_is_shown_on_grey(kept, tmp_path):
    path = noise(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert np.abs(shown_alone(path, (200, 300)) - 96).max() < 4


def test_a_picture_is_shown_upright_as_the_tracker_saw_it(tmp_path):
    lying, upright = (shown_alone(noise(tmp_path / f"{n}.jpg", n), hw) for n, hw in ((1, (200, 300)), (6, (300, 200))))
    assert np.abs(np.rot90(lying, -1) - upright).mean() < 12

"""Answers on disk: label maps as DAVIS writes them, lines that can be read back, and an overlay that shows what happened."""

import json
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from psalm_stream.stream import paint, rle
from psalm_stream.stream.codec import mask_frame_from_json
from psalm_stream.stream.sinks import JsonLinesSink, OverlaySink, PaletteSink
from psalm_stream.stream.types import Frame, FrameKey, FrameStatus, MaskFrame, ObjectMask, ObjectStatus

GREY = 120


def frame_of(index, size_hw):
    data = cv2.imencode(".png", np.full((*size_hw, 3), GREY, np.uint8))[1].tobytes()
    return Frame(FrameKey("s", "main", index), index * 40_000_000, False, size_hw, data)


def seen(object_id, mask, score=0.9, label="", status=ObjectStatus.SEEN):
    return ObjectMask(object_id, label, status, score, rle.encode(mask))


def absent(object_id, label=""):
    return ObjectMask(object_id, label, ObjectStatus.ABSENT, 0.0, None)


def answer(frame, *objects, status=FrameStatus.OK):
    return MaskFrame(frame.key, frame.t_ns, frame.size_hw, status, objects, "m")


def block(size_hw, top, left, bottom, right):
    mask = np.zeros(size_hw, bool)
    mask[top:bottom, left:right] = True
    return mask


def painted(*objects, size_hw=(120, 160), status=FrameStatus.OK, canvas_hw=None):
    frame = frame_of(0, size_hw)
    return paint.overlay(frame.pixels(), answer(frame, *objects, status=status), canvas_hw or size_hw).astype(int)


def written(tmp_path, *sizes, fps=25.0):
    """Decode the overlay of one frame per size, each with object 2 filling it."""
    sink = OverlaySink(tmp_path / "deep" / "overlay.mp4", fps)
    for index, size_hw in enumerate(sizes):
        frame = frame_of(index, size_hw)
        sink.write(frame, answer(frame, seen(2, np.ones(size_hw, bool))))
    sink.close()
    sink.close()
    with av.open(str(tmp_path / "deep" / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        return stream, [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(stream)]


# -- label maps --------------------------------------------------------------------------------------------------------


def test_the_palette_is_that_of_davis():
    first = [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
        (192, 0, 0),
    ]
    assert [tuple(colour) for colour in paint.PALETTE[:10].tolist()] == first
    assert tuple(paint.PALETTE[255].tolist()) == (224, 224, 192)
    assert len({tuple(colour) for colour in paint.PALETTE.tolist()}) == 256


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 7), (48, 31)])
def test_a_png_holds_the_object_ids_at_source_size(tmp_path, size_hw):
    frame = frame_of(12, size_hw)
    PaletteSink(tmp_path / "masks").write(frame, answer(frame, seen(255, np.ones(size_hw, bool)), absent(3)))
    image = Image.open(tmp_path / "masks" / "00012.png")
    assert image.mode == "P"
    assert image.getpalette() == paint.PALETTE.flatten().tolist()
    assert np.array_equal(np.array(image), np.full(size_hw, 255))


def test_a_frame_without_objects_still_has_its_png(tmp_path):
    frame = frame_of(0, (5, 7))
    PaletteSink(tmp_path).write(frame, answer(frame, absent(1), status=FrameStatus.NO_PROMPT))
    assert [p.name for p in tmp_path.iterdir()] == ["00000.png"]
    assert np.array_equal(np.array(Image.open(tmp_path / "00000.png")), np.zeros((5, 7)))


def test_the_higher_score_owns_a_pixel_in_any_order():
    size_hw = (6, 6)
    strong, weak = seen(4, block(size_hw, 0, 0, 4, 4), 0.9), seen(9, block(size_hw, 2, 2, 6, 6), 0.2)
    for objects in ((strong, weak), (weak, strong)):
        labels = paint.label_map(answer(frame_of(0, size_hw), *objects))
        assert (labels[2, 2], labels[0, 0], labels[5, 5], labels[0, 5]) == (4, 4, 9, 0)


def test_an_interrupted_png_leaves_the_one_before_whole(tmp_path, monkeypatch):
    frame = frame_of(0, (5, 7))
    sink = PaletteSink(tmp_path)
    sink.write(frame, answer(frame, seen(1, np.ones((5, 7), bool))))

    def torn(self, target, **_):
        target.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        sink.write(frame, answer(frame))
    assert np.array_equal(np.array(Image.open(tmp_path / "00000.png")), np.ones((5, 7)))


# -- lines -------------------------------------------------------------------------------------------------------------


def test_lines_are_read_back_as_they_were_and_stand_in_the_file_at_once(tmp_path):
    frames = [frame_of(i, (5, 7)) for i in range(3)]
    answers = [answer(f, seen(1, block((5, 7), 0, 0, 3, 3), label="tasse ☕"), absent(2)) for f in frames]
    sink = JsonLinesSink(tmp_path / "deep" / "masks.jsonl")
    for frame, mask_frame in zip(frames, answers, strict=True):
        sink.write(frame, mask_frame)
    lines = (tmp_path / "deep" / "masks.jsonl").read_text(encoding="utf-8").splitlines()
    sink.close()
    assert [mask_frame_from_json(json.loads(line)) for line in lines] == answers


# -- overlay -----------------------------------------------------------------------------------------------------------


def test_a_mask_is_tinted_with_its_palette_colour_and_nothing_else_changes():
    image = painted(seen(2, block((120, 160), 30, 40, 90, 150)))
    assert image[80, 130].tolist() == [66, 124, 66]  # 0.55 x grey + 0.45 x (0, 128, 0)
    assert image[10, 10].tolist() == [GREY] * 3


def test_a_seen_object_has_a_whole_contour_and_a_carried_one_a_dashed_one():
    mask = block((120, 160), 30, 20, 100, 140)
    line = paint._colour(2)
    for status, least, most in ((ObjectStatus.SEEN, 1.0, 1.0), (ObjectStatus.CARRIED, 0.3, 0.8)):
        image = painted(seen(2, mask, status=status))
        drawn = (np.abs(image[99, 20:140] - line).max(axis=1) < 30).mean()
        assert least <= drawn <= most


def test_the_id_stands_at_the_widest_place_of_a_large_object():
    image = painted(seen(2, block((120, 160), 20, 60, 110, 160)))
    bright = np.argwhere((image > 220).all(axis=2))
    assert len(bright) > 5
    assert np.abs(bright.mean(axis=0) - (65, 110)).max() < 12


@pytest.mark.parametrize(("top", "where"), [(60, range(40, 60)), (2, range(8, 30))], ids=["above", "below at the upper edge"])
def test_the_id_of_a_small_object_stands_beside_it(top, where):
    image = painted(seen(2, block((120, 160), top, 80, top + 6, 86)))
    bright = np.argwhere((image > 220).all(axis=2))
    assert len(bright) > 5
    assert set(bright[:, 0]) <= set(where)


@pytest.mark.parametrize(
    ("objects", "status"),
    [((absent(3, "dog"),), FrameStatus.OK), ((), FrameStatus.DISTRUSTED), ((), FrameStatus.NO_PROMPT), ((), FrameStatus.LATE)],
)
def test_what_has_no_mask_is_said_in_the_bottom_left_corner(objects, status):
    image = painted(*objects, status=status)
    changed = np.argwhere((image != GREY).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].min() > 90
    assert changed[:, 1].min() < 10


def test_a_frame_that_is_ok_and_empty_is_the_picture_itself():
    assert (painted() == GREY).all()


def test_many_absent_objects_fill_rows_without_an_error():
    image = painted(*(absent(i, "a rather long label") for i in range(1, 40)))
    assert (image != GREY).any(axis=2).mean() > 0.3


@pytest.mark.parametrize(
    ("canvas_hw", "window"), [((100, 100), (25, 75, 0, 100)), ((200, 50), (88, 112, 0, 50)), ((50, 300), (0, 50, 100, 200))]
)
def test_a_picture_of_another_size_is_letterboxed(canvas_hw, window):
    image = painted(size_hw=(50, 100), canvas_hw=canvas_hw)
    top, bottom, left, right = window
    assert np.abs(image[top:bottom, left:right] - GREY).max() == 0
    image[max(0, top - 1) : bottom + 1, left:right] = 0
    assert image.max() == 0


def test_the_mask_of_a_letterboxed_picture_moves_with_it():
    image = painted(seen(4, block((50, 100), 0, 0, 50, 50)), size_hw=(50, 100), canvas_hw=(200, 200))
    assert (image[120, 10] != GREY).any()
    assert image[120, 150].tolist() == [GREY] * 3


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 300), (300, 2), (7, 9)])
def test_a_picture_too_small_for_its_text_is_painted_all_the_same(size_hw):
    image = painted(seen(1, np.ones(size_hw, bool), label="an elephant"), absent(2), size_hw=size_hw, status=FrameStatus.DISTRUSTED)
    assert image.shape == (*size_hw, 3)


@pytest.mark.parametrize(("size_hw", "even_hw"), [((48, 64), (48, 64)), ((47, 63), (48, 64)), ((33, 64), (34, 64)), ((1, 1), (2, 2))])
def test_the_video_has_every_frame_at_even_size(tmp_path, size_hw, even_hw):
    stream, images = written(tmp_path, *[size_hw] * 5)
    assert [image.shape for image in images] == [(*even_hw, 3)] * 5
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"


def test_the_video_plays_at_the_rate_of_the_source(tmp_path):
    stream, images = written(tmp_path, *[(48, 64)] * 30, fps=30000 / 1001)
    assert stream.average_rate * 1001 == 30000
    assert len(images) == 30


def test_the_video_shows_the_mask_in_its_colour(tmp_path):
    _, images = written(tmp_path, (96, 128))
    red, green, blue = images[0][10:20, 10:20].mean(axis=(0, 1))
    assert green - max(red, blue) > 40


def test_the_video_keeps_the_size_of_its_first_frame(tmp_path):
    _, images = written(tmp_path, (48, 64), (100, 30), (48, 64))
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert images[1][24, 2].max() < 30 < images[1][24, 32].max()


def test_a_frame_that_is_no_picture_is_said_so_on_black(tmp_path):
    broken = replace(frame_of(0, (120, 160)), data=b"no picture")
    sink = OverlaySink(tmp_path / "a.mp4", 10.0)
    sink.write(broken, answer(broken, status=FrameStatus.UNDECODABLE))
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image[:60].max() < 20
    assert image[90:].max() > 150


def test_the_masks_of_a_frame_that_is_gone_are_drawn_on_black(tmp_path):
    sink = OverlaySink(tmp_path / "a.mp4", 10.0)
    sink.write(None, answer(frame_of(0, (48, 64)), seen(2, block((48, 64), 0, 0, 48, 32))))
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    red, green, blue = image[40:46, 4:28].mean(axis=(0, 1))
    assert green - max(red, blue) > 40
    assert image[:, 40:].max() < 30


def test_a_video_without_frames_can_be_closed_and_leaves_no_file(tmp_path):
    OverlaySink(tmp_path / "a.mp4", 10.0).close()
    assert not (tmp_path / "a.mp4").exists()

"""Folders of pictures as inputs: bytes untouched, displayed size, and damage that is told from a file that is no picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from psalm_stream.stream.errors import SourceFailed, Undecodable
from psalm_stream.stream.sources import open_source

JUDO = Path(__file__).parents[3] / "shared" / "videos" / "judo" / "images"
PICTURE, SMALL = (np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8) for size_hw in ((20, 30), (5, 7)))


def read(url, **kwargs):
    with open_source(str(url), session="s", **kwargs) as source:
        return list(source)


def test_a_folder_passes_its_bytes_through_untouched_in_natural_order(tmp_path):
    names = ["img1.png", "img2.jpg", "img9.JPEG", "img10.png", "img100.jpg"]
    for index, name in enumerate(names):
        assert cv2.imwrite(str(tmp_path / name), np.full((4 + index, 9, 3), 20 * index, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._img3.jpg").write_text("what a Mac leaves behind")
    with open_source(str(tmp_path), session="s") as source:
        assert (source.frames, source.fps, source.size_hw, source.live) == (5, 24.0, (4, 9), False)
        frames = list(source)
    assert [f.data for f in frames] == [(tmp_path / name).read_bytes() for name in names]
    assert [f.size_hw for f in frames] == [(4 + i, 9) for i in range(5)]
    assert [f.t_ns for f in frames] == [0, 41666667, 83333333, 125000000, 166666667]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_picture_is_its_displayed_size(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(tmp_path / f"a.{suffix}", exif=exif)
    frame = read(tmp_path)[0]
    assert frame.size_hw == ((20, 30) if orientation < 5 else (30, 20))
    assert frame.pixels().shape[:2] == frame.size_hw


def test_a_single_picture_is_a_video_of_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), SMALL)
    with open_source(str(tmp_path / "a.png"), session="s") as source:
        assert source.frames == 1
        assert [f.size_hw for f in source] == [(5, 7)]


@pytest.mark.skipif(not JUDO.is_dir(), reason="../shared/videos is not there")
def test_a_real_folder_is_read_like_its_files():
    frames = read(JUDO, limit=3)
    assert [f.size_hw for f in frames] == [(480, 854)] * 3
    assert frames[2].data == (JUDO / "00002.jpg").read_bytes()


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "deeper").mkdir()
    with pytest.raises(SourceFailed, match=r"no picture directly in it, expected files in \.jpg, \.jpeg, \.png"):
        open_source(str(tmp_path), session="s")


@pytest.mark.parametrize("content", [b"", b"GIF89a not a jpeg", b"\xff\xd8\xff"])
def test_a_file_that_is_no_picture_is_named_after_the_frames_before_it(tmp_path, content):
    cv2.imwrite(str(tmp_path / "1.jpg"), SMALL)
    (tmp_path / "2.jpg").write_bytes(content)
    frames = []
    with open_source(str(tmp_path), session="s") as source, pytest.raises(SourceFailed, match=r"2\.jpg"):
        frames.extend(frame for frame in source)
    assert len(frames) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_that_is_cut_off_is_a_frame_that_cannot_be_decoded(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"1.{suffix}"), PICTURE)
    whole = (tmp_path / f"1.{suffix}").read_bytes()
    (tmp_path / f"2.{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    first, second = read(tmp_path)
    assert first.pixels().shape == (*second.size_hw, 3)
    with pytest.raises(Undecodable, match="s/main/1"):
        second.pixels()


def test_an_orientation_that_only_xmp_names_is_not_believed_as_opencv_does_not(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", xmp=xmp)
    (frame,) = read(tmp_path)
    assert frame.pixels().shape[:2] == frame.size_hw == (20, 30)

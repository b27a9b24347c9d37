"""`psalm-stream demo`: what it chooses when little or nothing is said."""

import av
import numpy as np
import pytest
from PIL import Image
from psalm_stream.stream.errors import SourceFailed
from psalm_stream.workers.demo import demo_arguments


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A working directory without shared videos beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_a_video_alone_is_asked_for_the_middle_of_its_picture(clip_folder, tmp_path):
    arguments, said = demo_arguments(str(clip_folder), [], tmp_path / "out")
    assert arguments == [str(clip_folder), "--box", "1:24,18,72,54", "--out", str(tmp_path / "out"), "--overwrite"]
    assert "--box 1:24,18,72,54" in said


@pytest.mark.parametrize("flag", [["--point", "1:3,4"], ["--point=1:3,4"], ["--limit", "2", "--mask", "m.png"]])
def test_a_prompt_that_is_given_is_the_only_one(clip_folder, tmp_path, flag):
    arguments, _ = demo_arguments(str(clip_folder), flag, tmp_path / "out")
    assert arguments == [str(clip_folder), "--out", str(tmp_path / "out"), "--overwrite", *flag]


def test_without_a_video_a_clip_is_drawn_with_a_mask_of_its_first_frame(tmp_path):
    arguments, said = demo_arguments(None, [], tmp_path / "out")
    clip, flag, mask = arguments[:3]
    assert (flag, clip in said) == ("--mask", True)
    with av.open(clip) as video:
        assert video.streams.video[0].frames == 48
        assert np.array(Image.open(mask)).shape == (video.streams.video[0].height, video.streams.video[0].width)
    assert set(np.unique(np.array(Image.open(mask)))) > {0}


def test_flags_without_a_video_are_flags(tmp_path):
    arguments, said = demo_arguments("--limit", ["2"], tmp_path / "out")
    assert arguments[-2:] == ["--limit", "2"]
    assert "drew a short clip" in said


def test_a_video_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceFailed, match=r"gone\.mp4"):
        demo_arguments("gone.mp4", [], tmp_path / "out")

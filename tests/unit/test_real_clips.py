"""Real video without labels: regions that move are found, followed, stored, sampled and pasted."""

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.train.clip import sentences
from psalm_stream.psalm.train.cutouts import paste
from psalm_stream.psalm.train.mining import chain, consistent, dis, find_regions, follow
from psalm_stream.psalm.train.real import Mining, disjoint, load_real, prepare, read
from psalm_stream.stream.errors import BadInput

SIZE = (256, 456)


def texture(seed: int, low: int, high: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(low, high, (SIZE[0] // 4, SIZE[1] // 4, 3)).astype(np.uint8)
    return cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def square_at(step: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[80:150, 100 + 4 * step : 180 + 4 * step] = True
    return mask


def frame(step: int) -> np.ndarray:
    """A reddish square that moves 4 px a step to the right over a still, greenish ground."""
    ground, thing = texture(0, 60, 120), texture(1, 60, 120)
    ground[..., 1] += 80
    thing[..., 0] += 120
    return np.where(square_at(step)[..., None], np.roll(thing, 4 * step, 1), ground)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    videos, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("mined")
    writer = cv2.VideoWriter(str(videos / "cups.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, SIZE[::-1])
    for step in range(14):
        writer.write(np.ascontiguousarray(frame(step)[..., ::-1]))
    writer.release()
    assert prepare(videos, out, Mining(every=3, longest=5)) > 0
    return out


def grey(step: int) -> np.ndarray:
    return cv2.cvtColor(frame(step), cv2.COLOR_RGB2GRAY)


def way(start: int, end: int) -> np.ndarray:
    flow, turn = dis(), 1 if end > start else -1
    return chain([flow.calc(grey(i), grey(i + turn), None) for i in range(start, end, turn)])


def test_chained_flows_add_up_along_the_way():
    whole = way(0, 3)
    assert np.abs(np.median(whole[square_at(0)], 0) - (12, 0)).max() < 0.5


def test_consistent_is_what_returns_to_where_it_began_inside_the_picture():
    there, back = np.zeros((2, 20, 40, 2), np.float32)
    there[..., 0] = 10
    back[:10, :, 0] = -10
    good = consistent(there, back)
    assert good[:9, :30].all()
    assert not good[11:].any()
    assert not good[:, 30:].any()


def test_the_moving_square_is_the_best_region_and_is_followed():
    there, back = way(0, 3), way(3, 0)
    best = find_regions(frame(0), there)[0].mask
    assert overlap(best, square_at(0)) > 0.8
    moved = follow(best, there, back, consistent(there, back), frame(3))
    assert moved is not None
    assert overlap(moved, square_at(3)) > 0.8


def test_nothing_is_followed_where_motion_cannot_be_trusted():
    still = np.zeros((*SIZE, 2), np.float32)
    assert follow(square_at(0), still, still, np.zeros(SIZE, bool), frame(1)) is None


def test_stored_tracks_hold_the_square_on_all_three_frames(mined):
    images, masks = read(sorted(mined.glob("*.npz"))[0])
    truth = [max(overlap(mask[0], square_at(s)) for s in range(14)) for mask in masks]
    assert len(images) == 3
    assert max(truth) > 0.8


def test_sampled_clips_are_padded_labelled_and_have_nothing_to_say(mined):
    real = load_real(mined)
    for seed in range(6):
        clip = real.draw(np.random.default_rng(seed), 128)
        outside = np.ones((128, 128), bool)
        outside[: clip.valid_hw[0], : clip.valid_hw[1]] = False
        assert clip.images.shape == (3, 128, 128, 3)
        assert (clip.images[:, outside] == 128).all()
        assert not clip.labels[:, outside].any()
        assert all((clip.labels[t] == 1).any() for t in range(3))
        assert sentences(clip, 2) == []


def test_pasted_clips_label_what_was_pasted(mined):
    clip = paste(np.random.default_rng(0), load_real(mined), 128, frames=4)
    assert clip.images.shape == (4, 128, 128, 3)
    assert {thing.object_id for thing in clip.objects} == set(np.unique(clip.labels)) - {0}
    assert clip.labels.max() <= 4


def test_overlapping_regions_never_share_a_label_map():
    masks = np.zeros((3, 3, 8, 8), bool)
    masks[0, :, :4], masks[1, :, 2:6], masks[2, :, 6:] = True, True, True
    for seed in range(10):
        labels = disjoint(masks, np.random.default_rng(seed))
        assert all(any(np.array_equal(labels == i, mask) for mask in masks) for i in np.unique(labels) if i)


def test_other_videos_are_never_mined(tmp_path):
    (tmp_path / "judo.mp4").write_bytes(b"")
    with pytest.raises(BadInput, match="no video found"):
        prepare(tmp_path, tmp_path / "out")


def test_an_empty_folder_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(BadInput, match="prepare"):
        load_real(tmp_path)

"""Damaged masks: between untouched and useless, mostly recognisable."""

import numpy as np
import pytest
from psalm_stream.psalm.train.priors import corrupt


def disc(h: int, w: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return (y - h / 2) ** 2 + (x - w / 2) ** 2 < radius**2


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def test_damage_ranges_from_none_to_heavy_and_is_mostly_moderate():
    mask = disc(144, 256, 30)
    rng = np.random.default_rng(0)
    found = np.array([overlap(mask, corrupt(mask, rng)) for _ in range(300)])
    assert (found == 1).mean() > 0.03
    assert (found < 0.1).mean() < 0.12
    assert 0.6 < np.median(found) < 0.95
    assert np.quantile(found, 0.2) < 0.7


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 36)])
def test_any_size_keeps_its_shape_and_type(shape):
    rng = np.random.default_rng(1)
    image = np.zeros((*shape, 3), np.uint8)
    for _ in range(50):
        damaged = corrupt(np.ones(shape, bool), rng, image)
        assert damaged.shape == shape
        assert damaged.dtype == bool


def test_an_empty_mask_stays_empty():
    assert not corrupt(np.zeros((9, 9), bool), np.random.default_rng(2)).any()


def test_writing_to_the_answer_leaves_the_input_alone():
    mask = disc(40, 40, 9)
    before = mask.copy()
    rng = np.random.default_rng(3)
    for _ in range(30):
        corrupt(mask, rng)[:] = True
    assert np.array_equal(mask, before)

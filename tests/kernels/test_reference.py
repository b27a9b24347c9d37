"""The definition of multi-scale deformable attention, against the sum written out sample by sample."""

import itertools
import math

import pytest
import torch
from psalm_stream.kernels.reference import ms_deform_attn


def by_hand(value, shapes_hw, locations, weights):
    """The formula, one query, head, level and point at a time."""
    batch, _, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    out = torch.zeros(batch, queries, heads, channels, dtype=value.dtype)
    starts = [0, *itertools.accumulate(h * w for h, w in shapes_hw)]
    for b, q, m, level, p in itertools.product(range(batch), range(queries), range(heads), range(levels), range(points)):
        (h, w), start = shapes_hw[level], starts[level]
        x, y = (float(c) for c in locations[b, q, m, level, p] * torch.tensor([w, h]) - 0.5)
        for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= i < h and 0 <= j < w:
                share = (1 - abs(y - i)) * (1 - abs(x - j))
                out[b, q, m] += weights[b, q, m, level, p] * share * value[b, start + i * w + j, m]
    return out.flatten(2)


def problem(shapes_hw, batch=2, queries=3, heads=2, channels=4, points=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(h * w for h, w in shapes_hw))
    cells, levels = sum(h * w for h, w in shapes_hw), len(shapes_hw)
    value = torch.randn(batch, cells, heads, channels, generator=generator, dtype=dtype)
    locations = torch.rand(batch, queries, heads, levels, points, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(batch, queries, heads, levels, points, generator=generator, dtype=dtype)
    return value, locations, weights


SHAPES = [[(6, 4), (3, 2)], [(1, 1)], [(1, 7), (5, 1), (2, 3)]]


@pytest.mark.parametrize("shapes_hw", SHAPES)
def test_samples_are_weighted_bilinear_reads_with_zeros_outside(shapes_hw):
    value, locations, weights = problem(shapes_hw)
    torch.testing.assert_close(ms_deform_attn(value, shapes_hw, locations, weights), by_hand(value, shapes_hw, locations, weights))


@pytest.mark.parametrize("shapes_hw", SHAPES)
def test_gradients_are_those_of_finite_differences(shapes_hw):
    inputs = [tensor.requires_grad_() for tensor in problem(shapes_hw, batch=1, queries=2)]
    assert torch.autograd.gradcheck(lambda v, at, w: ms_deform_attn(v, shapes_hw, at, w), inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_are_sampled_precisely(dtype):
    shapes_hw = [(33, 57), (9, 5)]
    value, locations, weights = problem(shapes_hw, batch=1, queries=64, dtype=torch.float32)
    exact = ms_deform_attn(value, shapes_hw, locations, weights)
    rough = ms_deform_attn(value.to(dtype), shapes_hw, locations, weights.to(dtype))
    assert rough.dtype == dtype
    bound = 4 * torch.finfo(dtype).eps * exact.abs().max()  # the rounding of value and weight, four of them to a sample
    assert (rough.float() - exact).abs().max() < bound

"""Post-processing rules on masks small enough to count by hand."""

import pytest
import torch
from psalm_stream.psalm import postprocess
from psalm_stream.psalm.postprocess import CHUNK, Segment
from psalm_stream.psalm.preprocess import Geometry, geometry

SURE = 20.0


def boxes(*rows, size=(4, 6)):
    """Mask logits [Q, 4, 6]: query q covers the given rows and columns (y0, y1, x0, x1) with certainty."""
    logits = torch.full((len(rows), *size), -SURE)
    for query, (y0, y1, x0, x1) in enumerate(rows):
        logits[query, y0:y1, x0:x1] = SURE
    return logits


def classes(*labels, categories=3, logit=SURE):
    """Class logits [Q, C+1] certain of a label each; `categories` itself is background."""
    return torch.nn.functional.one_hot(torch.tensor(labels), categories + 1) * logit


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 9), (48, 20), (33, 33)])
def test_masks_come_back_to_the_size_of_the_source(size_hw):
    where = geometry(size_hw, 32)
    assert postprocess.upsample_masks(torch.randn(3, 8, 8), where).shape == (3, *size_hw)
    assert postprocess.binary_masks(torch.randn(3, 8, 8), where, [2, 0]).shape == (2, *size_hw)


def test_the_padding_of_the_square_does_not_reach_the_source():
    logits = torch.cat([torch.full((1, 8, 4), -1.0), torch.full((1, 8, 4), 1.0)], 2)
    found = postprocess.binary_masks(logits, Geometry((64, 24), (64, 24), 64), [0])
    assert not found.any()


def test_no_query_is_no_mask_and_no_score():
    none, where = torch.zeros(0, 8, 8), geometry((10, 20), 32)
    assert postprocess.upsample_masks(none, where).shape == (0, 10, 20)
    assert postprocess.binary_masks(torch.randn(4, 8, 8), where, []).shape == (0, 10, 20)
    assert postprocess.mask_scores(none, where).shape == (0,)


def test_no_region_is_no_row():
    assert postprocess.region_scores(torch.zeros(0, 4), torch.randn(4, 8, 8), geometry((10, 20), 32)).shape == (0, 4)


def test_a_mask_score_is_the_mean_probability_inside_the_mask_and_zero_when_empty():
    logits = torch.tensor([[[2.0, 1.0, -5.0]], [[-1.0, -1.0, -1.0]]])
    expected = torch.tensor([2.0, 1.0]).sigmoid().mean().item()
    assert postprocess.mask_scores(logits, None).tolist() == pytest.approx([expected, 0], rel=1e-5)


@pytest.mark.parametrize("count", [16, 17, 35])
def test_working_in_chunks_changes_nothing(count, monkeypatch):
    generator = torch.Generator().manual_seed(count)
    cells = torch.eye(64)[:count].reshape(count, 8, 8) * 12 - 6
    logits = cells + torch.randn(count, 8, 8, generator=generator)
    labels = classes(*(query % 4 for query in range(count)), logit=8.0) + torch.randn(count, 4, generator=generator)
    where, things = geometry((42, 26), 32), [True] * 3

    def everything():
        panoptic, instance = postprocess.panoptic(labels, logits, where, things), postprocess.instance(labels, logits, where)
        maps = [postprocess.semantic(labels, logits, where, at) for at in ("padded", "source")]
        return [panoptic.ids, instance.scores, instance.masks, *maps], panoptic.segments

    alone, segments = everything()
    monkeypatch.setattr(postprocess, "CHUNK", 16)
    together, segments_together = everything()
    assert len(segments) > 3
    assert segments == segments_together
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b)


def test_the_same_query_may_appear_with_two_labels():
    labels = torch.tensor([[9.0, 8.5, 0, 0], [0, 0, 0, 9.0]])
    result = postprocess.instance(labels, boxes((0, 2, 0, 2), (2, 4, 0, 2)), None)
    assert sorted(zip(result.queries.tolist(), result.labels.tolist(), strict=True)) == [(0, 0), (0, 1)]


def test_pairs_of_uncountable_categories_are_dropped_not_replaced():
    masks = boxes((0, 2, 0, 2), (2, 4, 0, 2))
    result = postprocess.instance(classes(0, 1), masks, None, things=[True, False, True])
    assert result.labels.tolist() == [0]
    assert torch.equal(result.masks, masks[:1] > 0)


def test_uncountable_segments_of_a_category_are_one_and_countable_ones_are_not():
    masks = boxes((0, 2, 0, 3), (2, 4, 0, 3), (0, 2, 3, 6), (2, 4, 3, 6))
    result = postprocess.panoptic(classes(0, 0, 1, 1), masks, None, things=[True, False, False])
    assert result.segments == (Segment(1, 0, True), Segment(2, 0, True), Segment(3, 1, False))
    assert result.ids[[0, 2, 0, 2], [0, 0, 3, 3]].tolist() == [1, 2, 3, 3]


def test_a_mostly_covered_mask_is_dropped_and_leaves_void():
    masks = boxes((0, 4, 0, 2), (0, 4, 0, 4))
    result = postprocess.panoptic(classes(0, 1) * torch.tensor([[1.0], [0.2]]), masks, None, things=[True] * 3)
    assert [s.label for s in result.segments] == [0]
    assert result.ids[0].tolist() == [1, 1, 0, 0, 0, 0]


def test_of_equal_queries_the_first_owns_the_pixels():
    rivals = CHUNK + 1  # the last one is in a chunk of its own
    result = postprocess.panoptic(classes(0, *[1] * rivals), boxes(*[(0, 4, 0, 6)] * (rivals + 1)), None, things=[True] * 3)
    assert result.segments == (Segment(1, 0, True),)


def test_unsure_and_background_queries_leave_a_panoptic_map_void():
    result = postprocess.panoptic(classes(3, 0) * torch.tensor([[1.0], [0.05]]), boxes((0, 4, 0, 6), (0, 4, 0, 6)), None, things=[True] * 3)
    assert result.segments == ()
    assert (result.ids == 0).all()
    assert result.ids.shape == (4, 6)


def test_background_never_wins_a_semantic_map():
    result = postprocess.semantic(classes(3, 1, logit=5.0), boxes((0, 4, 0, 6), (0, 4, 0, 3)), None)
    assert result.shape == (3, 4, 6)
    assert result.argmax(0)[0, 0] == 1


def test_an_expression_of_several_objects_is_the_union_of_the_sure_masks():
    masks = boxes((0, 1, 0, 6), (1, 2, 0, 6), (3, 4, 0, 6))
    found = postprocess.generalized_referring(torch.tensor([0.7, 0.6, 0.61]), masks, None)
    assert found[:, 0].tolist() == [True, False, False, True]


@pytest.mark.parametrize(("fallback", "area"), [("empty", 0), ("official", 6)])
def test_an_expression_of_nothing_is_empty_unless_the_official_fallback_is_asked_for(fallback, area):
    masks = boxes((0, 1, 0, 6), (1, 4, 0, 6))
    assert postprocess.generalized_referring(torch.tensor([0.5, 0.4]), masks, None, fallback).sum() == area

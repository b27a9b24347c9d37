"""The training criterion on small problems whose answer is known."""

import pytest
import torch
from psalm_stream.psalm.train import criterion
from psalm_stream.psalm.train.criterion import CriterionConfig, Prediction, Target
from psalm_stream.psalm.train.matcher import mask_cost, match, sample_points, uniform
from torch.nn import functional as F

CONFIG = CriterionConfig(num_points=64)


def draws(seed=0):
    return uniform(torch.Generator().manual_seed(seed))


def squares(count, side=16):
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for index in range(count):
        masks[index, 4 * index : 4 * index + 4, 2:14] = True
    return masks


def logits_of(masks, queries):
    """Mask logits [1, Q, h, w] whose query q is mask queries.index(q), the others empty."""
    logits = torch.full((1, max(queries) + 2, *masks.shape[1:]), -9.0)
    logits[0, queries] = masks.float() * 18 - 9
    return logits


def test_points_between_pixels_are_read_bilinearly_and_points_outside_as_zero():
    values = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [2.0, 0.5]]])
    assert sample_points(values, points).tolist() == [[1, 3, 4, 0]]


def test_shared_points_read_every_map_alike():
    values, points = torch.rand(3, 5, 7), torch.rand(1, 11, 2)
    torch.testing.assert_close(sample_points(values, points), sample_points(values, points.expand(3, -1, -1)))


def test_pair_costs_equal_the_losses_written_out_for_each_pair():
    logits, masks, points = torch.randn(4, 6, 6), (torch.rand(3, 8, 8) > 0.5), torch.rand(1, 50, 2)
    entropy, dice = mask_cost(logits, masks, points)
    x, g = sample_points(logits, points)[2], sample_points(masks, points)[1]
    assert entropy[2, 1].item() == pytest.approx(F.binary_cross_entropy_with_logits(x, g).item(), rel=1e-5)
    s = x.sigmoid()
    assert dice[2, 1].item() == pytest.approx(1 - (2 * (s * g).sum().item() + 1) / (s.sum().item() + g.sum().item() + 1), rel=1e-5)


@pytest.mark.parametrize(("queries", "masks"), [(5, 0), (5, 1), (5, 5), (2, 4)])
def test_as_many_pairs_are_matched_as_the_smaller_side_has(queries, masks):
    assert match(torch.rand(queries, masks)).shape == (2, min(queries, masks))


def test_queries_are_matched_to_the_masks_they_draw():
    result = criterion.losses([Prediction(logits_of(squares(3), [4, 0, 2]))], [Target(squares(3))], CONFIG, draws())
    assert result.matches[0][0].tolist() == [[0, 2, 4], [1, 2, 0]]


def test_class_logits_decide_between_queries_with_equal_masks():
    masks = squares(1)
    logits = logits_of(masks, [0]).expand(1, 2, 16, 16)[:, [0, 0]]
    classes = torch.tensor([[[0.0, 0, 0], [0, 5, 0]]])
    result = criterion.losses([Prediction(logits, class_logits=classes)], [Target(masks, torch.tensor([1]))], CONFIG, draws())
    assert result.matches[0][0].tolist() == [[1], [0]]


@pytest.mark.parametrize("condition", ["class", "refer", "region"])
def test_a_batch_without_any_mask_trains_the_condition_and_leaves_the_masks_alone(condition):
    masks, scores = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 3, 1, requires_grad=True)
    given = {
        "class": {"class_logits": scores.expand(2, 3, 4) * torch.arange(4)},
        "refer": {"refer_logits": scores},
        "region": {"region_logits": list(scores.mT)},
    }[condition]
    empty = Target(torch.zeros(0, 8, 8, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    result = criterion.losses([Prediction(masks, **given)] * 2, [empty, empty], CONFIG, draws())
    result.total.backward()
    assert masks.grad.abs().sum() == 0
    assert scores.grad.abs().sum() > 0


def test_a_request_without_regions_has_no_region_loss():
    empty = Target(torch.zeros(0, 8, 8))
    result = criterion.losses([Prediction(torch.zeros(1, 3, 8, 8), region_logits=[torch.zeros(0, 3)])], [empty], CONFIG, draws())
    assert result.total.item() == 0


def test_a_region_that_is_not_in_the_picture_is_negative_for_every_query():
    regions = torch.zeros(2, 3, requires_grad=True)
    prediction = Prediction(logits_of(squares(1), [1]), region_logits=[regions])
    criterion.losses([prediction], [Target(squares(1))], CONFIG, draws()).total.backward()
    assert (regions.grad < 0).tolist() == [[False, True, False], [False, False, False]]


def test_a_given_assignment_replaces_the_matching_at_every_level():
    pairs = [torch.tensor([[0, 1], [0, 0]])]
    prediction = Prediction(logits_of(squares(1), [3]))
    result = criterion.losses([prediction] * 3, [Target(squares(1))], CONFIG, draws(), assignment=pairs)
    assert all(torch.equal(level[0], pairs[0]) for level in result.matches)


def test_half_of_the_points_and_more_lie_where_the_mask_is_uncertain():
    logits = torch.full((1, 32, 32), 9.0)
    logits[:, :, 15:17] = 0
    points = criterion.uncertain_points(logits, CONFIG, draws())
    near = sample_points(logits, points).abs() < 9
    assert points.shape == (1, 64, 2)
    assert 0.2 < near.float().mean() < 0.5, "three candidates a point on a tenth of the area, plus a uniform quarter"


def test_the_same_draws_give_the_same_loss():
    prediction, target = Prediction(torch.randn(1, 4, 8, 8)), Target(squares(2, 8))
    first, second = (criterion.losses([prediction], [target], CONFIG, draws(7)).total for _ in range(2))
    assert first == second


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="invalid numeric"):
        criterion.losses([Prediction(torch.full((1, 2, 8, 8), torch.nan))], [Target(squares(1, 8))], CONFIG, draws())

"""The mask prior: extra queries that leave PSALM's own alone, and what colour says of a remembered object."""

import dataclasses

import pytest
import torch
from psalm_stream.psalm.config import NAMED_CONFIGS, Extras
from psalm_stream.psalm.model import Psalm, Sample
from psalm_stream.psalm.prior import Carried, colour_likeness
from psalm_stream.psalm.prompt import IMAGE, REGION, SEG, TokenizedPrompt

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)
SIDE = 64


def picture(background, *squares):
    """uint8 [3, S, S] of one colour with squares (colour, row, column, side) on it."""
    image = torch.tensor(background, dtype=torch.uint8).view(3, 1, 1).repeat(1, SIDE, SIDE)
    for colour, row, column, side in squares:
        image[:, row : row + side, column : column + side] = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    return image


def square(row, column, side):
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_colours_of_the_object_are_likely_and_those_around_it_are_not():
    before, now = picture(GREEN, (RED, 8, 8, 16)), picture(GREEN, (RED, 32, 40, 16))
    likeness = colour_likeness(now, before, square(8, 8, 16))
    assert likeness.shape == (SIDE // 4, SIDE // 4)
    assert likeness[8:12, 10:14].min() > 0.95
    assert likeness[0:8].max() < 0.05


def test_a_colour_nobody_knows_says_nothing():
    likeness = colour_likeness(picture(BLUE), picture(GREEN, (RED, 8, 8, 16)), square(8, 8, 16))
    torch.testing.assert_close(likeness, torch.full_like(likeness, 0.5))


@pytest.mark.parametrize("mask", [square(0, 0, 0), square(0, 0, SIDE)])
def test_an_empty_or_full_mask_has_finite_likeness(mask):
    likeness = colour_likeness(picture(GREEN), picture(RED), mask)
    assert torch.isfinite(likeness).all()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    config = dataclasses.replace(NAMED_CONFIGS["nano"], image_size=SIDE, extras=Extras(mask_prior=True, detail_pooling=True))
    return Psalm(config).eval().requires_grad_(False)


def ask(network, carried_rows):
    """Answer two region tokens of one image; carried_rows: the tokens that bring a carried mask."""
    features = network.encode(picture(GREEN, (RED, 8, 8, 16))[None])[0]
    masks = torch.stack([square(8, 8, 16), square(40, 40, 8)])
    prompt = TokenizedPrompt([5, IMAGE, 6, REGION, 7, REGION, SEG, 8], [], [])
    carried = Carried(carried_rows, masks[carried_rows], torch.rand(len(carried_rows), SIDE // 4, SIDE // 4)) if carried_rows else None
    return network([Sample(features, prompt, network.region_tokens(features, masks), carried)])


@pytest.mark.parametrize("rows", [[0], [1], [0, 1]])
def test_prior_queries_leave_the_other_proposals_as_they_are(network, rows):
    plain, prior = ask(network, []), ask(network, rows)
    queries = network.config.mask.num_queries
    assert prior.counts == [queries + len(rows)]
    for without, with_prior in zip(plain.predictions, prior.predictions, strict=True):
        torch.testing.assert_close(with_prior.mask_logits[:, :queries], without.mask_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        network.logits(prior, -1, 0, "regions")[:, :queries], network.logits(plain, -1, 0, "regions"), rtol=1e-4, atol=1e-5
    )


def test_the_refined_mask_follows_the_carried_one_as_far_as_it_is_believed(network):
    believed = ask(network, [0]).predictions[-1].mask_logits[0, -1]
    with torch.no_grad():
        network.mask_prior.keep.fill_(1)
    sure = ask(network, [0]).predictions[-1].mask_logits[0, -1]
    network.mask_prior.keep.zero_()
    assert torch.equal(sure > 0, square(2, 2, 4)[: SIDE // 4, : SIDE // 4])
    assert not torch.equal(believed > 0, sure > 0)

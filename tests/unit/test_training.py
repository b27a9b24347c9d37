"""From drawn clips to losses: what a training question holds, what its losses move, and that a few steps on one batch are learnt."""

import dataclasses

import numpy as np
import pytest
import torch
from psalm_stream.psalm.config import NAMED_CONFIGS, Extras
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.train.batches import KINDS, forward, step_losses
from psalm_stream.psalm.train.criterion import CriterionConfig
from psalm_stream.psalm.train.examples import MAX_OBJECTS, TASKS, make_example
from psalm_stream.psalm.train.matcher import uniform
from psalm_stream.psalm.train.scenes import draw_clip
from psalm_stream.psalm.weights import load

SIDE = 128
CONFIG = CriterionConfig(num_points=128)


def examples_of(task, count, seed=0):
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        if (example := make_example(draw_clip(rng, SIDE), task, rng)) is not None:
            found.append(example)
    return found


each_task = pytest.mark.parametrize("task", TASKS)


@each_task
def test_a_question_fits_its_pictures_and_names_no_empty_region(task):
    for example in examples_of(task, 12):
        assert all(image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 for image in example.images)
        assert example.targets.shape[1:] == (SIDE, SIDE)
        assert all(image < len(example.images) and object_row < len(example.targets) for image, object_row, _ in example.tokens)
        assert all(mask.any() for _, _, mask in example.tokens)
        assert all(row < len(example.tokens) and mask.any() for row, mask in example.carried.items())
        assert bool(example.tokens) == (KINDS[task] == "regions")
        assert bool(example.sentence) == (task == "sentence")
        assert len(example.classes) == (len(example.targets) if task == "categories" else 0)
        assert all(number < len(example.names) for number in example.classes)


def test_objects_that_have_left_come_last_as_empty_targets_and_sometimes_there_are_some():
    there = [example.targets.any((1, 2)) for example in examples_of("video", 60)]
    assert all((np.diff(present.astype(int)) <= 0).all() for present in there)
    assert any(not present.all() for present in there)
    assert all(len(present) <= MAX_OBJECTS for present in there)


def test_what_is_drawn_on_the_asked_picture_touches_the_object_it_names():
    for example in examples_of("own", 30):
        assert all((prompt & example.targets[row]).any() for _, row, prompt in example.tokens)


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = dataclasses.replace(NAMED_CONFIGS["nano"], image_size=SIDE, extras=Extras(mask_prior=True, detail_pooling=True))
    return Psalm(config)


@pytest.fixture(scope="module")
def tokenizer():
    return load("nano").tokenizer


def losses_of(network, examples, tokenizer, seed=0):
    draw = uniform(torch.Generator().manual_seed(seed))
    return step_losses(network, examples, forward(network, examples, tokenizer), CONFIG, draw)


@each_task
def test_the_losses_of_every_task_are_finite_and_reach_backbone_language_model_and_mask_decoder(network, tokenizer, task):
    losses = losses_of(network, examples_of(task, 2), tokenizer)
    losses.total.backward()
    assert np.isfinite(list(losses.parts.values())).all()
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {"swin", "projector", "phi", "pixel_decoder", "predictor"} <= moved


def test_remembered_pictures_lend_their_tokens_without_a_gradient_through_the_backbone(network, tokenizer):
    (example,) = examples_of("video", 1)
    passes = []
    network.swin.register_forward_hook(lambda module, inputs, maps: passes.append(all(m.requires_grad for m in maps)))
    forward(network, [example], tokenizer)
    assert passes == [True, False]


def test_a_batch_of_the_same_questions_is_learnt(network, tokenizer):
    examples = examples_of("own", 2, seed=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    totals = []
    for _ in range(12):
        losses = losses_of(network, examples, tokenizer)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.75 * totals[0]

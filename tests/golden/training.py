"""One training batch with its recorded draws: losses, matches, and the gradient norm of every trainable parameter."""

from __future__ import annotations

import torch
from inputs import fragile_names, padded_images, prompt_tensors, region_inputs
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.names import place
from psalm_stream.psalm.prompt import TokenizedPrompt, category_prompt, prompt_ids, referring_prompt, region_prompt
from psalm_stream.psalm.segmenter import Segmenter
from psalm_stream.psalm.tokenizer import FolderTokenizer
from psalm_stream.psalm.train import criterion
from psalm_stream.psalm.train.criterion import CriterionConfig, Losses, Prediction, Target
from torch import Tensor
from traces import Question, Trace, trace
from walk import FRAGILE, GRADIENT, Case, Found, Near, sizes

OFFICIAL = {
    "class": "loss_class_name_class",
    "refer": "loss_SEG_class",
    "region": "loss_region_class",
    "mask": "loss_mask",
    "dice": "loss_dice",
}
ZERO_GRADIENT = 1e-6  # share of the greatest norm: a bias that softmax cancels has only rounding for a gradient


class Replay:
    """Hands out recorded draws in order and insists that each is asked for with its recorded shape."""

    def __init__(self, case: Case) -> None:
        self.left = [(case.tensors[name], tuple(shape)) for name, shape in case.told["rng_order"]]

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        draw, recorded = self.left.pop(0)
        assert shape == recorded
        return draw


def train_case(case: Case, segmenter: Segmenter) -> tuple[Found, list[str]]:
    """Forward and criterion in eval mode, the encoder frozen."""
    network = segmenter.network.requires_grad_(True)
    network.swin.requires_grad_(False)
    images, _, found = padded_images(case)
    prompts, texts = asked(case, segmenter.tokenizer)
    regions = [case.bits(f"in.region_masks.{b}") for b in range(len(images)) if f"in.region_masks.{b}" in case.tensors]
    found |= region_inputs(case, regions) | prompt_tensors(prompts) | {"json:prompts": texts}
    orders = case.tensors.get("in.random_idx", [None] * len(images))
    questions = [
        Question(image, prompt, masks=regions[b] if regions else None, points=found.get(f"rng.region_points.{b}"), order=orders[b])
        for b, (image, prompt) in enumerate(zip(images, prompts, strict=True))
    ]
    with torch.enable_grad():
        traced = trace(network, questions)
        draw = Replay(case)
        config = CriterionConfig(**sizes()["train"])
        losses = criterion.losses(predictions(traced), targets(case), config, draw)
        losses.total.backward()
    assert not draw.left
    found |= traced.found | loss_figures(case, losses) | {"json:grad_norms": gradient_norms(network)}
    return found, fragile_names("", case.told, traced)


def asked(case: Case, tokenizer: FolderTokenizer) -> tuple[list[TokenizedPrompt], list[str]]:
    """Prompts of a batch; class names and sentences are recorded as ids only."""
    prompts, texts = [], []
    for b in range(len(case.told["images"])):
        classes: list[list[int]] = []
        refer: list[int] = []
        if "in.class_name_ids" in case.tensors:
            ids, number = case.tensors["in.class_name_ids"][b], case.tensors["in.cls_indices"][b]
            classes = [ids[number == n].tolist() for n in range(int(number.max()) + 1)]
            text = category_prompt(len(classes))
        elif f"in.token_refer_id.{b}" in case.tensors:
            refer = case.tensors[f"in.token_refer_id.{b}"].tolist()
            text = referring_prompt()
        else:
            text = region_prompt(len(case.bits(f"in.region_masks.{b}")))
        prompts.append(TokenizedPrompt(prompt_ids(text, tokenizer), classes, refer))
        texts.append(text)
    return prompts, texts


def predictions(traced: Trace) -> list[Prediction]:
    """Levels as the criterion takes them."""
    levels = []
    for prediction, kinds in zip(traced.answer.predictions, traced.logits, strict=True):
        classes, refer = (torch.stack([x.T for x in kinds[kind]]) if kind in kinds else None for kind in ("categories", "sentence"))
        levels.append(Prediction(prediction.mask_logits, classes, refer, kinds.get("regions")))
    return levels


def targets(case: Case) -> list[Target]:
    """The truth of each sample."""
    samples = range(len(case.told["images"]))
    return [Target(case.bits(f"in.gt_masks.{b}"), case.tensors[f"in.gt_classes.{b}"]) for b in samples]


def loss_figures(case: Case, losses: Losses) -> Found:
    """Losses and matches under official names: the final level first and unnumbered, then the others from the first on."""
    levels = [len(losses.matches) - 1, *range(len(losses.matches) - 1)]
    suffixes = ["", *(f"_{level}" for level in levels[1:])]
    found: Found = {
        f"out.match.{number}.{b}": pairs for number, level in enumerate(levels) for b, pairs in enumerate(losses.matches[level])
    }
    found["json:loss"] = losses.total.item()
    found["json:loss_parts_weighted"] = {"loss_llm": 0.0} | {
        name: losses.parts[term].item() if term in losses.parts else 0.0 for term, name in OFFICIAL.items()
    }
    found["json:loss_terms_unweighted"] = {
        name + suffix: losses.terms[term][level].item() if term in losses.terms else None
        for term, name in OFFICIAL.items()
        for level, suffix in zip(levels, suffixes, strict=True)
    }
    return found


def gradient_norms(network: Psalm) -> dict[str, Near]:
    """The L2 norm of each parameter's gradient under its official name; the thirds of a fused weight count together."""
    squares: dict[str, float] = {}
    for key, parameter in network.named_parameters():
        if parameter.grad is not None:
            name = place(key, network.config).name
            squares[name] = squares.get(name, 0.0) + parameter.grad.double().square().sum().item()
    greatest = max(squares.values()) ** 0.5
    floor = ZERO_GRADIENT * greatest
    norms = {name: square**0.5 for name, square in squares.items()}
    return {name: Near(norm, max(GRADIENT * norm, floor), max(FRAGILE * norm, floor)) for name, norm in norms.items()}

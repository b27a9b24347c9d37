"""The network: images, prompts and region tokens in, mask and condition logits out. Tensors only; no files, no requests, no sockets.

    encode(images) -> features -> region_tokens(features, masks)
    forward([Sample, ...]) = assemble -> language model -> read-out -> pixel decoder -> mask decoder

One forward answers a batch of samples of mixed conditions, each in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..stream.errors import BadPrompt
from .config import PsalmConfig
from .mask_decoder import MaskDecoder, Prediction
from .phi import build_phi
from .pixel_decoder import PixelDecoder
from .preprocess import PIXEL_MEAN, PIXEL_STD
from .prior import Carried, MaskPrior, shrink
from .projector import Projector
from .prompt import CLS, IMAGE, REFER, REGION, SEG, TokenizedPrompt
from .regions import pool_mean
from .ring import RingDetail
from .swin import Swin


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the encoder sees of one image. maps: res2..res5, each [1, C, s, s]; tokens: [N, D]; image: uint8 [3, S, S] or None."""

    maps: list[Tensor]
    tokens: Tensor
    image: Tensor | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to the network.

    regions: [K, D], a token per region placeholder; carried: what a mask prior works on.
    """

    features: ImageFeatures
    prompt: TokenizedPrompt
    regions: Tensor | None = None
    carried: Carried | None = None


@dataclass(frozen=True, slots=True)
class Sequence:
    """Language-model input of one sample: embeds [L, D], and which rows are read out. classes: 0 elsewhere, j + 1 at class j."""

    embeds: Tensor
    seg: Tensor
    regions: Tensor
    refer: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True)
class Answer:
    """The network's answer to a batch.

    predictions: one a decoder level, batched, the last final; conditions: per sample, by kind ('categories', 'sentence', 'regions'),
    embeddings [T, d]; counts: per sample, how many of the final prediction's queries are its own (Q, or Q + its prior queries).
    """

    predictions: list[Prediction]
    conditions: list[dict[str, Tensor]]
    counts: list[int]


class Psalm(nn.Module):
    """PSALM of any size. Attribute names follow the official checkpoint; weights.py lists where they differ (Swin, Phi)."""

    def __init__(self, config: PsalmConfig) -> None:
        super().__init__()
        self.config = config
        width, d = config.phi.hidden_size, config.mask.hidden_dim
        self.swin = Swin(config.swin)
        self.projector = Projector(config.swin.channels[3], config.projector_planes, width)
        self.phi = build_phi(config.phi)
        self.seg_query = nn.Parameter(torch.randn(config.mask.num_queries, width) * 0.02)
        self.seg_query_projector = nn.Linear(width, d)
        self.class_name_projector = nn.Linear(width, d)
        self.SEG_token_projector = nn.Linear(width, d)
        self.region_projector = nn.Linear(width, d)
        self.pixel_decoder = PixelDecoder(config.mask, config.swin.channels)
        self.predictor = MaskDecoder(config.mask)
        self.mask_prior = MaskPrior(d) if config.extras.mask_prior else None
        self.ring_detail = RingDetail(config.swin.channels[1], width) if config.extras.detail_pooling else None

    def encode(self, images: Tensor, frozen: bool = False) -> list[ImageFeatures]:
        """images: uint8 [B, 3, S, S], padded RGB. One Swin pass, without gradient when frozen; returns features per image."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            maps = self.swin(self.normalized(images))
        tokens = self.projector(maps[3])
        return [ImageFeatures([m[i : i + 1] for m in maps], tokens[i], images[i]) for i in range(len(images))]

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> what the encoder takes, same shape, in the running type."""
        return normalize(images).to(self.seg_query.dtype)

    def region_tokens(self, features: ImageFeatures, masks: Tensor, pool: Callable[[Tensor, Tensor], Tensor] = pool_mean) -> Tensor:
        """Pool masks bool [K, S, S] over one image's tokens, [K, D]; `pool(map [D, s, s], masks)` as in regions.py. Raises BadPrompt."""
        side = math.isqrt(len(features.tokens))
        pooled = pool(features.tokens.float().T.unflatten(1, (side, side)), masks).to(features.tokens.dtype)
        if self.ring_detail is not None:
            pooled = pooled + self.ring_detail(features.maps[1][0], masks)
        return pooled

    def forward(self, samples: list[Sample]) -> Answer:
        """Answer a batch of samples."""
        sequences = [self.assemble(sample) for sample in samples]
        embeds = pad_sequence([s.embeds for s in sequences], batch_first=True)
        lengths = torch.tensor([len(s.embeds) for s in sequences], device=embeds.device)
        mask = (torch.arange(embeds.shape[1], device=embeds.device) < lengths[:, None]).long()
        hidden = self.phi(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        queries = self.seg_query_projector(torch.stack([h[: len(s.embeds)][s.seg] for h, s in zip(hidden, sequences, strict=True)]))
        conditions = [self.read_out(h[: len(s.embeds)], s) for h, s in zip(hidden, sequences, strict=True)]
        maps, mask_features = self.pixel_decoder([torch.cat(level) for level in zip(*(s.features.maps for s in samples), strict=True)])
        predictions, priors = self._decode(samples, conditions, maps, mask_features, queries)
        return Answer(predictions, conditions, [queries.shape[1] + n for n in priors])

    def logits(self, answer: Answer, level: int, sample: int, kind: str) -> Tensor:
        """Condition logits [T, N] of one sample at one prediction level, N its own queries."""
        normed = answer.predictions[level].normed[sample, : answer.counts[sample]]
        return self.predictor.condition_logits(kind, normed, answer.conditions[sample][kind])

    def assemble(self, sample: Sample) -> Sequence:
        """Replace placeholders by their rows (spec section 8). Raises BadPrompt when placeholders and conditions do not match."""
        prompt, embed = sample.prompt, self.phi.embed_tokens
        device = self.seg_query.device
        _check_placeholders(sample)

        def words(ids: list[int]) -> Tensor:
            return embed(torch.tensor(ids, device=device))

        regions = iter(sample.regions if sample.regions is not None else ())
        classes = iter(enumerate(prompt.classes, start=1))
        rows: list[tuple[Tensor, int, int]] = []  # embeddings, placeholder id (0: text), class number
        run: list[int] = []
        for token in [*prompt.ids, None]:
            if token is not None and token >= 0:
                run.append(token)
                continue
            if run:
                rows.append((words(run), 0, 0))
                run = []
            match token:
                case None:
                    break
                case _ if token == IMAGE:
                    rows.append((sample.features.tokens, IMAGE, 0))
                case _ if token == SEG:
                    rows.append((self.seg_query, SEG, 0))
                case _ if token == REGION:
                    rows.append((next(regions)[None], REGION, 0))
                case _ if token == REFER:
                    rows.append((words(prompt.refer), REFER, 0))
                case _ if token == CLS:
                    number, ids = next(classes)
                    rows.append((words(ids), CLS, number))
        kinds = torch.tensor([kind for e, kind, _ in rows for _ in range(len(e))], device=device)
        numbers = torch.tensor([number for e, _, number in rows for _ in range(len(e))], device=device)
        return Sequence(torch.cat([e for e, _, _ in rows]), kinds == SEG, kinds == REGION, kinds == REFER, numbers)

    def read_out(self, hidden: Tensor, sequence: Sequence) -> dict[str, Tensor]:
        """Condition embeddings of one sample from its hidden states [L, D] (spec section 11)."""
        conditions = {}
        if classes := int(sequence.classes.max()):
            named = [hidden[sequence.classes == j].mean(0) for j in range(1, classes + 1)]
            conditions["categories"] = self.class_name_projector(torch.stack(named))
        if sequence.refer.any():
            conditions["sentence"] = self.SEG_token_projector(hidden[sequence.refer].mean(0, keepdim=True))
        if sequence.regions.any():
            conditions["regions"] = self.region_projector(hidden[sequence.regions])
        return conditions

    def _decode(
        self, samples: list[Sample], conditions: list[dict[str, Tensor]], maps: list[Tensor], mask_features: Tensor, queries: Tensor
    ) -> tuple[list[Prediction], list[int]]:
        """Run the mask decoder, with prior queries where samples carry masks; returns predictions and prior queries per sample."""
        given = [None if self.mask_prior is None else sample.carried for sample in samples]
        counts = [len(c.rows) if c else 0 for c in given]
        if not any(counts):
            return self.predictor(maps, mask_features, queries), counts
        none = mask_features.new_zeros(0, *mask_features.shape[-2:])
        carried = [shrink(c.masks).to(none.dtype) if c else none for c in given]
        likeness = [c.likeness.to(none.dtype) if c else none for c in given]
        embeddings = [
            known["regions"][c.rows] if c else queries.new_zeros(0, queries.shape[2]) for known, c in zip(conditions, given, strict=True)
        ]
        prior = self.mask_prior.queries(embeddings, carried)
        predictions = self.predictor(maps, mask_features, queries, prior, self.mask_prior.position)
        last, first = predictions[-1], queries.shape[1]
        refined = [
            self.mask_prior.refined(features, logits[first : first + n], masks, like)
            for features, logits, masks, like, n in zip(mask_features, last.mask_logits, carried, likeness, counts, strict=True)
        ]
        mask_logits = torch.cat([last.mask_logits[:, :first], pad_sequence(refined, batch_first=True)], dim=1)
        return [*predictions[:-1], Prediction(last.query, last.normed, mask_logits)], counts


def normalize(images: Tensor) -> Tensor:
    """(x - mean) / std per channel: uint8 [..., 3, S, S] RGB to float32 of the same shape. Padding is not zero here."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return (images - mean) / std


def _check_placeholders(sample: Sample) -> None:
    ids, regions = sample.prompt.ids, 0 if sample.regions is None else len(sample.regions)
    expected = {IMAGE: (1, "<image>"), SEG: (1, "<seg>"), CLS: (len(sample.prompt.classes), "<cls>"), REGION: (regions, "<region>")}
    for token, (count, name) in expected.items():
        if ids.count(token) != count:
            raise BadPrompt(f"prompt has {ids.count(token)} {name} placeholders, expected {count}: one for each condition it comes with")

"""The model as the service sees it: requests in, findings or proposals out. No I/O; the only state is a cache of what was encoded.

A frame is encoded once: what is remembered of it (its tokens) is kept under its identity, so a remembered frame costs no backbone pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..stream.errors import BadPrompt
from ..stream.types import Categories, Frame, Proposals, Region, Regions, Request, Sentence
from .config import PsalmConfig
from .features import FeatureCache, FrameId, identity
from .findings import Findings, Kind
from .model import ImageFeatures, Psalm, Sample
from .preprocess import geometry, pad_image, pad_mask
from .prior import Carried, colour_likeness
from .prompt import tokenize
from .regions import pool_mean, pool_points
from .tokenizer import FolderTokenizer

RegionPoints = Callable[[Tensor, int], Tensor]


class Segmenter:
    """A loaded PSALM. digest names its weights; config its sizes; remarks: what is to stand beside every score made with it.

    region_points(masks bool [K, S, S], seed) -> [K, P, 2]: where regions are pooled, see regions.py; None: at every mask pixel.
    """

    def __init__(
        self,
        network: Psalm,
        tokenizer: FolderTokenizer,
        digest: str,
        region_points: RegionPoints | None = None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.network, self.tokenizer, self.digest = network, tokenizer, digest
        self.region_points, self.remarks = region_points, remarks
        self._remembered = FeatureCache()

    @property
    def config(self) -> PsalmConfig:
        """The sizes of the network."""
        return self.network.config

    def segment(self, requests: Sequence[Request]) -> list[Proposals]:
        """Answer requests of mixed conditions in one batch, in their order; each distinct image is encoded once.

        A request without any condition token is answered with no rows, without running. Raises BadPrompt.
        """
        found = iter(self.look([r for r in requests if _tokens(r)]))
        return [next(found).proposals() if _tokens(r) else self._nothing(r) for r in requests]

    @torch.inference_mode()
    def look(self, requests: Sequence[Request]) -> list[Findings]:
        """All that the network says of each request, in one batch, in their order: what `segment` makes its proposals of.

        Raises BadPrompt, also for a request without any condition token.
        """
        if not requests:
            return []
        if empty := [r for r in requests if not _tokens(r)]:
            raise BadPrompt(f"frame {empty[0].frame.key}: nothing is asked, expected at least one region, sentence or category")
        encoded: dict[FrameId, ImageFeatures] = {}
        samples = [self._sample(request, encoded) for request in requests]
        answer = self.network(samples)
        final = len(answer.predictions) - 1
        found = []
        for i, request in enumerate(requests):
            kind = _kind(request)
            mask_logits = answer.predictions[final].mask_logits[i, : answer.counts[i]].float()
            logits = self.network.logits(answer, final, i, kind).float()
            found.append(Findings(kind, logits, mask_logits, geometry(request.frame.size_hw, self.config.image_size)))
        for frame_id, features in encoded.items():
            self._remembered.put(frame_id, self._lasting(features))
        return found

    def _sample(self, request: Request, encoded: dict[FrameId, ImageFeatures]) -> Sample:
        features = self._encode(request.frame, encoded)
        prompt = tokenize(request.condition, self.tokenizer)
        _check_ids([*prompt.ids, *prompt.refer, *(i for ids in prompt.classes for i in ids)], self.config.phi.vocab_size)
        if not isinstance(request.condition, Regions):
            return Sample(features, prompt)
        regions = request.condition.regions
        known = [self._features(region.frame, encoded) for region in regions]
        masks = [self._region_mask(region) for region in regions]
        tokens = torch.cat(
            [
                self.network.region_tokens(source, mask[None], self._pooling(mask[None], request.seed + k))
                for k, (source, mask) in enumerate(zip(known, masks, strict=True))
            ]
        )
        rows = [k for k, region in enumerate(regions) if region.object_id in request.carried]
        if self.network.mask_prior is None or not rows:
            return Sample(features, prompt, tokens)
        carried = torch.stack([self._padded(request.carried[regions[k].object_id]) for k in rows])
        likeness = torch.stack([colour_likeness(features.image, known[k].image, masks[k]) for k in rows])
        return Sample(features, prompt, tokens, Carried(rows, carried, likeness))

    def _features(self, frame: Frame, encoded: dict[FrameId, ImageFeatures]) -> ImageFeatures:
        frame_id = identity(frame)
        return encoded.get(frame_id) or self._remembered.get(frame_id) or self._encode(frame, encoded)

    def _region_mask(self, region: Region) -> Tensor:
        padded = self._padded(region.mask)
        if padded.any():
            return padded
        return self._padded(_fattened(region.mask, region.frame.size_hw, self.config.image_size))  # thinner than a network pixel

    def _pooling(self, masks: Tensor, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
        if self.region_points is None:
            return pool_mean
        points = self.region_points(masks, seed)
        return lambda feature_map, _: pool_points(feature_map, points)

    def _encode(self, frame: Frame, encoded: dict[FrameId, ImageFeatures]) -> ImageFeatures:
        frame_id = identity(frame)
        if frame_id not in encoded:
            image = torch.from_numpy(pad_image(frame.pixels(), self.config.image_size)).to(self._device)
            encoded[frame_id] = self.network.encode(image.permute(2, 0, 1)[None])[0]
        return encoded[frame_id]

    def _lasting(self, features: ImageFeatures) -> ImageFeatures:
        """What region tokens, and the mask prior where there is one, are made from; the finer maps are most of the memory."""
        res3 = features.maps[1] if self.network.ring_detail is not None else None
        return ImageFeatures([None, res3], features.tokens, None if self.network.mask_prior is None else features.image)

    def _padded(self, mask: np.ndarray) -> Tensor:
        return torch.from_numpy(pad_mask(mask, self.config.image_size)).to(self._device)

    def _nothing(self, request: Request) -> Proposals:
        queries = self.config.mask.num_queries
        return Proposals(np.zeros((0, queries), np.float32), lambda rows: np.zeros((len(rows), *request.frame.size_hw), bool))

    @property
    def _device(self) -> torch.device:
        return self.network.seg_query.device


def _kind(request: Request) -> Kind:
    match request.condition:
        case Regions():
            return "regions"
        case Sentence():
            return "sentence"
        case Categories():
            return "categories"


def _tokens(request: Request) -> int:
    match request.condition:
        case Regions(regions):
            return len(regions)
        case Sentence(sentences):
            return len(sentences)
        case Categories(names):
            return len(names)


def _fattened(mask: np.ndarray, size_hw: tuple[int, int], side: int) -> np.ndarray:
    """The mask grown by a network pixel's footprint all around, so that nearest-neighbour shrinking cannot lose it."""
    if not mask.any():
        raise BadPrompt(f"region mask of a {size_hw} frame is empty; expected at least one pixel")
    reach = int(np.ceil(max(size_hw) / side)) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)).astype(bool)


def _check_ids(ids: list[int], vocabulary: int) -> None:
    if ids and max(ids) >= vocabulary:
        raise BadPrompt(f"the tokenizer gave id {max(ids)}, the model has {vocabulary} vocabulary rows; use the tokenizer of these weights")

"""What the network says of one request, before anything is decided, and every answer that can be made of it.

Tracking takes `proposals()`; picture tasks take a panoptic, semantic, instance or referring result of the very same numbers. The rules are
postprocess.py's; how the network is asked is segmenter.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from ..stream.errors import BadPrompt
from ..stream.types import Proposals
from . import postprocess
from .postprocess import InstanceResult, PanopticResult
from .preprocess import Geometry

MASK_STRIDE = 4  # network pixels to a side of a mask cell

Kind = Literal["categories", "sentence", "regions"]


@dataclass(frozen=True, slots=True)
class Findings:
    """Condition logits float32 [T, Q], one row a condition token (for categories [C + 1, Q], background last), and mask logits float32
    [Q, s, s] of one request. kind: of its condition; where: its frame in the padded square.
    """

    kind: Kind
    logits: Tensor
    mask_logits: Tensor
    where: Geometry

    def proposals(self) -> Proposals:
        """Every query's mask, and its score for every condition token: condition probability times mask score."""
        probability = self.logits.softmax(0)[:-1] if self.kind == "categories" else self.logits.sigmoid()
        scores = probability * postprocess.mask_scores(self.mask_logits, self.where)
        cell_px = MASK_STRIDE * max(self.where.size_hw) / self.where.padded
        return Proposals(scores.cpu().numpy(), partial(_host_masks, self.mask_logits, self.where), cell_px)

    def panoptic(self, things: Sequence[bool]) -> PanopticResult:
        """A partition of the picture among categories; things: which of them are countable. Raises BadPrompt without categories."""
        return postprocess.panoptic(self._classes(), self.mask_logits, self.where, things)

    def semantic(self, at: Literal["padded", "source"] = "padded") -> Tensor:
        """The category of every pixel, int64 [H, W], numbered from 0; background cannot win. at: as in postprocess.semantic.

        Raises BadPrompt without categories.
        """
        return postprocess.semantic(self._classes(), self.mask_logits, self.where, at).argmax(0)

    def instances(self, things: Sequence[bool] | None = None) -> InstanceResult:
        """The Q most probable (query, category) pairs; things: as in postprocess.instance. Raises BadPrompt without categories."""
        return postprocess.instance(self._classes(), self.mask_logits, self.where, things)

    def referred(self, fallback: Literal["empty", "official"] = "empty") -> Tensor:
        """All that a sentence about several objects or none means, bool [H, W]; fallback: as in postprocess.generalized_referring.

        Raises BadPrompt without a sentence.
        """
        if self.kind != "sentence":
            raise BadPrompt(f"the condition is {self.kind}, expected a sentence: only that can mean several objects or none")
        scores = postprocess.referring_scores(self.logits.T, self.mask_logits, self.where)
        return postprocess.generalized_referring(scores, self.mask_logits, self.where, fallback)

    def _classes(self) -> Tensor:
        if self.kind != "categories":
            raise BadPrompt(f"the condition is {self.kind}, expected categories: only they have panoptic, semantic and instance results")
        return self.logits.T


def _host_masks(mask_logits: Tensor, where: Geometry, queries: Sequence[int]) -> np.ndarray:
    return postprocess.binary_masks(mask_logits, where, queries).cpu().numpy()

"""The mask prior, an extra PSALM lacks: each region token may bring the carried mask of its object.

Such a token gets one more query, which starts from the token's embedding and looks first where the carried mask is; a small convolution
then refines that mask with the query's own answer. On only when `Extras.mask_prior` is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .mask_decoder import PriorQueries

FEATURES = 16
HIDDEN = 24
KEEP_SCALE = 20  # one learned number must be able to grow as fast as a whole layer


class MaskPrior(nn.Module):
    """Prior queries and the refinement of their masks. width: of the mask decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(width, width)
        self.position = nn.Parameter(torch.randn(width) * 0.02)
        self.reduce = nn.Conv2d(width, FEATURES, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(FEATURES + 2, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=4, dilation=4),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, 1, 1),
        )
        self.keep = nn.Parameter(
            torch.zeros(())
        )  # how far the carried mask itself is believed; zero, so that untrained weights copy nothing

    def queries(self, embeddings: list[Tensor], carried: list[Tensor]) -> PriorQueries | None:
        """embeddings: per sample [T, d], those tokens that have a carried mask; carried: per sample [T, S/4, S/4], 0..1.

        Returns None when no sample has any.
        """
        counts = [len(e) for e in embeddings]
        if not max(counts):
            return None
        valid = torch.tensor([[i < n for i in range(max(counts))] for n in counts], device=embeddings[0].device)
        content = pad_sequence([self.content(e) for e in embeddings], batch_first=True)
        look = pad_sequence([c > 0 for c in carried], batch_first=True)
        return PriorQueries(content, look, valid)

    def refined(self, mask_features: Tensor, own_logits: Tensor, carried: Tensor) -> Tensor:
        """Refined logits [T, h, w] of one sample. mask_features: [d, h, w]; own_logits: the prior queries' [T, h, w]; carried: [T, h, w]."""
        shared = self.reduce(mask_features[None]).expand(len(carried), -1, -1, -1)
        stacked = torch.cat([shared, carried[:, None], own_logits[:, None].clamp(-10, 10) / 4], dim=1)
        return self.refine(stacked)[:, 0] + KEEP_SCALE * self.keep * (2 * carried - 1)


def shrink(masks: Tensor) -> Tensor:
    """Padded masks bool [T, S, S] to their coverage at stride 4, float [T, S/4, S/4]."""
    return F.avg_pool2d(masks.float()[None], 4)[0]

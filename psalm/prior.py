"""The mask prior, an extra PSALM lacks: each region token may bring the carried mask of its object.

Such a token gets one more query, which starts from the token's embedding and looks first where the carried mask is. A small convolution
then refines that mask with the query's own answer and with colour: how much likelier each pixel is inside the remembered object than around
it. On only when `Extras.mask_prior` is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .mask_decoder import PriorQueries

FEATURES = 16
BINS = 16  # a colour channel
RING_CELLS = 4  # 16 network pixels around the mask are what its colours are told from
UNKNOWN = 1e-4  # share of a colour below which it says nothing
HIDDEN = 24
KEEP_SCALE = 20  # one learned number must be able to grow as fast as a whole layer


@dataclass(frozen=True, slots=True)
class Carried:
    """The carried masks of one sample, for some of its region tokens.

    rows: the region row of each; masks: bool [T, S, S]; likeness: float [T, S/4, S/4], see `colour_likeness`.
    """

    rows: list[int]
    masks: Tensor
    likeness: Tensor


class MaskPrior(nn.Module):
    """Prior queries and the refinement of their masks. width: of the mask decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(width, width)
        self.position = nn.Parameter(torch.randn(width) * 0.02)
        self.reduce = nn.Conv2d(width, FEATURES, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(FEATURES + 3, HIDDEN, 3, padding=1),
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

    def refined(self, mask_features: Tensor, own_logits: Tensor, carried: Tensor, likeness: Tensor) -> Tensor:
        """Refined logits [T, h, w] of one sample.

        mask_features: [d, h, w]; own_logits: the prior queries' [T, h, w]; carried: [T, h, w], 0..1; likeness: [T, h, w].
        """
        shared = self.reduce(mask_features[None]).expand(len(carried), -1, -1, -1)
        own = torch.stack([carried, own_logits.clamp(-10, 10) / 4, likeness], dim=1)
        return self.refine(torch.cat([shared, own], dim=1))[:, 0] + KEEP_SCALE * self.keep * (2 * carried - 1)


def colour_likeness(image: Tensor, remembered: Tensor, mask: Tensor) -> Tensor:
    """How likely each cell of an image has the colours of a remembered object, against those around it: float32 [S/4, S/4], 0..1.

    image, remembered: uint8 [3, S, S] RGB; mask: bool [S, S] of the remembered image. The posterior of two smoothed colour histograms,
    of the mask and of a ring around it; 0.5 where neither knows the colour.
    """
    cells = F.max_pool2d(mask.float()[None, None], 4)
    grown = F.max_pool2d(cells, 2 * RING_CELLS + 1, stride=1, padding=RING_CELLS)
    ring = (F.interpolate(grown, scale_factor=4)[0, 0] > 0) & ~mask
    colours = _colour_bins(remembered)
    inside, around = _histogram(colours[mask]), _histogram(colours[ring])
    posterior = (inside + UNKNOWN) / (inside + around + 2 * UNKNOWN)
    return F.avg_pool2d(posterior[_colour_bins(image)][None], 4)[0]


def _colour_bins(image: Tensor) -> Tensor:
    red, green, blue = (image.long() * BINS) >> 8
    return (red * BINS + green) * BINS + blue


def _histogram(colours: Tensor) -> Tensor:
    """Share of each colour, smoothed over neighbouring bins: float32 [BINS ** 3]."""
    counts = torch.bincount(colours, minlength=BINS**3).float().view(1, 1, BINS, BINS, BINS)
    smooth = F.avg_pool3d(counts, 3, stride=1, padding=1).flatten()
    return smooth / smooth.sum().clamp(min=1e-6)


def shrink(masks: Tensor) -> Tensor:
    """Padded masks bool [T, S, S] to their coverage at stride 4, float [T, S/4, S/4]."""
    return F.avg_pool2d(masks.float()[None], 4)[0]

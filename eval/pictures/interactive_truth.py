"""The truth of PSALM's interactive evaluation: the padded truth of training, brought back to source size, so not quite the original.

Only for official numbers; the honest truth is the segmentation itself (referring_files.mask_of with COCO's rules).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...psalm.postprocess import official_ground_truth
from ...psalm.preprocess import geometry, pad_mask
from .referring_files import draw_coco, mask_of


def official_truth(segmentations: Sequence[Any], size_hw: tuple[int, int], side: int) -> np.ndarray | None:
    """A region's truth as it is scored, bool [H, W]; None, not scored, where the padded square (of `side` pixels) has no pixel of it.

    Polygons are scaled and drawn in the square by COCO's rules, run-lengths resized (nearest), then both are brought back bilinearly as
    uint8 on the CPU. Raises BadInput. Source: PSALM's data mapper and region post-processing.
    """
    where = geometry(size_hw, side)
    padded = np.zeros((side, side), bool)
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            scale = np.array([where.valid_hw[1] / size_hw[1], where.valid_hw[0] / size_hw[0]])
            scaled = [(np.array(polygon, float).reshape(-1, 2) * scale).clip(0, side).ravel().tolist() for polygon in segmentation]
            padded |= draw_coco(scaled, (side, side))
        else:
            padded |= pad_mask(mask_of(segmentation, size_hw), side)
    if not padded.any():
        return None
    return official_ground_truth(torch.from_numpy(padded)[None], where)[0].numpy()

"""A model that truly finds things by colour and says all it sees, as Segmenter.look does: a second implementation for picture tasks.

One query a colour of scene.py. Its mask logits have a cell for every source pixel, so that results are exact.
"""

import numpy as np
import torch
from psalm_stream.psalm.findings import MASK_STRIDE, Findings
from psalm_stream.psalm.preprocess import geometry
from psalm_stream.stream.types import Categories, Regions, Sentence
from scene import BIN, COLOURS

SURE = 20.0
WORDS = {"red": COLOURS[1], "green": COLOURS[2], "blue": COLOURS[3], "grey": (160, 160, 160)}


class ColourLooker:
    """Answers words by the colours in them, regions by their mean colour."""

    digest = "colour"

    def __init__(self):
        self.asked, self.batches = [], []

    def look(self, requests):
        self.batches.append(len(requests))
        self.asked += [request.frame.key.view for request in requests]
        return [self._one(request) for request in requests]

    def _one(self, request):
        pixels = request.frame.pixels()
        masks = [(pixels // BIN == np.array(colour) // BIN).all(axis=-1) for colour in WORDS.values()]
        side = max(pixels.shape[:2])
        cells = torch.full((len(masks), side, side), -SURE)
        for cell, mask in zip(cells, masks, strict=True):
            cell[: mask.shape[0], : mask.shape[1]] = torch.from_numpy(np.where(mask, SURE, -SURE))
        match request.condition:
            case Categories(names):
                kind, hits = "categories", [[word in name for word in WORDS] for name in names]
                hits.append([not any(found) for found in zip(*hits, strict=True)])  # background
            case Sentence(sentences):
                kind, hits = "sentence", [[word in " ".join(sentences) for word in WORDS]]
            case Regions(regions):
                kind = "regions"
                wanted = [np.median(r.frame.pixels()[r.mask], axis=0) // BIN for r in regions]
                hits = [[bool((colour == np.array(c) // BIN).all()) for c in WORDS.values()] for colour in wanted]
        logits = torch.where(torch.tensor(hits), SURE, -SURE)
        return Findings(kind, logits, cells, geometry(request.frame.size_hw, side * MASK_STRIDE))

"""A frame in every type the model can run in, with and without the inputs that PSALM lacks."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from psalm_stream.psalm.config import Extras
from psalm_stream.psalm.names import to_official
from psalm_stream.psalm.weights import load
from psalm_stream.stream.types import Frame, FrameKey, Region, Regions, Request
from tiny_checkpoint import CONFIG, random_state, write

SIZE_HW = (24, 32)
LEFT = np.arange(SIZE_HW[1])[None].repeat(SIZE_HW[0], 0) < 16


def request():
    """Two objects, one of them with a carried mask."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), np.uint8)
    frame = Frame(FrameKey("s", "main", 0), 0, False, SIZE_HW, cv2.imencode(".png", picture)[1].tobytes())
    return Request(frame, Regions((Region(1, frame, LEFT), Region(2, frame, ~LEFT))), carried={2: ~LEFT})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("extras", [Extras(), Extras(mask_prior=True, detail_pooling=True)])
@pytest.mark.parametrize("official", [False, True])
def test_a_frame_is_answered_in_every_type(dtype, extras, official, tmp_path):
    config = replace(CONFIG, extras=extras)
    small = {name: 0.05 * tensor for name, tensor in to_official(random_state(config), config).items()}  # float16 ends at 65504
    write(tmp_path, {n: t.abs() if n.endswith("running_var") else t for n, t in small.items()}, config={"psalm_stream": config.to_json()})
    model = load(tmp_path, dtype=dtype, official_rounding=official, sampled_regions=official)
    (proposals,) = model.segment([request()])
    assert proposals.scores.shape == (2, CONFIG.mask.num_queries + extras.mask_prior)
    assert np.isfinite(proposals.scores).all()
    assert proposals.masks(range(proposals.scores.shape[1])).shape[1:] == SIZE_HW

"""A drawn data set in DAVIS-2017 layout, for trying an evaluation without DAVIS: python -m psalm_stream.eval.davis.drawn DIR

Pictures and exact annotations of the procedural clips that nano was trained on (psalm/train/scenes.py), of seeds it did not see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console

from ...psalm.train.scenes import draw_clip
from ...stream.sinks import write_label_map
from .layout import ANNOTATIONS, IMAGES, LISTS

QUALITY = 95


def draw_davis(root: Path, seeds: tuple[int, ...], frames: int, size: int) -> None:
    """Draw a sequence a seed: `frames` JPEGs whose long side is `size`, their annotations, and the list of set val."""
    for seed in seeds:
        name = f"drawn-{seed:02d}"
        clip = draw_clip(np.random.default_rng(seed), size, frames + 1)
        height, width = clip.valid_hw
        for folder in (root / IMAGES / name, root / ANNOTATIONS / name):
            folder.mkdir(parents=True, exist_ok=True)
        ids = [
            int(i) for i in np.unique(clip.labels[1]) if i
        ]  # frame 0 is apart in time; what is not visible on frame 1 cannot be prompted
        for index in range(frames):
            labels = np.zeros((height, width), np.uint8)
            for number, object_id in enumerate(ids, start=1):
                labels[clip.labels[index + 1, :height, :width] == object_id] = number
            write_label_map(root / ANNOTATIONS / name / f"{index:05d}.png", labels)
            picture = cv2.cvtColor(clip.images[index + 1, :height, :width], cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(root / IMAGES / name / f"{index:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    image_set = root / LISTS[2017] / "val.txt"
    image_set.parent.mkdir(parents=True, exist_ok=True)
    image_set.write_text("".join(f"drawn-{seed:02d}\n" for seed in seeds))


def draw_command(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Where the data set goes.")],
    seeds: Annotated[str, typer.Option(help="One sequence each.")] = "8,12,18",
    frames: Annotated[int, typer.Option(min=3, help="Of each sequence.")] = 40,
    size: Annotated[int, typer.Option(min=64, help="Long side of the pictures.")] = 480,
) -> None:
    """Draw a data set in DAVIS-2017 layout."""
    draw_davis(root, tuple(int(seed) for seed in seeds.split(",")), frames, size)
    Console(highlight=False).print(f"{root}: try  psalm-stream eval davis {root} --out results", soft_wrap=True)


if __name__ == "__main__":
    typer.run(draw_command)

"""What the released size costs here: a full-size checkpoint with random weights is written, loaded in a fresh process, and run.

    python -m psalm_stream.eval.full_size [--storage float32] [--dtype float32] [--dir DIR] [--keep] [--frames 1]

Says how much the peak resident memory grows until every weight was read once, how long loading takes, and what one frame costs.
The answers of random weights mean nothing; whether trained weights are right is the golden tests' business.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from torch import nn

from ..psalm import weights
from ..psalm.config import NAMED_CONFIGS
from ..psalm.segmenter import Segmenter
from ..stream.errors import BadInput
from ..stream.types import Frame, FrameKey, Region, Regions, Request
from .official_checkpoint import official_dtype, official_shapes, write_checkpoint

GROWTH_BAR = 1.25
FRAME_HW = (480, 854)
STAGES = ("swin", "projector", "phi", "pixel_decoder", "predictor")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process measured. Bytes and seconds; stage_s: mean per frame; before, loaded, ran: peak resident memory at that point."""

    weight_bytes: int
    before: int
    loaded: int
    ran: int
    load_s: float
    read_s: float
    frame_s: list[float]
    stage_s: dict[str, float]

    @property
    def growth(self) -> float:
        """Growth of the peak from before `load` until every weight was read, over the bytes of the weights in the running type."""
        return (self.loaded - self.before) / self.weight_bytes


# -- what it costs, measured in a process of its own ------------------------------------------------------------------


def measure(folder: Path, dtype: str, frames: int) -> Cost:
    """Load the checkpoint, read every weight once, answer `frames` frames of 480x854 with one region remembered from the first."""
    before = restart_peak()
    started = perf_counter()
    model = weights.load(folder, dtype=dtype)
    load_s = perf_counter() - started
    state = model.network.state_dict()
    for tensor in state.values():
        tensor.sum()
    read_s = perf_counter() - started - load_s
    loaded = peak_bytes()
    frame_s: list[float] = []
    with stage_seconds(model.network) as stage_s:
        for request in requests(frames):
            started = perf_counter()
            ask(model, request)
            frame_s.append(perf_counter() - started)
    stage_s["rest"] = sum(frame_s) - sum(stage_s.values())
    mean_s = {stage: seconds / frames for stage, seconds in stage_s.items()}
    weight_bytes = sum(t.numel() * t.itemsize for t in state.values() if t.is_floating_point())
    return Cost(weight_bytes, before, loaded, peak_bytes(), load_s, read_s, frame_s, mean_s)


def ask(model: Segmenter, request: Request) -> np.ndarray:
    """The best mask of the first region, as the tracker would ask for it."""
    (proposals,) = model.segment([request])
    if not np.isfinite(proposals.scores).all():
        raise AssertionError(f"scores are not finite in {model.network.seg_query.dtype}")
    return proposals.masks([int(proposals.scores[0].argmax())])


def requests(count: int) -> Iterator[Request]:
    """Different noise pictures; each asks for the same rectangle of the first."""
    import cv2

    rng = np.random.default_rng(0)
    mask = np.zeros(FRAME_HW, bool)
    mask[100:300, 200:500] = True
    first = None
    for index in range(count):
        picture = cv2.resize(rng.integers(0, 256, (15, 27, 3), np.uint8), FRAME_HW[::-1], interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".png", picture)[1].tobytes()
        frame = Frame(FrameKey("full-size", "main", index), index, False, FRAME_HW, data)
        first = first or frame
        yield Request(frame, Regions((Region(1, first, mask),)))


@contextmanager
def stage_seconds(network: nn.Module) -> Iterator[dict[str, float]]:
    """Seconds spent in each of the network's parts while the context is open."""
    seconds = dict.fromkeys(STAGES, 0.0)
    hooks = []
    for stage in STAGES:

        def started(*_: object, stage: str = stage) -> None:
            seconds[stage] -= perf_counter()

        def ended(*_: object, stage: str = stage) -> None:
            seconds[stage] += perf_counter()

        module = network.get_submodule(stage)
        hooks += [module.register_forward_pre_hook(started), module.register_forward_hook(ended)]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def restart_peak() -> int:
    """Forget the peak so far where the kernel allows it; returns the peak as of now, in bytes."""
    with suppress(OSError):  # without the reset the growth is understated by what imports needed for a moment
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Peak resident memory of this process, mapped file pages included; getrusage would inherit the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# -- the command ------------------------------------------------------------------------------------------------------


def cost_table(cost: Cost, storage: str, dtype: str) -> Table:
    """The figures of one run, a line each."""
    shown = Table(title=f"psalm-swinb-phi1.5, stored {storage}, running {dtype}, {torch.get_num_threads()} threads", title_justify="left")
    shown.add_column("figure", no_wrap=True)
    shown.add_column("value", justify="right")
    rows = {
        "weights in the running type": f"{cost.weight_bytes / 1e9:.2f} GB",
        "resident before load": f"{cost.before / 1e9:.2f} GB",
        "peak once all weights were read": f"{cost.loaded / 1e9:.2f} GB",
        f"growth / weights (bar {GROWTH_BAR})": f"{cost.growth:.3f}",
        "load": f"{cost.load_s:.1f} s",
        "read all weights": f"{cost.read_s:.1f} s",
        "peak with the frames run": f"{cost.ran / 1e9:.2f} GB",
        "first frame": f"{cost.frame_s[0]:.1f} s",
    }
    if len(cost.frame_s) > 1:
        rows["later frames, median"] = f"{np.median(cost.frame_s[1:]):.1f} s"
    for name, value in rows.items():
        shown.add_row(name, value)
    shown.add_section()
    for stage, seconds in cost.stage_s.items():
        shown.add_row(f"  {stage}, mean per frame", f"{seconds:.2f} s")
    return shown


def main(
    storage: Annotated[Literal["float32", "float16", "bfloat16"], typer.Option(help="Type of the weights on disk.")] = "float32",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type the model runs in.")] = "float32",
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to make the checkpoint's folder; default: the system's.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave the checkpoint there.")] = False,
    frames: Annotated[int, typer.Option(min=1, help="480x854 frames to run.")] = 1,
) -> None:
    """Measure loading and running a checkpoint of the released size; fails when memory grows past the bar."""
    console = Console()
    config, stored = NAMED_CONFIGS[weights.RELEASED], getattr(torch, storage)
    total = sum(prod(shape) * official_dtype(name, stored).itemsize for name, shape in official_shapes(config).items())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="psalm-full-size-", dir=folder))
    try:
        if (free := shutil.disk_usage(made).free) < 1.1 * total:
            raise BadInput(f"{made}: {free / 1e9:.1f} GB free, expected {1.1 * total / 1e9:.1f} GB; give another folder with --dir")
        columns = (TextColumn("writing the checkpoint"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=total)
            write_checkpoint(made, config, stored, lambda written: progress.advance(task, written))
        with console.status("loading and running it in a fresh process"), ProcessPoolExecutor(1, get_context("spawn")) as process:
            cost = process.submit(measure, made, dtype, frames).result()
    finally:
        if not keep:
            shutil.rmtree(made)
    console.print(cost_table(cost, storage, dtype))
    if keep:
        console.print(f"checkpoint: {made}")
    if cost.growth > GROWTH_BAR:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

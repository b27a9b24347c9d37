"""The script that makes the shipped `nano` weights: python -m psalm_stream.psalm.train.nano --out runs/nano --minutes 90

Draws scenes, mixes in real video when `real.prepare` has mined some, trains on two cores, and leaves a checkpoint folder that
`psalm-stream run --weights` takes. The recipe and the figures it reached are in the model card beside the shipped weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch.utils.data import DataLoader, IterableDataset

from ..checkpoint import open_checkpoint
from ..config import NAMED_CONFIGS
from ..model import Psalm
from ..tokenizer import FolderTokenizer
from ..weights import config_of, fill
from .batches import forward, step_losses
from .clip import Clip
from .criterion import CriterionConfig
from .cutouts import paste
from .examples import TASKS, Example, make_example
from .matcher import uniform
from .real import Real, load_real
from .scenes import draw_clip
from .shipping import save_checkpoint, train_tokenizer

WARMUP_STEPS = 200
EMA_DECAY = 0.998
PORT = "29533"


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How long and on what. minutes: of wall time, the schedule's end; batch: samples a step of each process; processes: that train
    together on one core each, averaging gradients; real, pasted: shares of clips from real video, and of real cut-outs
    over real frames, among questions that need no words; the rest is drawn."""

    minutes: float = 90.0
    batch: int = 4
    processes: int = 2
    learning_rate: float = 8e-4
    weight_decay: float = 0.01
    real: float = 0.35
    pasted: float = 0.25
    points: int = 1024
    seed: int = 0


class Questions(IterableDataset):
    """Endless batches of examples, one task each."""

    def __init__(self, recipe: Recipe, rank: int, size: int, mined: Path | None) -> None:
        self.recipe, self.rank, self.size, self.mined = recipe, rank, size, mined

    def __iter__(self) -> Iterator[list[Example]]:
        rng = np.random.default_rng([self.recipe.seed, self.rank, torch.initial_seed() % 2**31])
        real = load_real(self.mined) if self.mined else None
        names, shares = list(TASKS), np.array(list(TASKS.values()))
        while True:
            task = str(rng.choice(names, p=shares / shares.sum()))
            batch: list[Example] = []
            while len(batch) < self.recipe.batch:
                clip = self._clip(rng, real if task in ("video", "own") else None)
                if (example := make_example(clip, task, rng)) is not None:
                    batch.append(example)
            yield batch

    def _clip(self, rng: np.random.Generator, real: Real | None) -> Clip:
        chance = rng.random()
        if real is None or chance > self.recipe.real + self.recipe.pasted:
            return draw_clip(rng, self.size)
        return real.draw(rng, self.size) if chance < self.recipe.real else paste(rng, real, self.size)


def train(rank: int, out: Path, recipe: Recipe, mined: Path | None, start: Path | None) -> None:
    """One training process: until the recipe's minutes are over, the first one saving every five minutes into `out`.

    mined: a folder of `real.prepare`, or None; start: a checkpoint folder to go on from, or None.
    """
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT}
    dist.init_process_group("gloo", rank=rank, world_size=recipe.processes)
    torch.manual_seed(recipe.seed)
    network = _network(start).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    questions = Questions(recipe, rank, network.config.image_size, mined)
    loader = iter(DataLoader(questions, batch_size=None, num_workers=1, prefetch_factor=4))
    tokenizer = FolderTokenizer(out)
    config, draw = CriterionConfig(num_points=recipe.points), uniform(torch.Generator().manual_seed(recipe.seed + rank))
    log = Log(out / f"log{rank}.csv")
    began = saved = time.monotonic()
    step = 0
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"), disable=rank > 0) as progress:
        bar = progress.add_task("training nano", total=recipe.minutes * 60, note="")
        while (elapsed := _shared(time.monotonic() - began)) < recipe.minutes * 60:
            rate = recipe.learning_rate * min(1, (step + 1) / WARMUP_STEPS) * _cosine(elapsed / (recipe.minutes * 60))
            for group in optimizer.param_groups:
                group["lr"] = rate
            examples = next(loader)
            losses = step_losses(network, examples, forward(network, examples, tokenizer), config, draw)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            _average_gradients(network, recipe.processes)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            _follow(average, network, min(EMA_DECAY, (step + 1) / (step + 10)))
            step += 1
            note = log.add(step, elapsed, examples[0].task, losses.parts)
            progress.update(bar, completed=elapsed, note=f"{step * recipe.batch * recipe.processes} samples  {note}")
            if rank == 0 and time.monotonic() - saved > 300:
                save_checkpoint(average, out)
                saved = time.monotonic()
    if rank == 0:
        save_checkpoint(average, out)
    dist.destroy_process_group()


def _network(start: Path | None) -> Psalm:
    if start is None:
        return Psalm(NAMED_CONFIGS["nano"])
    checkpoint = open_checkpoint(start)
    network = Psalm(config_of(checkpoint))
    fill(network, checkpoint, torch.float32)
    return network.requires_grad_(True)


def _shared(seconds: float) -> float:
    """The first process's clock, so that all of them stop at the same step."""
    clock = torch.tensor(seconds, dtype=torch.float64)
    dist.broadcast(clock, 0)
    return float(clock)


def _average_gradients(network: Psalm, processes: int) -> None:
    parameters = list(network.parameters())
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]) / processes
    dist.all_reduce(flat)
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter)


class Log:
    """Smoothed losses: a row every 50 steps in a CSV, a short line for the progress bar."""

    def __init__(self, file: Path) -> None:
        self.file, self.smooth = file, {}
        self.file.write_text("step,seconds,losses\n")

    def add(self, step: int, seconds: float, task: str, parts: dict[str, float]) -> str:
        for name, value in parts.items():
            key = f"{task}.{name}"
            self.smooth[key] = 0.95 * self.smooth.get(key, value) + 0.05 * value
        note = " ".join(f"{k}={v:.2f}" for k, v in sorted(self.smooth.items()) if k.startswith("video"))
        if step % 50 == 0:
            with self.file.open("a", newline="") as stream:
                csv.writer(stream).writerow([step, round(seconds), " ".join(f"{k}={v:.4f}" for k, v in sorted(self.smooth.items()))])
        return note


@torch.no_grad()
def _follow(average: Psalm, network: Psalm, decay: float) -> None:
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.dtype.is_floating_point:
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _cosine(part: float) -> float:
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(part, 1)))


def main() -> None:
    """Command line of the training script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="checkpoint folder to write")
    parser.add_argument("--mined", type=Path, help="folder written by psalm_stream.psalm.train.real.prepare; without it only drawn scenes")
    parser.add_argument("--start", type=Path, help="checkpoint folder to go on from")
    for field in dataclasses.fields(Recipe):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    given = vars(parser.parse_args())
    recipe = Recipe(**{f.name: given[f.name] for f in dataclasses.fields(Recipe)})
    given["out"].mkdir(parents=True, exist_ok=True)
    train_tokenizer(given["out"], NAMED_CONFIGS["nano"].phi.vocab_size)
    torch.multiprocessing.spawn(train, (given["out"], recipe, given["mined"], given["start"]), nprocs=recipe.processes)


if __name__ == "__main__":
    main()

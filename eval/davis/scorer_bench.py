"""How fast the DAVIS scorer is, and whether it is right: python -m psalm_stream.eval.davis.scorer_bench [--davis DIR] [--results DIR]

Scores one folder of masks sequence by sequence, once as `psalm-stream score davis` does and once by the letter (plain_scorer.py), in turns
and from the files on, so that whatever else the machine does meets both. Without --results the first mask of each sequence is copied to all
its frames. One thread each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ...stream.sinks import write_label_map
from .layout import Davis, DavisSequence, open_davis
from .metrics import Score
from .plain_scorer import plain_scores
from .results import mask_path, score_masks


def copy_first_masks(davis: Davis, folder: Path) -> None:
    """Write the simplest of all answers: the first annotation on every frame."""
    for sequence in davis.sequences:
        (folder / sequence.name).mkdir(parents=True, exist_ok=True)
        for frame in sequence.frames:
            write_label_map(mask_path(folder, sequence.name, frame), sequence.true_map(0))


def both(sequence: DavisSequence, folder: Path, ours_first: bool) -> tuple[float, float, float]:
    """Seconds of ours and of the plain scorer on a sequence, and the largest difference of any J or F of any frame."""
    seconds: dict[str, float] = {}
    found: dict[str, object] = {}
    scorers = {
        "ours": lambda: score_masks(folder, sequence),
        "plain": lambda: plain_scores(sequence.labels, [mask_path(folder, sequence.name, frame) for frame in sequence.frames]),
    }
    for name in ("ours", "plain") if ours_first else ("plain", "ours"):
        began = perf_counter()
        found[name] = scorers[name]()
        seconds[name] = perf_counter() - began
    return seconds["ours"], seconds["plain"], largest_difference(found["ours"], found["plain"])


def largest_difference(ours: Score, plain: dict[int, tuple[list[float], list[float]]]) -> float:
    """Of any J or F of any frame of any object."""
    assert [o.object_id for o in ours.objects] == list(plain)
    pairs = [(o.j_frames, plain[o.object_id][0]) for o in ours.objects] + [(o.f_frames, plain[o.object_id][1]) for o in ours.objects]
    return max(float(np.abs(mine - np.array(theirs)).max()) for mine, theirs in pairs)


def bench_command(
    davis_root: Annotated[Path, typer.Option("--davis", help="Folder in DAVIS-2017 layout.")] = Path("../shared/davis"),
    results: Annotated[Path | None, typer.Option(help="Masks to score. Default: the first mask, copied.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Of everything.")] = 3,
) -> None:
    """Print seconds of both scorers, their ratio, and how far their numbers are apart."""
    cv2.setNumThreads(1)
    console, davis = Console(), open_davis(davis_root)
    table = Table(title=f"scoring, seconds: median of {repetitions}", title_justify="left")
    for name in ("sequence", "frames", "ours", "plain", "ratio", "largest difference"):
        table.add_column(name, justify="left" if name == "sequence" else "right")
    with tempfile.TemporaryDirectory() as temporary:
        if results is None:
            results = Path(temporary)
            copy_first_masks(davis, results)
        turns = [(sequence, turn) for turn in range(repetitions) for sequence in davis.sequences]
        runs = [(sequence.name, both(sequence, results, turn % 2 == 0)) for sequence, turn in track(turns, "scoring", console=console)]
    of = {sequence.name: [run for name, run in runs if name == sequence.name] for sequence in davis.sequences}
    for sequence in davis.sequences:
        ours, plain, apart = (f([run[n] for run in of[sequence.name]]) for n, f in enumerate((median, median, max)))
        table.add_row(sequence.name, str(len(sequence.frames)), f"{ours:.3f}", f"{plain:.2f}", f"{plain / ours:.1f}", f"{apart:.1e}")
    frames = sum(len(sequence.frames) for sequence in davis.sequences)
    ours, plain = (sum(median([run[n] for run in of[s.name]]) for s in davis.sequences) for n in (0, 1))
    table.add_section()
    table.add_row("all", str(frames), f"{ours:.3f}", f"{plain:.2f}", f"{plain / ours:.1f}", f"{max(run[2] for _, run in runs):.1e}")
    console.print(table)


if __name__ == "__main__":
    typer.run(bench_command)

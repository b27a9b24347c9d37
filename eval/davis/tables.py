"""What an evaluation shows and leaves behind: tables for the terminal, one CSV line per method and sequence, one JSON with every frame.

Takes results, returns rich renderables or writes files; runs no model and knows no data set.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...stream.types import ObjectStatus
from .metrics import ObjectScore, Score, average
from .results import OFFICIAL, Results, figures

MEASURES = {"J": lambda score: score.j.mean, "F": lambda score: score.f.mean, "J&F": lambda score: score.jf}


@dataclass(frozen=True, slots=True)
class Result:
    """One method on one sequence. statuses: how the objects' masks came about, over all frames; seconds: of the loop, decoding included."""

    method: str
    sequence: str
    score: Score
    frames: int
    seconds: float
    statuses: Counter[ObjectStatus] = field(default_factory=Counter)


def table(results: Sequence[Result], titles: dict[str, str], measure: str) -> Table:
    """One measure in percent: a line per sequence and their mean over objects, a column per method; the best of a line is bold."""
    methods, sequences = _names(results)
    shown = plain_table(f"{measure}, percent", "sequence")
    for method in methods:
        shown.add_column(titles[method], justify="right", max_width=7)
    scores = {(r.method, r.sequence): r.score for r in results}
    for sequence in sequences:
        shown.add_row(sequence, *_percentages([scores.get((m, sequence)) for m in methods], measure))
    shown.add_section()
    shown.add_row("mean", *_percentages([overall(results, m) for m in methods], measure))
    return shown


def summary(results: Sequence[Result], titles: dict[str, str]) -> Table:
    """A line per method: means, decay, where its masks came from, time per frame (decoding the JPEG included)."""
    shown = plain_table("Summary, percent (seen: by the model; carried: by motion), ms a frame", "method")
    for name in ("J", "F", "J&F", "decay", "seen", "carried", "absent", "ms"):
        shown.add_column(name, justify="right", no_wrap=True)
    for method in _names(results)[0]:
        score, mine = overall(results, method), [r for r in results if r.method == method]
        statuses = sum((r.statuses for r in mine), Counter())
        shares = [f"{100 * statuses[s] / statuses.total():.0f}" if statuses else "-" for s in ObjectStatus]
        means = [f"{100 * v:.1f}" for v in (score.j.mean, score.f.mean, score.jf, score.j.decay_corrected)]
        shown.add_row(titles[method], *means, *shares, f"{1e3 * sum(r.seconds for r in mine) / sum(r.frames for r in mine):.1f}")
    return shown


def comparison(results: Sequence[Result], titles: dict[str, str], method: str, reference: str) -> str | None:
    """How far one method's J&F is above another's, in points, and on how many sequences; None when one of them was not run."""
    methods, sequences = _names(results)
    if method not in methods or reference not in methods:
        return None
    jf = {(r.method, r.sequence): r.score.jf for r in results}
    better = sum(jf[method, s] > jf[reference, s] for s in sequences)
    difference = 100 * (overall(results, method).jf - overall(results, reference).jf)
    return f"{titles[method]} - {titles[reference]}: {difference:+.1f} points J&F, higher on {better} of {len(sequences)} sequences"


def scores_table(results: Results) -> Table:
    """Every object of every sequence, and the mean over objects: J, F, their recall and official decay, in percent."""
    shown = plain_table(f"DAVIS-{results.dataset['layout']} {results.dataset['set']}, percent", "sequence")
    for name in ("object", "J&F", "J", "J rec", "J dec", "F", "F rec", "F dec"):
        shown.add_column(name, justify="right", no_wrap=True)
    for sequence in results.sequences:
        for found in sequence.score.objects:
            shown.add_row(sequence.name, str(found.object_id), *_percents(figures(found.j, found.f)))
    shown.add_section()
    whole = results.score
    shown.add_row("mean over objects", str(len(whole.objects)), *_percents(figures(whole.j, whole.f)), style="bold")
    return shown


def _percents(named: Mapping[str, float]) -> list[str]:
    return ["-" if math.isnan(named[name]) else f"{100 * named[name]:.1f}" for name in OFFICIAL]


def overall(results: Sequence[Result], method: str) -> Score:
    """One method's score over all its sequences: the mean over objects, as the official scorer takes it."""
    return average([o for r in results if r.method == method for o in r.score.objects])


def write_results(folder: Path, results: Sequence[Result], about: dict[str, Any]) -> tuple[Path, Path]:
    """Write scores.csv (a line per method and sequence, fractions) and scores.json (`about`, the same figures, J and F of every frame)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [_flat(r) for r in results]
    csv_path, json_path = folder / "scores.csv", folder / "scores.json"
    with csv_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    detailed = [
        {k: None if v != v else v for k, v in line.items()} | {"objects": [_frames(o) for o in r.score.objects]}
        for line, r in zip(lines, results, strict=True)
    ]
    json_path.write_text(json.dumps(about | {"results": detailed}, indent=1, allow_nan=False) + "\n")
    return csv_path, json_path


def plain_table(title: str, first: str) -> Table:
    """An empty table narrow enough for 80 columns with seven methods."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    shown.add_column(first, no_wrap=True)
    return shown


def _names(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """Methods and sequences in the order they first appear."""
    return list(dict.fromkeys(r.method for r in results)), list(dict.fromkeys(r.sequence for r in results))


def _percentages(scores: Sequence[Score | None], measure: str) -> list[str]:
    shown = [f"{100 * MEASURES[measure](s):.1f}" if s else "-" for s in scores]
    best = max((s for s in shown if s != "-"), key=float, default="-")
    return [f"[bold]{s}[/bold]" if s == best and len(shown) > 1 else s for s in shown]


def _flat(result: Result) -> dict[str, Any]:
    score = result.score
    return {
        "method": result.method,
        "sequence": result.sequence,
        "J": score.j.mean,
        "J_recall": score.j.recall,
        "J_decay": score.j.decay,
        "J_decay_corrected": score.j.decay_corrected,
        "F": score.f.mean,
        "F_recall": score.f.recall,
        "F_decay": score.f.decay,
        "F_decay_corrected": score.f.decay_corrected,
        "J&F": score.jf,
        "frames": result.frames,
        **{status.value: result.statuses[status] for status in ObjectStatus},
        "ms_per_frame": 1e3 * result.seconds / result.frames,
    }


def _frames(score: ObjectScore) -> dict[str, Any]:
    return {"object_id": score.object_id, "J": score.j_frames.round(6).tolist(), "F": score.f_frames.round(6).tolist()}

"""What an Ego-Exo4D evaluation shows and leaves behind: tables for the terminal, results.json, pairs.csv.

Takes scores and gives rich renderables or files; the page with pictures is page.py's.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .data import Take
from .objectrelator import Totals
from .predictions import refuse_misfits
from .score import MEASURES, Figures, Scored, by_take, figures, mean_of_takes, rows, score, undecodable

RECORD, PAIRS = "results.json", "pairs.csv"
ARROWS = {"ego-exo": "ego → exo", "exo-ego": "exo → ego"}
IN_PERCENT = ("iou", "ca", "ba", "existence", "ca_registered")
OBJECTRELATOR_MEASURES = {
    "iou": "IoU, best proposal, pooled over a take",
    "location": "location, fused map, over the diagonal",
    "shape": "shape accuracy, fused map",
    "existence": "existence",
    "location_objects": "location, mean of objects",
    "shape_objects": "shape accuracy, mean of objects",
}


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction, scored. undecodable: true masks that are not counted because they cannot be decoded."""

    scored: Sequence[Scored] = field(repr=False)
    undecodable: int

    @property
    def overall(self) -> Figures:
        """The official averages."""
        return figures(self.scored)

    @property
    def takes(self) -> dict[str, Figures]:
        """The averages of each take."""
        return by_take(self.scored)


@dataclass(frozen=True, slots=True)
class Results:
    """What an evaluation came to. dataset, method: plain values, method {} for predictions of others; remarks: what must be known."""

    dataset: Mapping[str, Any]
    method: Mapping[str, Any]
    remarks: Sequence[str]
    official: Mapping[str, Direction] = field(default_factory=dict)
    objectrelator: Mapping[str, Totals] = field(default_factory=dict)
    ms: Sequence[float] = field(default=(), repr=False)


def score_directions(
    takes: Sequence[Take], by_direction: Mapping[str, Mapping[str, Any]], advance: Callable[[], None]
) -> dict[str, Direction]:
    """Validate and score a prediction file's directions; `advance` is called after each take. Raises BadInput."""
    for direction, results in by_direction.items():
        refuse_misfits(takes, results, direction)
    return {
        direction: Direction(score(takes, results, direction, advance), sum(undecodable(take, direction) for take in takes))
        for direction, results in by_direction.items()
    }


# -- for the terminal -------------------------------------------------------------------------------------------------


def official_table(found: Mapping[str, Direction]) -> Table:
    """A line per measure; for each direction the official mean over object frames, and the mean over takes."""
    shown = _table("Ego-Exo4D correspondence, official rules", [column for d in found for column in (ARROWS[d], "by take")])
    columns = [each for one in found.values() for each in (one.overall, mean_of_takes(list(one.takes.values())))]
    for name, title in MEASURES.items():
        if name == "ca_registered":
            shown.add_section()
        shown.add_row(title, *(shown_number(name, getattr(column, name)) for column in columns))
    shown.add_section()
    shown.add_row("objects visible / scored", *(f"{c.visible}/{c.frames}" for c in columns))
    return shown


def objectrelator_table(found: Mapping[str, Totals]) -> Table:
    """A line per measure, a column per direction."""
    shown = _table("ObjectRelator's evaluation", [ARROWS[direction] for direction in found])
    for name, title in OBJECTRELATOR_MEASURES.items():
        shown.add_row(title, *(shown_number("le" if "location" in name else "iou", getattr(total, name)) for total in found.values()))
    shown.add_section()
    shown.add_row("takes, samples", *(f"{total.takes}, {total.samples}" for total in found.values()))
    shown.add_row("objects, left out as vanished", *(f"{total.objects}, {total.vanished}" for total in found.values()))
    return shown


def _table(title: str, columns: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    return shown


def shown_number(name: str, value: float) -> str:
    """Shares in percent, location errors as they are."""
    if math.isnan(value):
        return "-"
    return f"{100 * value:.1f} %" if name in IN_PERCENT else f"{value:.4f}"


# -- files ------------------------------------------------------------------------------------------------------------


def write_results(folder: Path, results: Results) -> None:
    """Write results.json, every number of the evaluation, and pairs.csv, a line for every object frame that was scored."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps(as_json(results), indent=1, allow_nan=False, default=str) + "\n")
    if not results.official:
        return
    with (folder / PAIRS).open("w", newline="") as file:
        writer = csv.writer(file)
        for number, (direction, found) in enumerate(results.official.items()):
            lines = rows(found.scored)
            header = next(lines)
            if number == 0:
                writer.writerow(("direction", *header))
            writer.writerows((direction, *line) for line in lines)


def as_json(results: Results) -> dict[str, Any]:
    """The results as plain values; null where nothing could be measured."""
    official = {
        direction: _plain(asdict(found.overall))
        | {
            "mean_of_takes": _plain(asdict(mean_of_takes(list(found.takes.values())))),
            "undecodable": found.undecodable,
            "takes": {uid: _plain(asdict(take)) for uid, take in found.takes.items()},
        }
        for direction, found in results.official.items()
    }
    return {
        "dataset": dict(results.dataset),
        "method": dict(results.method),
        "remarks": list(results.remarks),
        "ms_per_question": round(sum(results.ms) / len(results.ms), 1) if results.ms else None,
        "official": official,
        "objectrelator": {direction: _plain(asdict(total)) for direction, total in results.objectrelator.items()},
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}

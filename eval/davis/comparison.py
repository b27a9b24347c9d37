"""Two results folders of one data set side by side: which objects got better or worse, by how much, and on which frame most.

Reads results.json of both, and masks and pictures for what it shows; computes no score anew. Its page is templates/comparison.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ...stream.errors import BadInput
from .charts import Chart, Line
from .evaluation import flat
from .layout import DavisSequence, open_davis
from .metrics import ObjectScore, Score, average
from .overlays import frame_scores, picture
from .page import made_by, render, title_of
from .results import RECORD, Results, SequenceResult, read_answer, read_results
from .tables import plain_table

NOT_TOLD = ("root", "listed")  # of no interest beside each other


@dataclass(frozen=True, slots=True)
class Pair:
    """One sequence that both folders have."""

    one: SequenceResult
    two: SequenceResult

    @property
    def name(self) -> str:
        """Its name."""
        return self.one.name

    @property
    def objects(self) -> list[tuple[ObjectScore, ObjectScore]]:
        """Each object's two scores."""
        return list(zip(self.one.score.objects, self.two.score.objects, strict=True))

    @property
    def farthest(self) -> int:
        """Index of the frame on which the two differ most."""
        return int(np.argmax(np.abs(frame_scores(self.two.score) - frame_scores(self.one.score)))) + 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two folders and what they share. names: what to call them; unshared: sequences that only one of them has."""

    folders: tuple[Path, Path]
    names: tuple[str, str]
    results: tuple[Results, Results]
    pairs: tuple[Pair, ...]
    unshared: tuple[str, ...]

    @property
    def scores(self) -> tuple[Score, Score]:
        """Each one's mean over the objects of what they share."""
        return tuple(average([found[n] for pair in self.pairs for found in pair.objects]) for n in (0, 1))

    @property
    def higher(self) -> tuple[int, int]:
        """On how many objects each is higher."""
        differences = [jf(two) - jf(one) for pair in self.pairs for one, two in pair.objects]
        return sum(d < 0 for d in differences), sum(d > 0 for d in differences)

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """What was set otherwise in the two: name and both values."""
        one, two = (flat({**results.dataset, **results.method}) for results in self.results)
        names = [name for name in {**one, **two} if name not in NOT_TOLD and one.get(name) != two.get(name)]
        return [(name.replace("_", " "), str(one.get(name, "not known")), str(two.get(name, "not known"))) for name in names]


def jf(found: ObjectScore) -> float:
    """J&F of an object."""
    return (found.j.mean + found.f.mean) / 2


def compare(one: Path, two: Path) -> Comparison:
    """Put two results folders beside each other. Raises BadInput for a folder without results, and for two that share nothing."""
    results = tuple(_results(folder) for folder in (one, two))
    for name in ("layout", "set"):
        values = [r.dataset[name] for r in results]
        if values[0] != values[1]:
            raise BadInput(f"{one} is of {name} {values[0]}, {two} of {name} {values[1]}; compare results of one data set")
    first, second = ({s.name: s for s in r.sequences} for r in results)
    pairs = tuple(Pair(s, second[s.name]) for s in results[0].sequences if s.name in second)
    pairs = tuple(pair for pair in pairs if pair.one.score.objects or pair.two.score.objects)  # of nothing there is nothing to compare
    if not pairs:
        raise BadInput(f"{one} and {two} share no sequence with an object: {', '.join(first)} there, {', '.join(second)} here")
    for pair in pairs:
        here, there = (f"{len(s.frames)} frames and {len(s.score.objects)} objects" for s in (pair.one, pair.two))
        if pair.one.frames != pair.two.frames or here != there:
            raise BadInput(f"{pair.name} has {here} in {one}, {there} in {two}; compare results of the same data and the same --limit")
    names = (one.resolve().name, two.resolve().name)
    names = names if names[0] != names[1] else (str(one), str(two))
    return Comparison((one, two), names, results, pairs, tuple(sorted(first.keys() ^ second.keys())))


def _results(folder: Path) -> Results:
    if (found := read_results(folder)) is None:
        raise BadInput(f"{folder} holds no {RECORD}; score its masks first: psalm-stream score davis ROOT {folder}")
    return found


def comparison_table(found: Comparison) -> Table:
    """J&F of every object in both folders, in percent, and the difference in points."""
    shown = plain_table("J&F, percent", "sequence")
    for name in ("object", *found.names, "difference"):
        shown.add_column(name, justify="right")
    for pair in found.pairs:
        for one, two in pair.objects:
            shown.add_row(pair.name, str(one.object_id), *_line(jf(one), jf(two)))
    shown.add_section()
    shown.add_row("mean over objects", "", *_line(*(score.jf for score in found.scores)), style="bold")
    return shown


def _line(one: float, two: float) -> list[str]:
    colour = "green" if two > one else "red" if two < one else "default"
    return [f"{100 * one:.1f}", f"{100 * two:.1f}", f"[{colour}]{100 * (two - one):+.1f}[/]"]


def write_comparison(found: Comparison, path: Path, root: Path | None) -> None:
    """Write the page. root: the data set's folder, None for none: then it has no pictures. Raises BadInput."""
    sources = {}
    if root is not None:
        data = found.results[0].dataset
        sources = {s.name: s for s in open_davis(root, data["set"], [p.name for p in found.pairs], data["limit"]).sequences}
    one, two = found.scores
    page = render(
        "comparison.html",
        title=f"{found.names[0]} and {found.names[1]} on {title_of(found.results[0])}",
        names=found.names,
        made=[made_by(results) for results in found.results],
        whole=(one, two),
        higher=found.higher,
        objects=len(one.objects),
        unshared=found.unshared,
        settings=found.settings,
        rows=[
            {"sequence": pair.name, "object_id": a.object_id, "one": a, "two": b, "jf": (jf(a), jf(b))}
            for pair in found.pairs
            for a, b in pair.objects
        ],
        sequences=[_section(found, pair, sources.get(pair.name)) for pair in found.pairs],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _section(found: Comparison, pair: Pair, source: DavisSequence | None) -> dict[str, Any]:
    at = pair.farthest
    over_time = [frame_scores(result.score) for result in (pair.one, pair.two)]
    lines = [Line(name, kind, values) for name, kind, values in zip(found.names, "jf", over_time, strict=True)]
    return {
        "name": pair.name,
        "jf": (pair.one.score.jf, pair.two.score.jf),
        "frame": pair.one.frames[at],
        "chart": Chart(pair.one.frames, lines, {at: "d"}).svg(),
        "figures": [] if source is None else _figures(found, source, at, [float(values[at - 1]) for values in over_time]),
    }


def _figures(found: Comparison, source: DavisSequence, at: int, scores: Sequence[float]) -> list[dict[str, Any]]:
    truth, image = source.true_map(at), source.image(at)
    return [
        {"name": name, "jf": score, "uri": picture(image, truth, read_answer(folder, source, at))}
        for name, folder, score in zip(found.names, found.folders, scores, strict=True)
    ]

"""report.html of a results folder: one page that needs no other file, for whoever wants to see what the numbers mean.

Takes results and the folder's masks; what a page looks like is in templates/, drawings are charts.py's, pictures overlays.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import NARROW, WIDE, Chart, Line, spark, stacked
from .layout import Davis, DavisSequence
from .metrics import ObjectScore
from .overlays import bright, frame_scores, picture, telling_frames
from .results import OFFICIAL, Results, SequenceResult, SequenceRun, figures, read_answer

REPORT = "report.html"
LETTERS = {"best": "b", "median": "m", "worst": "w"}


def write_report(folder: Path, results: Results, davis: Davis) -> Path:
    """Write report.html beside the masks it shows. Raises BadInput when one of them cannot be read."""
    sources = {sequence.name: sequence for sequence in davis.sequences}
    whole = results.score
    page = render(
        "davis.html",
        title=title_of(results),
        made=made_by(results),
        remarks=results.remarks,
        whole=figures(whole.j, whole.f),
        objects=len(whole.objects),
        columns=_columns(results),
        rows=[_row(sequence, found) for sequence in results.sequences for found in sequence.score.objects],
        sequences=[_section(folder, sequence, sources[sequence.name]) for sequence in results.sequences],
        speed=_speed([sequence.run for sequence in results.sequences if sequence.run]),
        facts=facts_of(results),
    )
    path = folder / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def render(template: str, **values: Any) -> str:
    """A page from a template of this package."""
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(template).render(values)


def title_of(results: Results) -> str:
    """The data set in words."""
    return f"DAVIS-{results.dataset['layout']} {results.dataset['set']}"


def made_by(results: Results) -> str:
    """How the masks were made, in a line."""
    made = results.method
    if not made:
        return f"masks of another method, from {results.dataset['root']}"
    if made.get("bus"):
        return f"followed by segment workers behind {made['bus']}, weights {made['weights_digest']}"
    motion = f", motion {made['motion']}" if made["policy"] == "honest" else ""  # the official loop knows none
    return f"weights {made['weights']}, policy {made['policy']}{motion}, {made['device']}, {made['dtype']}"


def facts_of(results: Results) -> list[tuple[str, str]]:
    """Everything that is known of the making, as names and values."""
    facts = {f"data set: {name}": value for name, value in results.dataset.items() if value is not None}
    for name, value in results.method.items():
        if isinstance(value, Mapping):
            facts[name] = ", ".join(f"{inner} {v}" for inner, v in value.items())
        elif value is not None:
            facts[name.replace("_", " ")] = value
    return [(name, str(value)) for name, value in facts.items()]


def _columns(results: Results) -> list[str]:
    """The official numbers of a row, and the corrected decay where it differs."""
    columns = [name for name in OFFICIAL if name != "J&F-Mean"]
    objects = [found for sequence in results.sequences for found in sequence.score.objects]
    for measure in ("J", "F"):
        found = [getattr(o, measure.lower()) for o in objects]
        if any(not np.isclose(s.decay, s.decay_corrected, equal_nan=True) for s in found):
            columns.insert(columns.index(f"{measure}-Decay") + 1, f"{measure}-Decay-corrected")
    return columns


def _row(sequence: SequenceResult, found: ObjectScore) -> dict[str, Any]:
    shares = None
    if sequence.run:
        statuses = sequence.run.objects.get(found.object_id, ("absent",) * len(sequence.frames))
        shares = {status: count / len(statuses) for status, count in (Counter(seen=0, carried=0, absent=0) | Counter(statuses)).items()}
        shares = {status: shares.get(status, 0.0) for status in ("seen", "carried", "absent")}
    return {
        "sequence": sequence.name,
        "object_id": found.object_id,
        "scores": figures(found.j, found.f),
        "spark": spark((found.j_frames + found.f_frames) / 2),
        "shares": shares,
        "frames": len(sequence.frames),
    }


def _section(folder: Path, result: SequenceResult, source: DavisSequence) -> dict[str, Any]:
    shown = telling_frames(frame_scores(result.score)) if result.score.objects else {}
    return {
        "name": result.name,
        "scores": figures(result.score.j, result.score.f),
        "frames": len(result.frames),
        "rate": len(result.frames) / result.run.seconds if result.run else None,
        "charts": [_chart(result, found, shown) for found in result.score.objects],
        "figures": [_figure(folder, result, source, name, index) for name, index in shown.items()],
    }


def _chart(result: SequenceResult, found: ObjectScore, shown: Mapping[str, int]) -> dict[str, Any]:
    lines = [Line("J", "j", found.j_frames), Line("F", "f", found.f_frames)]
    marks = {index: LETTERS[name] for name, index in shown.items()}
    statuses = result.run.objects.get(found.object_id, ()) if result.run else ()
    width = WIDE if len(result.score.objects) == 1 else NARROW
    svg = Chart(result.frames, lines, marks, statuses, width).svg()
    colour = "#{:02x}{:02x}{:02x}".format(*bright(found.object_id))
    return {"object_id": found.object_id, "colour": colour, "j": found.j.mean, "f": found.f.mean, "svg": svg}


def _figure(folder: Path, result: SequenceResult, source: DavisSequence, name: str, index: int) -> dict[str, Any]:
    objects = result.score.objects
    return {
        "name": name,
        "frame": result.frames[index],
        "j": np.mean([o.j_frames[index - 1] for o in objects]),
        "f": np.mean([o.f_frames[index - 1] for o in objects]),
        "uri": picture(source.image(index), source.true_map(index), read_answer(folder, source, index)),
    }


def _speed(runs: Sequence[SequenceRun]) -> dict[str, Any] | None:
    """Where the time of a frame went, over all sequences; None when nobody measured."""
    if not runs:
        return None
    names = dict.fromkeys(stage for run in runs for stage in run.ms)
    times = {stage: np.concatenate([run.ms.get(stage, ()) for run in runs]) for stage in names}
    means = {stage: float(ms.mean()) for stage, ms in times.items()}
    frames = sum(len(run.statuses) for run in runs)
    return {
        "frames": frames,
        "rate": frames / sum(run.seconds for run in runs),
        "mean_ms": sum(means.values()),
        "bar": stacked(means, "ms"),
        "stages": [
            {"name": stage, "mean": means[stage], "p50": float(np.median(ms)), "p95": float(np.quantile(ms, 0.95))}
            for stage, ms in times.items()
        ],
    }

"""report.html of an Ego-Exo4D evaluation: the figures by direction and take, and pairs of pictures from the best answer to the worst.

The page's frame and its pictures are those of davis/ (templates/base.html, overlays.py). Numbers come from report.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...stream import rle
from ..davis.overlays import picture
from ..davis.page import render
from .ask import EXISTS, resized
from .data import Take, scoring_size
from .predictions import predicted_rle
from .report import ARROWS, OBJECTRELATOR_MEASURES, Direction, Results, shown_number
from .run import Job, predictions
from .score import EXPLAINED, MEASURES, Scored, mean_of_takes

REPORT = "report.html"
QUANTILES = {"best": 1.0, "upper quarter": 0.75, "median": 0.5, "lower quarter": 0.25, "worst": 0.0}


def write_page(job: Job, results: Results) -> Path:
    """Write report.html into the results folder."""
    page = render(
        "egoexo.html",
        title=f"Ego-Exo4D correspondence, {results.dataset['split']}",
        made=made_by(results),
        remarks=results.remarks,
        calibration=results.method["confidence"],
        directions=[_section(job, direction, found) for direction, found in results.official.items()],
        explained=EXPLAINED,
        theirs=_theirs(results),
        facts={**results.dataset, **{k: v for k, v in results.method.items() if not isinstance(v, Mapping)}},
    )
    path = job.out / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def made_by(results: Results) -> str:
    """How the answers were made, in a line."""
    turned = results.method.get("upright_ego")
    said = f"{results.method['weights']} ({results.method['weights_digest']}), {results.method['dtype']}"
    return f"{said}, ego pictures turned {turned}" if turned else f"{said}, pictures as stored"


def telling(scored: Sequence[Scored]) -> Iterator[tuple[str, Scored]]:
    """The answers worth looking at, and why: from the best IoU to the worst, the surest false alarm, the least sure of what is there."""
    visible = sorted((s for s in scored if s.exists), key=lambda s: s.iou)
    shown: set[int] = set()
    for name, share in QUANTILES.items():
        at = round(share * (len(visible) - 1))
        if visible and at not in shown:
            shown.add(at)
            yield f"{name}: IoU {100 * visible[at].iou:.1f}", visible[at]
    alarms = [s for s in scored if not s.exists and s.confidence > EXISTS]
    if alarms:
        yield "false alarm: it is not there", max(alarms, key=lambda s: s.confidence)
    missed = [s for s in visible if s.confidence <= EXISTS]
    if missed:
        yield "missed: it is there", min(missed, key=lambda s: s.confidence)


def _section(job: Job, direction: str, found: Direction) -> dict[str, Any]:
    takes = {take.uid: take for take in job.data.takes}
    parts = {uid: predictions(job, takes[uid])[0][direction] for uid in {s.take for _, s in telling(found.scored)}}
    overall, mean = found.overall, mean_of_takes(list(found.takes.values()))
    return {
        "name": ARROWS[direction],
        "cards": [
            (shown_number(name, getattr(overall, name)), title) for name, title in MEASURES.items() if name in ("iou", "ca", "le", "ba")
        ],
        "frames": f"{overall.visible} of {overall.frames} object frames have the object in view",
        "rows": [(title, shown_number(n, getattr(overall, n)), shown_number(n, getattr(mean, n))) for n, title in MEASURES.items()],
        "takes": [
            (takes[uid].name or uid, f.visible, f.frames, *(shown_number(n, getattr(f, n)) for n in ("iou", "ca", "le", "ba")))
            for uid, f in found.takes.items()
        ],
        "figures": [_figure(job, takes[s.take], s, why, parts[s.take]) for why, s in telling(found.scored)],
    }


def _figure(job: Job, take: Take, scored: Scored, why: str, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """The query picture with its mask, and the target picture with the answer and the true outline."""
    number = take.objects.index(scored.name) + 1
    answer = rle.decode(predicted_rle(predicted["masks"][scored.name][f"{scored.query}_{scored.target}"][str(scored.frame)]))
    query = take.mask(scored.name, scored.query, scored.frame)
    truth = take.mask(scored.name, scored.target, scored.frame)
    asked = np.zeros(answer.shape, bool) if query is None else resized(rle.decode(query), scoring_size(query.size_hw))
    nothing, true = np.zeros(asked.shape, np.uint8), np.zeros(answer.shape, bool)
    if truth is not None:
        true = resized(rle.decode(truth), answer.shape)
    return {
        "why": why,
        "what": f"{scored.name}, frame {scored.frame} of {take.name or take.uid}, confidence {scored.confidence:.2f}",
        "query": picture(_picture(job, take, scored.query, scored.frame), nothing, (asked * number).astype(np.uint8)),
        "target": picture(_picture(job, take, scored.target, scored.frame), true.view(np.uint8), (answer * number).astype(np.uint8)),
        "cameras": (scored.query, scored.target),
    }


def _picture(job: Job, take: Take, camera: str, frame: int) -> Path | None:
    path = job.data.picture(take.uid, camera, frame)
    return path if path.is_file() else None


def _theirs(results: Results) -> dict[str, Any] | None:
    """ObjectRelator's figures as a table, None when they were not asked for."""
    if not results.objectrelator:
        return None
    found = results.objectrelator
    measures = {n: "le" if "location" in n else "iou" for n in OBJECTRELATOR_MEASURES}
    rows = [(OBJECTRELATOR_MEASURES[n], *(shown_number(kind, getattr(t, n)) for t in found.values())) for n, kind in measures.items()]
    rows += [(title, *(getattr(t, title) for t in found.values())) for title in ("takes", "samples", "objects", "vanished")]
    return {"columns": [ARROWS[direction] for direction in found], "rows": rows}

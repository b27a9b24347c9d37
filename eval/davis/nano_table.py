"""The table of what each part of the tracker is worth on DAVIS: J, F and J&F of model, motion, both, and their controls.

    python -m psalm_stream.eval.davis.nano_table [--davis DIR] [--weights PATH] [--sequences a,b] [--limit N] [--only ROWS] [--out DIR]

Every row but the first is what `psalm-stream eval davis` runs (source, plan, segment, settle) with the honest policy and the first mask
given; row `both` is its result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...stream.errors import BadInput, PsalmStreamError
from ...stream.paint import label_map
from ...stream.types import ObjectStatus
from ...workers.answering import Model
from ...workers.settings import Settings
from .layout import DavisSequence, open_davis
from .metrics import score_sequence
from .tables import Result, comparison, overall, summary, table, write_results
from .tracking import NoModel, embedded_tracker

DAVIS = Path("../shared/davis")
SEED = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One row. motion: the tracker's rule, None for no tracker at all; weights: none, trained, random (same sizes) or plain (no extras)."""

    name: str
    title: str
    motion: str | None
    weights: str


ROWS = (
    Row("copy", "copy first mask", None, "none"),
    Row("motion", "motion alone", "only", "none"),
    Row("model", "model alone", "off", "trained"),
    Row("both", "both", "on", "trained"),
    Row("random", "both, random weights", "on", "random"),
    Row("model-plain", "model, extras off", "off", "plain"),
    Row("both-plain", "both, extras off", "on", "plain"),
)


# -- the models, the only lines here that know how a model is made ----------------------------------------------------


def trained_weights(weights: str) -> Model:
    """The checkpoint as it is."""
    from ...psalm.weights import load

    return load(weights)


def random_weights(weights: str) -> Model:
    """A model of the same configuration, freshly initialised with a fixed seed."""
    import torch

    from ...psalm.model import Psalm
    from ...psalm.segmenter import Segmenter

    trained = trained_weights(weights)
    torch.manual_seed(SEED)
    return Segmenter(Psalm(trained.config).eval().requires_grad_(False), trained.tokenizer, f"random-{SEED}")


def plain_weights(weights: str) -> Model | None:
    """The checkpoint with the inputs PSALM lacks switched off; None when it has none."""
    from ...psalm.config import Extras
    from ...psalm.model import Psalm
    from ...psalm.segmenter import Segmenter

    trained = trained_weights(weights)
    if trained.config.extras == Extras():
        return None
    network = Psalm(replace(trained.config, extras=Extras())).eval().requires_grad_(False)
    fitted = network.load_state_dict(trained.network.state_dict(), strict=False)  # the extras' own tensors are left over
    assert not fitted.missing_keys
    return Segmenter(network, trained.tokenizer, f"{trained.digest}-plain")


MODELS: dict[str, Callable[[str], Model | None]] = {
    "none": lambda _: NoModel(),
    "trained": trained_weights,
    "random": random_weights,
    "plain": plain_weights,
}

COMPARED = (
    ("model", "copy"),
    ("motion", "copy"),
    ("both", "motion"),
    ("random", "motion"),
    ("model", "model-plain"),
    ("both", "both-plain"),
)


def run_sequence(row: Row, model: Model, sequence: DavisSequence, advance: Callable[[], None]) -> Result:
    """Run one row on one sequence and score it; `advance` is called once a frame."""
    truth = sequence.truth()
    statuses: Counter[ObjectStatus] = Counter()
    answers: list[np.ndarray] = []
    started = perf_counter()
    if row.motion is None:
        answers = [truth[0]] * len(truth)
    else:
        for _, answer in embedded_tracker(model, Settings(policy="honest", motion=row.motion))(sequence):
            answers.append(label_map(answer))
            statuses.update(found.status for found in answer.objects)
            advance()
    seconds = perf_counter() - started
    return Result(row.name, sequence.name, score_sequence(truth, answers), len(truth), seconds, statuses)


def run_row(row: Row, model: Model, sequences: Sequence[DavisSequence], progress: Progress) -> list[Result]:
    """Run one row on every sequence, with a bar that becomes the row's mean."""
    task = progress.add_task(row.title, total=sum(len(s.labels) for s in sequences), note="")
    results = []
    for sequence in sequences:
        progress.update(task, note=sequence.name)
        results.append(run_sequence(row, model, sequence, lambda: progress.advance(task)))
    score = overall(results, row.name)
    note = f"J {100 * score.j.mean:.1f}  F {100 * score.f.mean:.1f}  J&F {100 * score.jf:.1f}"
    progress.update(task, completed=progress.tasks[task].total, note=note)
    return results


def chosen_rows(only: str) -> list[Row]:
    """The rows named in a comma-separated list, in table order; all of them for an empty one. Raises BadInput."""
    names = [row.name for row in ROWS]
    if unknown := sorted(set(_split(only)) - set(names)):
        raise BadInput(f"row {unknown[0]} is unknown, expected some of {','.join(names)}")
    return [row for row in ROWS if not only or row.name in _split(only)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def run_rows(rows: Sequence[Row], sequences: Sequence[DavisSequence], weights: str, console: Console) -> Iterator[tuple[str, list[Result]]]:
    """Run row after row behind progress bars: yields each one's model digest and results. A row whose model does not exist is skipped."""
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        for row in rows:
            if (model := MODELS[row.weights](weights)) is None:
                progress.console.print(f"{row.title}: left out, the model has no inputs that PSALM lacks")
                continue
            yield model.digest, run_row(row, model, sequences, progress)


def show(results: Sequence[Result], console: Console) -> None:
    """Print the tables of J, F and J&F, the summary, and how the rows compare."""
    titles = {row.name: row.title for row in ROWS}
    for measure in ("J", "F", "J&F"):
        console.print(table(results, titles, measure))
    console.print(summary(results, titles))
    for pair in COMPARED:
        if line := comparison(results, titles, *pair):
            console.print(line, highlight=False)


def table_command(
    davis: Annotated[Path, typer.Option(help="Folder in DAVIS-2017 layout.")] = DAVIS,
    weights: Annotated[str, typer.Option(help="Checkpoint folder or hub id; nano is the shipped one.")] = "nano",
    sequences: Annotated[str, typer.Option(help="Comma-separated sequence names. Default: all of the list.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=3, help="Only the first N frames of each sequence; not comparable with full runs.")
    ] = None,
    only: Annotated[str, typer.Option(help="Comma-separated rows: " + ",".join(row.name for row in ROWS) + ". Default: all.")] = "",
    out: Annotated[Path, typer.Option(help="Where scores.csv and scores.json go.")] = Path("out/nano-table"),
) -> None:
    """Print J, F and J&F per DAVIS sequence for the model, motion, both, and their controls (honest policy, first mask given)."""
    console, failure = Console(), None
    results: list[Result] = []
    digests: dict[str, str] = {}
    try:
        rows, chosen = chosen_rows(only), open_davis(davis, names=_split(sequences), limit=limit).sequences
        for digest, found in run_rows(rows, chosen, weights, console):
            results += found
            digests[found[0].method] = digest
            write_results(out, results, {"weights": weights, "digests": digests, "limit": limit})
    except PsalmStreamError as error:
        failure = error
    if results:
        cut = f", only the first {limit} of each" if limit else ""
        console.print(f"\n{sum(len(s.labels) for s in chosen)} frames of {', '.join(s.name for s in chosen)}{cut}\n", highlight=False)
        show(results, console)
        console.print(f"\nwrote {out / 'scores.csv'} and {out / 'scores.json'}", highlight=False)
    if failure is not None:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(failure))}", highlight=False)
        raise typer.Exit(2)


def main() -> None:
    """Entry of `python -m psalm_stream.eval.davis.nano_table`."""
    typer.run(table_command)


if __name__ == "__main__":
    main()

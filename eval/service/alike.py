"""How alike are the answers of two runs that need not be the same bit by bit: another batch size, thread count or device?

    python -m psalm_stream.eval.service.alike ONE OTHER

ONE and OTHER: folders that `psalm-stream run` or `masks --out` wrote, or their masks.jsonl. Frames are paired by their keys, masks by
object id. Reports the share of frames whose every mask has an IoU of at least 0.999, and the first that differs; which of the two is
right is not said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...stream.codec import digest, mask_frame_from_json
from ...stream.errors import BadInput, BadRecord, PsalmStreamError
from ...stream.rle import decode
from ...stream.types import FrameKey, MaskFrame, Rle
from ...workers.run_files import LINES
from ..davis.metrics import jaccard
from .rig import plain_table

ALIKE_IOU = 0.999


@dataclass(frozen=True, slots=True)
class FramePair:
    """One frame in two answers. ious: by object id; equal: whether the answers are, by digest."""

    key: FrameKey
    ious: Mapping[int, float]
    equal: bool

    @property
    def worst(self) -> tuple[int, float]:
        """The object that differs most, and its IoU; 0 and 1.0 in a frame without objects."""
        return min(self.ious.items(), key=lambda item: item[1], default=(0, 1.0))

    @property
    def least(self) -> float:
        """The smallest IoU."""
        return self.worst[1]


def iou(one: Rle | None, other: Rle | None) -> float:
    """Of two masks of one size, 0..1. Both without a pixel, or without a mask, are equal; one without a mask has nothing in common."""
    if one == other:
        return 1.0
    if one is None or other is None:
        return 0.0
    return jaccard(decode(one), decode(other))


def pair_frame(one: MaskFrame, other: MaskFrame) -> FramePair:
    """Compare two answers to one frame; an object that only one of them lists has no mask in the other. Raises BadInput."""
    if one.size_hw != other.size_hw:
        raise BadInput(
            f"frame {one.key} has {one.size_hw} pixels (height, width) in ONE and {other.size_hw} in OTHER; give runs of one input"
        )
    masks = [{found.object_id: found.rle for found in answer.objects} for answer in (one, other)]
    ids = sorted(masks[0].keys() | masks[1].keys())
    ious = {object_id: iou(masks[0].get(object_id), masks[1].get(object_id)) for object_id in ids}
    return FramePair(one.key, ious, digest(one) == digest(other))


def pair_frames(one: Mapping[FrameKey, MaskFrame], other: Mapping[FrameKey, MaskFrame]) -> list[FramePair]:
    """Compare two runs frame by frame, the views of a session side by side. Raises BadInput when they answer different frames."""
    if unshared := sorted(one.keys() ^ other.keys()):
        has, lacks = ("ONE", "OTHER") if unshared[0] in one else ("OTHER", "ONE")
        raise BadInput(
            f"ONE answers {len(one)} frames, OTHER {len(other)}, and {len(unshared)} are in one of them only: {has} has {unshared[0]}, "
            f"{lacks} lacks it; give two runs of one input, session and length"
        )
    return [pair_frame(one[key], other[key]) for key in sorted(one, key=lambda key: (key.session, key.index, key.view))]


# -- files ------------------------------------------------------------------------------------------------------------


def read_answers(path: Path) -> dict[FrameKey, MaskFrame]:
    """The answers of a masks.jsonl, or of a results folder, which has one, or one a view. Raises BadInput, BadRecord."""
    files = [path] if path.is_file() else sorted(path.glob(LINES)) or sorted(path.glob(f"*/{LINES}"))
    if not files:
        raise BadInput(f"{path} is no file and holds no {LINES}; give what `psalm-stream run` or `masks --out` wrote")
    found: dict[FrameKey, MaskFrame] = {}
    for file in files:
        _read_lines(file, found)
    if not found:
        raise BadInput(f"{files[0]} holds no answer, expected one a line; did its run end early?")
    return found


def _read_lines(file: Path, found: dict[FrameKey, MaskFrame]) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read ({error}); expected lines of JSON, as `psalm-stream run` writes them") from error
    for number, line in enumerate(lines, 1):
        try:
            answer = mask_frame_from_json(json.loads(line))
        except (ValueError, BadRecord) as error:
            raise BadRecord(
                f"{file} line {number} is no answer ({error}); run it again, or cut a last line that was not finished"
            ) from error
        if answer.key in found:
            raise BadRecord(f"{file} line {number} answers frame {answer.key} a second time; give the answers of one run")
        found[answer.key] = answer


# -- the command ------------------------------------------------------------------------------------------------------


def show(pairs: Sequence[FramePair], console: Console) -> None:
    """Print how many frames are alike, and the first that is not."""
    table = plain_table("two answers to the same frames", "", ["frames", "share"])
    table.add_row("compared", str(len(pairs)), "")
    for name, holds in (
        ("equal by digest (all but ms)", lambda pair: pair.equal),
        ("every mask equal", lambda pair: pair.least == 1.0),
        (f"every IoU >= {ALIKE_IOU}", lambda pair: pair.least >= ALIKE_IOU),
    ):
        count = sum(map(holds, pairs))
        table.add_row(name, str(count), f"{100 * count / len(pairs):.1f} %")
    console.print(table)
    where = plain_table("the first frame that differs", "", ["frame", "object", "IoU"])
    where.add_row("in anything but ms", *_first(pairs, lambda pair: not pair.equal))
    where.add_row("in a mask", *_first(pairs, lambda pair: pair.least < 1.0))
    where.add_row(f"below IoU {ALIKE_IOU}", *_first(pairs, lambda pair: pair.least < ALIKE_IOU))
    where.add_section()
    where.add_row("the least alike", *_first(pairs, partial(_is_least, min(pair.least for pair in pairs))))
    console.print(where)


def _is_least(least: float, pair: FramePair) -> bool:
    return pair.least == least < 1.0


def _first(pairs: Sequence[FramePair], holds: Callable[[FramePair], bool]) -> tuple[str, str, str]:
    """Frame, object and IoU of the first pair of which something holds, in its worst object."""
    pair = next(filter(holds, pairs), None)
    if pair is None:
        return "none", "", ""
    object_id, value = pair.worst
    return (str(pair.key), str(object_id), f"{value:.6f}") if value < 1.0 else (str(pair.key), "", "1")


def alike_command(
    one: Annotated[Path, typer.Argument(metavar="ONE", help="Results folder, or its masks.jsonl.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The same of another run on the same frames.")],
) -> None:
    """Compare the answers of two runs mask by mask; reports, and fails only when they cannot be compared."""
    console = Console(highlight=False)
    try:
        pairs = pair_frames(read_answers(one), read_answers(other))
    except PsalmStreamError as error:
        Console(stderr=True, highlight=False).print(f"error {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    show(pairs, console)


if __name__ == "__main__":
    typer.run(alike_command)

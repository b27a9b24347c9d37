"""The results folder of `psalm-stream run`: what lies where in it, and the sinks that write it.

Of one input masks/ and masks.jsonl lie in the folder itself; of several views each has a folder of its name with both. overlay.mp4 and
run.json are about all of them, and lie in the folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from ..stream.errors import BadConfig
from ..stream.side_by_side import Shape, SideBySideSink
from ..stream.sinks import JsonLinesSink, OverlaySink, PaletteSink, Sink
from ..stream.sources import Source

MASKS, LINES, OVERLAY, RECORD = "masks", "masks.jsonl", "overlay.mp4", "run.json"


def folder_of(view: str) -> str:
    """A view's name as that of a folder: what a file system or a path would take amiss is escaped as in a URL."""
    name = quote(view, safe=" ")
    return name.replace(".", "%2E") if set(name) <= {"."} else name


def clear_results(out: Path, views: Sequence[str] = ()) -> None:
    """Make the results folder, and take away what an earlier run wrote there; nothing else in it is touched. Raises BadConfig.

    views: of this run, when it has several.
    """
    folders = [out / folder_of(view) for view in views]
    try:
        for folder in folders or [out]:
            (folder / MASKS).mkdir(parents=True, exist_ok=True)
        for folder in [out, *folders]:
            for path in [*(folder / MASKS).glob("[0-9]*.png"), folder / LINES]:
                path.unlink(missing_ok=True)
        for path in (out / OVERLAY, out / RECORD):
            path.unlink(missing_ok=True)
        if folders and (out / MASKS).is_dir() and not any((out / MASKS).iterdir()):
            (out / MASKS).rmdir()
    except OSError as error:
        raise BadConfig(f"--out {out} cannot be written ({error}); choose a folder that can") from error


def open_sinks(out: Path, sources: Mapping[str, Source], several: bool, overlay: bool) -> dict[str, list[Sink]]:
    """The sinks that take each view's frames, by view; a sink may stand under several. several: whether views have folders of their own."""
    folders = {view: out / folder_of(view) if several else out for view in sources}
    sinks: dict[str, list[Sink]] = {v: [PaletteSink(folder / MASKS), JsonLinesSink(folder / LINES)] for v, folder in folders.items()}
    if overlay:
        if several:
            shown: Sink = SideBySideSink(out / OVERLAY, {view: Shape(source.size_hw, source.fps) for view, source in sources.items()})
        else:
            shown = OverlaySink(out / OVERLAY, max(source.fps for source in sources.values()))
        for own in sinks.values():
            own.append(shown)
    return sinks

"""The flags that name the views of a run: text -> views. `--view NAME=INPUT`, `--offset NAME=SECONDS`.

Inputs are opened by stream/views.py; what is drawn on a view is prompt_flags.py's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..stream.errors import BadConfig
from ..stream.views import View
from ..stream.wanted import check_name

EXAMPLE = "--view ego=a.mp4 --view exo=b.mp4"
OWN_NAMES = ("overlay.mp4", "run.json")  # of files beside the views' folders


def read_inputs(url: str | None, views: Sequence[str], offsets: Sequence[str]) -> tuple[View, ...]:
    """The views of a run, none for one of a single input. Raises BadConfig, also for neither and for both."""
    if url is None and not views:
        raise BadConfig(f"nothing is to be run, expected INPUT, or the views of a scene, such as {EXAMPLE}")
    if url is not None and views:
        raise BadConfig(f"INPUT {url} and --view {views[0]} were given, expected one or the other; name every input with --view")
    return read_views(views, offsets)


def read_views(views: Sequence[str], offsets: Sequence[str] = ()) -> tuple[View, ...]:
    """The views that were given, in their order; none for none. Raises BadConfig for what is unreadable, twice there, or alone."""
    found: dict[str, View] = {}
    for text in views:
        name, url = _pair("--view", text, "NAME=INPUT, such as ego=a.mp4")
        check_name(f"--view {text}: the name", name)
        if name in OWN_NAMES:
            raise BadConfig(f"--view {text}: the name is that of a file of the results; choose another")
        if name in found:
            raise BadConfig(f"--view {text}: view {name!r} was given before, as {found[name].url}; give each view a name of its own")
        found[name] = View(name, url)
    if len(found) == 1:
        raise BadConfig(f"--view {views[0]} is the only view, expected two or more, such as {EXAMPLE}; a single input needs no --view")
    told: set[str] = set()
    for text in offsets:
        name, seconds = _pair("--offset", text, "NAME=SECONDS, such as exo=0.2")
        if name not in found:
            known = f"expected one of {', '.join(found)}" if found else f"expected one that --view names, such as {EXAMPLE}"
            raise BadConfig(f"--offset {text}: view {name!r} is not there, {known}")
        if name in told:
            raise BadConfig(f"--offset {text}: view {name!r} has an offset already; give it one")
        told.add(name)
        found[name] = replace(found[name], offset_ns=round(_seconds(text, seconds) * 1e9))
    return tuple(found.values())


def _pair(flag: str, text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise BadConfig(f"{flag} {text} cannot be read, expected {form}")
    return name.strip(), value.strip()


def _seconds(text: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadConfig(f"--offset {text}: {value!r} is no number of seconds, expected one such as 0.2 or -1.5")
    return seconds

"""Several inputs as the views of one session: opened together, their frames in one order, that of their capture times.

So what is read does not depend on how fast an input is. For inputs that can be waited for. Cameras must not wait for one another and are
refused: they are published each by itself (kafka_sources.py), and the log orders them. What views tell each other is psalm/cross_view.py's.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from .errors import BadConfig, SourceFailed
from .sources import Source, open_source
from .types import Frame


@dataclass(frozen=True, slots=True)
class View:
    """One view of a session: its name, the path, URL or camera that fills it, and nanoseconds to add to its clock."""

    name: str
    url: str
    offset_ns: int = 0


@dataclass(slots=True)
class Views:
    """Opened inputs by view, in the order they were given: iterate once for all their frames; a context manager that closes them.

    Iterating goes by capture time, at the same time in the order of the views, and holds one frame of each. A view that ends, is damaged
    or goes away does not stop the others; after the last frame SourceFailed names those that did not end as they should.
    """

    views: Sequence[View]
    sources: Mapping[str, Source]

    def __iter__(self) -> Iterator[Frame]:
        failed: list[str] = []
        yield from heapq.merge(*(self._frames(view, failed) for view in self.views), key=lambda frame: frame.t_ns)
        if failed:
            raise SourceFailed("; ".join(failed))

    @property
    def frames(self) -> int | None:
        """How many to expect in all, None when nobody can say."""
        counts = [source.frames for source in self.sources.values()]
        return None if None in counts else sum(counts)

    def close(self) -> None:
        """Let go of every input. May be called twice."""
        with ExitStack() as stack:
            for source in self.sources.values():
                stack.callback(source.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frames(self, view: View, failed: list[str]) -> Iterator[Frame]:
        try:
            for frame in self.sources[view.name]:
                yield replace(frame, t_ns=frame.t_ns + view.offset_ns)
        except SourceFailed as error:
            failed.append(f"view {view.name}: {error}")


def open_views(views: Sequence[View], *, session: str, limit: int | None = None) -> Views:
    """Open every view of a session; at most `limit` frames of each.

    Raises SourceFailed, naming the view, and BadConfig for a live one.
    """
    with ExitStack() as stack:
        sources: dict[str, Source] = {}
        for view in views:
            try:
                sources[view.name] = stack.enter_context(open_source(view.url, session=session, view=view.name, limit=limit))
            except SourceFailed as failed:
                raise SourceFailed(f"view {view.name}: {failed}") from failed
        refuse_live(sources)
        stack.pop_all()
    return Views(views, sources)


def refuse_live(sources: Mapping[str, Source]) -> None:
    """Raise BadConfig for a live view: a silent one would stop all others, and nothing connects it anew."""
    live = [name for name, source in sources.items() if source.live]
    if live:
        raise BadConfig(
            f"view {live[0]} is live, expected videos or folders: views are read in step, and a silent one would stop the others; stream "
            f"each by `psalm-stream ingest URL --session S --view {live[0]}` to segment workers, which share objects between views too"
        )

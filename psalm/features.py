"""What is kept of encoded frames: a remembered frame costs no backbone pass. The least recently asked for goes first.

Each view keeps its own few, so that a busy stream cannot push out what another asks for on every frame: its anchors. A frame that is asked
about in one view by what another shows is looked up among that view's.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict

from ..stream.types import Frame, FrameKey
from .model import ImageFeatures

FRAMES_A_VIEW = 16  # a few objects' anchors and memories, and the frames between
VIEWS = 64  # of all sessions
FrameId = tuple[FrameKey, int]
ViewId = tuple[str, str]


def identity(frame: Frame) -> FrameId:
    """Equal for equal pictures under one key: a session may end and begin anew under its name."""
    return frame.key, zlib.crc32(frame.data)


class FeatureCache:
    """ImageFeatures by frame."""

    def __init__(self) -> None:
        self._views: OrderedDict[ViewId, OrderedDict[FrameId, ImageFeatures]] = OrderedDict()

    def get(self, frame_id: FrameId) -> ImageFeatures | None:
        """What is kept of a frame, None when nothing is."""
        view = _view(frame_id)
        if view not in self._views or frame_id not in self._views[view]:
            return None
        self._views.move_to_end(view)
        self._views[view].move_to_end(frame_id)
        return self._views[view][frame_id]

    def put(self, frame_id: FrameId, features: ImageFeatures) -> None:
        """Keep what is known of a frame, and let go of what was not asked for the longest."""
        view = _view(frame_id)
        kept = self._views.setdefault(view, OrderedDict())
        kept[frame_id] = features
        self._views.move_to_end(view)
        kept.move_to_end(frame_id)
        if len(kept) > FRAMES_A_VIEW:
            kept.popitem(last=False)
        if len(self._views) > VIEWS:
            self._views.popitem(last=False)


def _view(frame_id: FrameId) -> ViewId:
    return frame_id[0].session, frame_id[0].view

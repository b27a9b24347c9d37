"""What the text of an input names, and how it may be shown. Nothing is opened here: that is video.py and sources.py."""

from __future__ import annotations

import re
from pathlib import Path


def is_url(url: str) -> bool:
    """Whether this is an address with a scheme, not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url) is not None


def is_camera(url: str) -> bool:
    """Whether this names a local camera."""
    return re.fullmatch(r"camera:\d+|/dev/video\d+", url) is not None


def without_credentials(url: str) -> str:
    """A URL as it may be shown: no user, no password, no query (it may carry a token)."""
    if not is_url(url):
        return url
    return re.sub(r"\?.*", "?***", re.sub(r"://.*@", "://***@", url, flags=re.S), flags=re.S)


def waits(url: str) -> bool:
    """Whether what is wrong with an input now may be mended by waiting: a network or a plug, not a file."""
    return is_url(url) or is_camera(url)


def absolute(url: str) -> str:
    """An input as a process with another working directory finds it."""
    return url if waits(url) else str(Path(url).absolute())

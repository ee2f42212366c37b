"""The engine's heap: large blocks are given back to the system, whatever was freed before."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Prints how much more is in pages of its own once a block of a size that was freed before is there.
_PROBE = """
import ctypes
from skillc_runtime import heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(f"f{{i}}", ctypes.c_size_t) for i in range(10)]  # struct mallinfo2; 4 is hblkhd
libc.mallinfo2.restype = Info
if {kept}:
    heap.keep_large_blocks_apart()
libc.free(libc.malloc(4 << 20))
before = libc.mallinfo2().f4
block = libc.malloc(3 << 20)
print(libc.mallinfo2().f4 - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="glibc 2.33 or later tells",
)
@pytest.mark.parametrize("kept", [True, False])
def test_large_blocks_have_pages_of_their_own(kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(kept=kept)], capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) >= 3 << 20) is kept

"""What running processes hold: memory and open files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path


def processes(pid: int) -> Iterator[int]:
    """`pid` and the processes that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def memory_mb(pid: int) -> float:
    """Resident memory of the server's processes, in MB (10^6 bytes)."""
    return sum(map(own_memory_mb, processes(pid)))


def own_memory_mb(pid: int) -> float:
    """Resident memory of this one process, in MB (10^6 bytes)."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


def open_files(pid: int) -> int:
    """Open files of the server's processes, once connections that were closed here are gone."""
    counts = []
    for _ in range(30):
        counts.append(sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in processes(pid)))
        time.sleep(0.1)
    return min(counts)

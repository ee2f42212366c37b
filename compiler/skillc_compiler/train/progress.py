"""Progress of long work: a bar with ETA on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts steps; `update` at every step, cheap when there is nothing to print."""

    def __init__(self, name: str, total: int, start: int = 0, every: float = 20.0) -> None:
        self._name, self._total, self._start = name, total, start
        self._begun = self._last = time.monotonic()
        self._tty = sys.stderr.isatty()
        self._every = 0.2 if self._tty else every

    def update(self, step: int, note: str, tokens: int) -> None:
        """Show `step` of the total with a note; `tokens` processed since the start of this run."""
        now = time.monotonic()
        if now - self._last < self._every and step < self._total:
            return
        self._last = now
        spent = max(now - self._begun, 1e-9)
        left = (self._total - step) * spent / max(step - self._start, 1)
        line = (
            f"{self._name} {step}/{self._total} {note} {tokens / spent:,.0f} tok/s"
            f" ETA {int(left // 60)}:{int(left % 60):02d}"
        )
        if self._tty:
            filled = 24 * step // self._total
            bar = "#" * filled + "." * (24 - filled)
            end = "\n" if step >= self._total else ""
            print(f"\r\x1b[K[{bar}] {line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

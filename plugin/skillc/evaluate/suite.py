"""One run of a suite: compile its skills, ask in every arm, report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from skillc.evaluate.arms import ARMS, harness
from skillc.evaluate.cases import Case
from skillc.evaluate.report import figures, table
from skillc.evaluate.scoring import Mark
from skillc.figures import Target, figures_object
from skillc_compiler.bases import find_base
from skillc_compiler.families.interface import load_compiler

TARGETS: dict[str, dict[str, Target]] = {
    "commands": {
        "none_exact": ("<=", 0.02),
        "wrong_exact": ("<=", 0.02),
        "adapter_exact": (">=", 0.6),
    },
    "handwritten": {"wrong_command": ("<=", 0.02), "outside_leak": ("<=", 0.05)},
}


@dataclass(frozen=True)
class Settings:
    """What a run depends on besides its cases."""

    base: str
    rank: int
    threads: int | None
    answers: Path | None


class _Notes:
    """Plain progress lines on standard error, at most one every few seconds."""

    def __init__(self, every: float = 5.0) -> None:
        self._every = every
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last >= self._every:
            self._last = now
            print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


def run(name: str, cases: Sequence[Case], settings: Settings, *, as_json: bool) -> int:
    """Measure and print; 0 when the suite's targets hold, 1 when not."""
    base = find_base(settings.base)
    note = _Notes()
    marks: list[Mark] = []
    with harness(base, threads=settings.threads) as made:
        refs = made.compile(load_compiler(base), cases, rank=settings.rank, note=note)
        for arm in ARMS:
            marks += made.run(arm, cases, refs, note)
    found = figures(marks, ARMS)
    if settings.answers:
        lines = "".join(json.dumps(asdict(mark), ensure_ascii=False) + "\n" for mark in marks)
        settings.answers.write_text(lines, encoding="utf-8")
    result = figures_object(f"eval {name}", found, TARGETS[name])
    print(json.dumps(result) if as_json else table(found, ARMS), flush=True)
    return 0 if result["met"] else 1

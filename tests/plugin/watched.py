"""A project that is being watched, for tests: what the watch says is recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plugin.project import SKILL, FakeCompiler, locked

from skillc.outcome import Outcome
from skillc.plan import Plan
from skillc.watch import Listener, Watch
from skillc_compiler.skill import parse_skill
from skillc_compiler.store import Store

PATIENCE = 60.0


@dataclass
class Recorder(Listener):
    """Everything a watch said, in order."""

    outcomes: list[Outcome] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    polling: list[bool] = field(default_factory=list)
    detections: int = 0

    def detected(self, plan: Plan) -> None:
        self.detections += 1

    def built(self, plan: Plan, outcomes: list[Outcome]) -> None:
        self.outcomes += outcomes

    def said(self, line: str) -> None:
        self.lines.append(line)

    def watching(self, skills: int, *, polling: bool) -> None:
        self.polling.append(polling)

    def statuses(self, name: str) -> list[str]:
        return [outcome.status for outcome in self.outcomes if outcome.name == name]


@contextmanager
def watching(
    root: Path, compiler: FakeCompiler, *, scan_seconds: float = 600.0, **options: Any
) -> Iterator[Recorder]:
    """Watch the project at `root` in a thread; by default only events can tell of a change."""
    recorder = Recorder()
    watch = Watch(root, recorder, lambda base: compiler, scan_seconds=scan_seconds, **options)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        eventually(lambda: recorder.polling or recorder.lines)
        assert watch.problem is None
        yield recorder
    finally:
        watch.stop()
        thread.join()
    assert watch.problem is not None


def eventually(happened: Callable[[], object], what: str = "it") -> None:
    """Wait until `happened()` is true; fails after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:.0f} s"
        time.sleep(0.01)


def text(name: str, *more: str) -> str:
    """A SKILL.md that no other call of this gives, unless with the same words."""
    return SKILL.format(name=name) + "".join(f"- {line}\n" for line in more)


def serves(root: Path, name: str, wanted: str) -> bool:
    """Whether the lock and the store have the adapter of exactly this text of `name`."""
    if not (root / "skillc.lock").exists():
        return False
    entry = locked(root).skills.get(name)
    skill = parse_skill(wanted.encode(), folder=name)
    if entry is None or entry.hash != skill.hash or entry.stale:
        return False
    stored = Store(root / ".skillc" / "store").open(entry.key)
    return stored.manifest.skill_hash == skill.hash

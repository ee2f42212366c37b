"""Builds whenever skills change: events are a hint, a scan of every file's content is the truth."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc.build import build
from skillc.hints import Hints
from skillc.memory import Memory
from skillc.outcome import BuildReport, Outcome
from skillc.plan import Plan, make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.target import Target, find_target
from skillc_compiler.errors import SkillcError

if TYPE_CHECKING:
    from skillc_compiler.bases import Base
    from skillc_compiler.families.interface import Compiler

SETTLE_SECONDS = 0.15
"""How long nothing must change before a build begins."""

SETTLE_MOST = 2.0
"""How long a build waits at most for that."""

SCAN_SECONDS = 5.0
"""How often everything is read, whatever events say; less often where that takes long."""

POLL_SECONDS = 0.5
"""How often files' times are compared where there are no events."""

SCAN_SHARE = 20  # Scans take at most one part in this many of the time.


class Listener:
    """Hears of a watch and does nothing with it; all calls come from the watch's thread."""

    def detected(self, plan: Plan) -> None:
        """A build is going to change something."""

    def built(self, plan: Plan, outcomes: list[Outcome]) -> None:
        """What became of the skills, and the lock is written; unchanged ones are left out."""

    def said(self, line: str) -> None:
        """Something a user should know, once."""

    def watching(self, skills: int, *, polling: bool) -> None:
        """All is built; the watch waits for changes."""


@dataclass
class Watch:
    """The watch of the project at `root`; `run` blocks until `stop`.

    `load` gets the compiler of a base; it is called once for each compiler.
    """

    root: Path
    listener: Listener
    load: Callable[[Base], Compiler]
    polling: bool = False
    scan_seconds: float = SCAN_SECONDS

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._memory: Memory | None = None
        self._compiler: tuple[Target, Compiler] | None = None
        self._said: set[str] = set()
        self._error = ""
        self._files: list[Path] = []
        self._failed: dict[str, str | None] = {}
        self._folders: dict[Path, bool] = {self.root: False}
        self._skills = 0
        self._thread: threading.Thread | None = None
        self._hints = Hints(polling=self.polling)

    @property
    def problem(self) -> str | None:
        """Why changes are not seen any more; None while the watch runs, or has yet to begin."""
        if self._thread is None or (self._thread.is_alive() and not self._stop.is_set()):
            return None
        return "the watch for changed skills has ended: restart it"

    def run(self) -> None:
        """Build now and after every change, until `stop`."""
        self._thread = threading.current_thread()
        try:
            hinted = False
            while not self._stop.is_set():
                took = self._cycle(trusting=hinted)
                next_scan = time.monotonic() + max(self.scan_seconds, SCAN_SHARE * took)
                hinted = self._wait(next_scan)
                while hinted and not self._stop.is_set():
                    took = self._cycle(trusting=True)
                    hinted = self._wait(next_scan)
        finally:
            self._hints.stop()

    def stop(self) -> None:
        """End `run` as soon as the build in progress is through."""
        self._stop.set()
        self._hints.hint()

    def _wait(self, deadline: float) -> bool:
        """Wait for a change to settle; False when it is time for the next full scan."""
        left = max(0.0, deadline - time.monotonic())
        if self._hints.polling:
            return not self._stop.wait(min(left, POLL_SECONDS)) and left > POLL_SECONDS
        if not self._hints.wait(left):
            return False
        latest = time.monotonic() + SETTLE_MOST
        while self._hints.wait(SETTLE_SECONDS) and time.monotonic() < latest:
            pass
        return True

    def _cycle(self, *, trusting: bool) -> float:
        """One look at the project, and a build if it needs one; returns the seconds it took."""
        started = time.monotonic()
        try:
            # Before the look: what changes during it is hinted at again.
            self._hints.watch(self._folders)
            report = self._build(trusting=trusting)
            self._error = ""
            for warning in report.warnings:
                self._say(warning)
            self.listener.watching(self._skills, polling=self._hints.polling)
        except SkillcError as error:
            if self._error != str(error):
                self._error = str(error)
                self.listener.said(self._error)
        for line in self._hints.lines:
            self._say(line)
        return time.monotonic() - started

    def _build(self, *, trusting: bool) -> BuildReport:
        project = Project.at(self.root)
        target = find_target(project.settings.base)
        memory = self._memory = self._memory or project.memory()
        plans: list[Plan] = []
        if not self._files:
            # There may be nothing to build: that a first skill comes has to be seen.
            self._follow(project, [])

        def make() -> Plan:
            memory.begin(trusting=trusting and not plans)
            plans.append(make_plan(project, target, memory=memory))
            self._skills = len(plans[-1].steps)
            files = [step.path for step in plans[-1].steps]
            if files != self._files or not trusting:
                self._follow(project, files)
            if plans[-1].todo or plans[-1].removed:
                self.listener.detected(plans[-1])
            return plans[-1]

        report = build(make, lambda: self._loaded(target), Progress())
        outcomes = [one for one in report.outcomes if one.status != "unchanged"]
        if news := [one for one in outcomes if self._is_news(one)]:
            self.listener.built(plans[-1], news)
        self._failed = {one.name: one.reason for one in outcomes if one.status == "failed"}
        return report

    def _follow(self, project: Project, files: list[Path]) -> None:
        """Watch the folders of a project with skills at `files`; look again when one is new."""
        self._files = files
        folders = folders_of(project, files)
        new = folders.keys() - self._folders.keys()
        self._folders = folders
        if new:
            self._hints.watch(folders)
            self._hints.hint()

    def _is_news(self, outcome: Outcome) -> bool:
        return self._failed.get(outcome.name, "") != outcome.reason

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.listener.said(line)

    def _loaded(self, target: Target) -> Compiler:
        if self._compiler is None or self._compiler[0] != target:
            self._compiler = target, self.load(target.base)
        return self._compiler[1]


def folders_of(project: Project, files: list[Path]) -> dict[Path, bool]:
    """The folders to watch for changes of a project whose skills are `files`.

    The value says whether with all that is below. Where a root is missing its nearest parent is
    watched; links are followed to what they lead to.
    """
    folders = {project.root: False}
    for root in project.roots():
        if root.is_dir():
            folders[root.resolve()] = True
        else:
            there = next(parent for parent in root.parents if parent.is_dir())
            folders.setdefault(there, False)
    tops = tuple(f"{path}{os.sep}" for path, below in folders.items() if below)
    for file in files:
        real = file.parent.resolve()
        if f"{real}{os.sep}".startswith(tops):
            target = file.resolve() if file.is_symlink() else None
            if target is not None and not f"{target}".startswith(tops):
                folders.setdefault(target.parent, False)
            continue
        folders.setdefault(real, False)
    return folders

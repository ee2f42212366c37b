"""How a build shows its progress: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from skillc.outcome import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress:
    """Hears of a build and shows nothing."""

    def begin(self, total: int) -> None:
        """`total` skills are going to be compiled."""

    def compiling(self, name: str) -> None:
        """The skill `name` is next."""

    def done(self, outcome: Outcome) -> None:
        """One skill is through, for good or bad."""

    def end(self) -> None:
        """Nothing more comes, be it the end or an error."""


class Lines(Progress):
    """One line on standard error for each skill that was not simply unchanged."""

    def done(self, outcome: Outcome) -> None:
        if outcome.status != "unchanged":
            click.echo(outcome.line(), err=True)


class Bar(Progress):
    """A bar with the time left on standard error, and a line for each skill that failed or went."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def begin(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("compiling"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("loading the compiler", total=total)
        self._bar.start()

    def compiling(self, name: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name)

    def done(self, outcome: Outcome) -> None:
        if self._bar is None or self._task is None:
            if outcome.status in ("failed", "removed"):
                click.echo(outcome.line(), err=True)
            return
        if outcome.status in ("built", "failed"):
            self._bar.advance(self._task)
        if outcome.status in ("failed", "removed"):
            self._bar.console.print(outcome.line(), markup=False, highlight=False)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def progress_for(*, quiet: bool) -> Progress:
    """The progress that fits standard error; nothing when `quiet`."""
    if quiet:
        return Progress()
    return Bar() if sys.stderr.isatty() else Lines()

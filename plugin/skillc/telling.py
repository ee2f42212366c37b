"""How `skillc watch` and `skillc dev` tell what happens: lines with a status, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from skillc.watch import Listener

if TYPE_CHECKING:
    from rich.status import Status

    from skillc.outcome import Outcome
    from skillc.plan import Plan


class Teller(Listener):
    """One line for each thing that happens, with the time of day, on standard output."""

    def line(self, text: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}")

    def detected(self, plan: Plan) -> None:
        names = [step.name for step in plan.todo] or list(plan.removed)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        self.status(f"building {', '.join(names[:3])}{more}")

    def built(self, plan: Plan, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.line(outcome.line())

    def said(self, line: str) -> None:
        self.line(line)

    def watching(self, skills: int, *, polling: bool) -> None:
        how = "polling" if polling else "watching"
        self.status(f"{how} {skills} skill{'s' if skills != 1 else ''}, Ctrl-C ends")

    def served(self, name: str, seconds: float) -> None:
        """The server answers with the newest adapter of a skill, or with a 404 when it is gone."""

    def status(self, text: str) -> None:
        """What is going on at the moment; shown on terminals only."""


class Live(Teller):
    """Lines above one status line that always says what is going on."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def line(self, text: str) -> None:
        self._status.console.print(
            f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False
        )

    def status(self, text: str) -> None:
        from rich.markup import escape

        self._status.update(escape(text))


class Json(Teller):
    """One JSON object a line: `event`, `time` in seconds since 1970, and what belongs to it."""

    def event(self, event: str, **more: object) -> None:
        click.echo(json.dumps({"event": event, "time": time.time(), **more}))

    def line(self, text: str) -> None:
        self.event("line", text=text)

    def detected(self, plan: Plan) -> None:
        hashes = {step.name: step.hash for step in plan.todo}
        self.event("detected", skills=hashes, removed=list(plan.removed))

    def built(self, plan: Plan, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.event("built", **outcome.to_dict())

    def watching(self, skills: int, *, polling: bool) -> None:
        self.event("watching", skills=skills, polling=polling)

    def served(self, name: str, seconds: float) -> None:
        self.event("served", name=name, seconds=round(seconds, 4))


@contextmanager
def teller(*, as_json: bool) -> Iterator[Teller]:
    """The teller that fits standard output."""
    if as_json:
        yield Json()
    elif sys.stdout.isatty():
        from rich.console import Console

        with Console().status("starting") as status:
            yield Live(status)
    else:
        yield Teller()

"""`skillc list`: the skills of a project and where each stands."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from skillc.cli import Start
from skillc.project import Project
from skillc.status import Status, project_status

HEAD = ("NAME", "STATE", "VERDICT", "WORDS", "ADAPTER", "SOURCE")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(start: Start, as_json: bool) -> int:
    """List the skills and what was built of them.

    States: built, changed (since the last build), new, missing (from the store), unreadable, gone
    (still in the lock). Exit code 1 when a skill is unreadable.
    """
    project = Project.find(start.folder)
    problems: list[str] = []
    found = project_status(project, problems)
    if as_json:
        record = {"skills": [status.to_dict() for status in found], "problems": problems}
        click.echo(json.dumps(record, indent=2))
    else:
        show(found, problems, project)
    return 1 if any(status.state == "unreadable" for status in found) else 0


def show(found: Sequence[Status], problems: Sequence[str], project: Project) -> None:
    if not found:
        roots = ", ".join(project.settings.sources)
        click.echo(f"no skills in {roots}: put a SKILL.md under .skills/NAME/", err=True)
    else:
        for line in aligned([HEAD, *map(row, found)]):
            click.echo(line)
    for status in found:
        if status.state == "unreadable":
            click.echo(f"{status.name}: {status.reason}", err=True)
        for shadow in status.shadows:
            click.echo(f"{status.name}: {status.source} hides {shadow}", err=True)
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


def row(status: Status) -> tuple[str, ...]:
    words = str(len(status.skill.text.split())) if status.skill else "-"
    size = f"{status.size / 1024:.0f} KiB" if status.size else "-"
    return status.name, status.state, status.verdict, words, size, status.source


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines with columns of equal width."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

"""`skillc prune`: delete adapters out of use."""

from __future__ import annotations

import json

import click

from skillc.cli import Start
from skillc.project import Project
from skillc.prune import MEGABYTE, prune


@click.command("prune")
@click.option(
    "--size",
    type=click.IntRange(0),
    metavar="MB",
    help="Megabytes of unused adapters to leave, over the project's setting.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be freed; delete nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(start: Start, *, size: int | None, dry_run: bool, as_json: bool) -> int:
    """Delete adapters that no skill uses any more.

    The oldest go first, until the unused ones fit the given size. What skillc.lock names stays.
    """
    project = Project.find(start.folder)
    budget = project.settings.store_mb if size is None else size
    done = prune(project, budget * MEGABYTE, dry_run=dry_run)
    click.echo(json.dumps(done.to_dict(), indent=2) if as_json else done.line())
    return 0

"""`skillc build`: compile the skills that changed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from skillc.build import preview, run_plan
from skillc.cli import Start
from skillc.outcome import BuildReport
from skillc.plan import make_plan
from skillc.progress import progress_for
from skillc.project import Project
from skillc.settings import MAX_RANK
from skillc.target import find_target

if TYPE_CHECKING:
    from skillc_compiler.families.interface import Compiler


@click.command("build")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Compile even what did not change.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; write nothing.")
@click.option(
    "--rank",
    type=click.IntRange(1, MAX_RANK),
    metavar="N",
    help="Rank of the adapters, over the project's setting.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    start: Start,
    *,
    names: tuple[str, ...],
    force: bool,
    dry_run: bool,
    rank: int | None,
    as_json: bool,
) -> int:
    """Compile the skills that changed.

    All skills of the project, or only those with the given NAMEs. Exit code 1 when a skill could
    not be read or compiled; the others are built all the same.
    """
    started = time.perf_counter()
    project = Project.find(start.folder)
    target = find_target(project.settings.base)
    plan = make_plan(project, target, names=names, force=force, rank=rank)

    def load() -> Compiler:
        from skillc_compiler.families.interface import load_compiler

        return load_compiler(target.base)

    progress = progress_for(quiet=as_json)
    report = preview(plan) if dry_run else run_plan(plan, load, progress)
    report = replace(report, seconds=time.perf_counter() - started)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report)
    return report.exit_code


def show(report: BuildReport) -> None:
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.dry_run:
        for outcome in report.outcomes:
            if outcome.status != "unchanged":
                click.echo(outcome.line())
    click.echo(report.summary())

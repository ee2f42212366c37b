"""`skillc build`: compile the skills that changed."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from skillc.build import build, check_locked, preview
from skillc.cli import Start
from skillc.outcome import BuildReport
from skillc.plan import Plan, make_plan
from skillc.progress import progress_for
from skillc.project import Project
from skillc.settings import MAX_RANK
from skillc.target import find_target

if TYPE_CHECKING:
    from skillc_compiler.families.interface import Compiler


@click.command("build")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--base", "base", metavar="NAME", help="The base, over the project's setting.")
@click.option("--force", is_flag=True, help="Compile even what did not change.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; write nothing.")
@click.option("--locked", is_flag=True, help="Fail if skillc.lock would change; for CI.")
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
    base: str | None,
    force: bool,
    dry_run: bool,
    locked: bool,
    rank: int | None,
    as_json: bool,
) -> int:
    """Compile the skills that changed.

    All skills of the project, or only those with the given NAMEs. Exit code 1 when a skill could
    not be read or compiled; the others are built all the same. With --locked only adapters that are
    missing are fetched or compiled, and exit code 1 means that the lock is out of date.
    """
    started = time.perf_counter()
    project = Project.find(start.folder)
    target = find_target(base or project.settings.base)
    memory = project.memory()
    loaded: list[Compiler] = []

    def make() -> Plan:
        memory.begin()
        # What was compiled once is not compiled again for a text that changed meanwhile.
        again = force and not loaded
        return make_plan(project, target, names=names, force=again, rank=rank, memory=memory)

    def load() -> Compiler:
        from skillc_compiler.families.interface import load_compiler

        gc.enable()
        if not loaded:
            loaded.append(load_compiler(target.base))
        return loaded[0]

    if dry_run:
        plan = make()
        if locked:
            check_locked(plan)
        report = preview(plan)
    else:
        with collecting_later():
            report = build(make, load, progress_for(quiet=as_json), locked=locked)
    report = replace(report, seconds=time.perf_counter() - started)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report)
    return report.exit_code


@contextmanager
def collecting_later() -> Iterator[None]:
    """Put garbage collection off until something is compiled.

    The objects of a plan live to its end; to look for garbage among them takes a fifth of a build
    without changes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def show(report: BuildReport) -> None:
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.dry_run:
        for outcome in report.outcomes:
            if outcome.status != "unchanged":
                click.echo(outcome.line())
    click.echo(report.summary())

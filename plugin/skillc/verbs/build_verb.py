"""`skillc build`: compile the skills that changed."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from skillc.build import build, check_locked, preview
from skillc.cli import Start
from skillc.job import BATCH
from skillc.outcome import BuildReport
from skillc.plan import Plan, make_plan
from skillc.progress import progress_for
from skillc.project import Project
from skillc.settings import MAX_RANK
from skillc.target import find_target

if TYPE_CHECKING:
    from skillc_compiler.bases import Base
    from skillc_compiler.families.interface import Compiler

RAY_BATCH = 256
"""Skills that are out at Ray's workers together: a file is held open for each."""


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
@click.option(
    "--engine",
    type=click.Choice(["here", "ray"]),
    default="here",
    show_default=True,
    help="What compiles: this process, or Ray's workers.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Ray's workers; one a core of $RAY_ADDRESS's cluster, or of this machine, without it.",
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
    engine: str,
    workers: int | None,
    as_json: bool,
) -> int:
    """Compile the skills that changed.

    All skills of the project, or only those with the given NAMEs. Exit code 1 when a skill could
    not be read or compiled; the others are built all the same. With --locked only adapters that are
    missing are fetched or compiled, and exit code 1 means that the lock is out of date.
    """
    if workers is not None and engine != "ray":
        raise click.UsageError("--workers is for --engine ray")
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

    stack = ExitStack()

    def load() -> Compiler:
        gc.enable()
        if not loaded:
            loaded.append(open_compiler(target.base, engine, workers, stack))
        return loaded[0]

    if dry_run:
        plan = make()
        if locked:
            check_locked(plan)
        report = preview(plan)
    else:
        batch = BATCH if engine == "here" else RAY_BATCH
        with collecting_later(), stack:
            report = build(make, load, progress_for(quiet=as_json), locked=locked, batch=batch)
    report = replace(report, seconds=time.perf_counter() - started)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report)
    return report.exit_code


def open_compiler(base: Base, engine: str, workers: int | None, stack: ExitStack) -> Compiler:
    """The base's compiler in this process, or on Ray's workers until `stack` is closed."""
    if engine == "ray":
        from skillc.ray_engine import ray_workers

        return stack.enter_context(ray_workers(base, workers))
    from skillc_compiler.families.interface import load_compiler

    return load_compiler(base)


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

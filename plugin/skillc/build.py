"""Carries a plan out: what is new is compiled and published, then the lock is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from skillc.job import BATCH, Job, Load, last_good
from skillc.outcome import BuildReport, Outcome, Status
from skillc.plan import Plan, changes
from skillc.progress import Progress
from skillc_compiler.errors import ProjectError


class OutOfDateError(ProjectError):
    """The lock is not what a build would write."""

    exit_code = 1


ROUNDS = 4
"""How often a build starts over for texts that change while it runs."""


def build(
    make: Callable[[], Plan],
    load: Load,
    progress: Progress,
    *,
    locked: bool = False,
    batch: int = BATCH,
) -> BuildReport:
    """Run the plan of `make`, and again for texts that changed meanwhile: the newest one wins.

    With `locked` it raises OutOfDateError when the lock would have to change.
    """
    reports: list[BuildReport] = []
    for _ in range(ROUNDS):
        plan = make()
        if locked:
            check_locked(plan)
        reports.append(run_plan(plan, load, progress, locked=locked, batch=batch))
        if not reports[-1].count("changed"):
            break
    return merge(reports)


def run_plan(
    plan: Plan, load: Load, progress: Progress, *, locked: bool = False, batch: int = BATCH
) -> BuildReport:
    """Compile what `plan` says, publish it and write the lock; `load` is called only if needed.

    At most `batch` skills are handed to the compiler together. A skill that fails is an outcome,
    not an error. Raises SkillcError when nothing can be built: no compiler, a store or a lock that
    cannot be written.
    """
    started = time.perf_counter()
    job = Job(plan, load, progress, locked, batch)
    if plan.todo:
        plan.project.make_state()
        plan.project.store().sweep()
        progress.begin(len(plan.todo))
    try:
        job.run()
    finally:
        progress.end()
    job.write_lock()
    plan.memory.save()
    return make_report(plan, job.in_order(), started, job.warnings)


def check_locked(plan: Plan) -> None:
    """Raise OutOfDateError when running `plan` would change the lock."""
    if reasons := list(changes(plan)):
        raise OutOfDateError(
            f"{plan.project.lock_path.name} is out of date ({shown(reasons)}): "
            "run 'skillc build' and commit it"
        )


def preview(plan: Plan) -> BuildReport:
    """What `run_plan` would do, with nothing written and nothing compiled."""
    started = time.perf_counter()
    outcomes = []
    for step in plan.steps:
        if step.error:
            kept = last_good(plan, step.name) is not None
            outcomes.append(Outcome(step.name, "failed", step.source, reason=step.error, kept=kept))
        else:
            status: Status = "planned" if step.todo else "unchanged"
            outcomes.append(Outcome(step.name, status, step.source, step.key))
    outcomes += [Outcome(name, "removed") for name in plan.removed]
    return make_report(plan, outcomes, started, dry_run=True)


def make_report(
    plan: Plan,
    outcomes: Sequence[Outcome],
    started: float,
    warnings: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> BuildReport:
    seconds = time.perf_counter() - started
    target = plan.target
    said = (*plan.warnings, *warnings)
    return BuildReport(
        target.base.name, target.compiler_id, tuple(outcomes), said, seconds, dry_run
    )


def merge(reports: Sequence[BuildReport]) -> BuildReport:
    """Several rounds as one report: what a round did counts more than that another changed nothing.

    A text that changed in the last round too is left to the next build, as a failure of this one.
    """
    outcomes: dict[str, Outcome] = {}
    for report in reports:
        for outcome in report.outcomes:
            known = outcomes.get(outcome.name)
            if known is None or outcome.status != "unchanged" or known.status == "changed":
                outcomes[outcome.name] = outcome
    for name, outcome in outcomes.items():
        if outcome.status == "changed":
            reason = "its text keeps changing: build again when it is at rest"
            outcomes[name] = replace(outcome, status="failed", reason=reason)
    last = reports[-1]
    seconds = sum(report.seconds for report in reports)
    return replace(last, outcomes=tuple(outcomes.values()), seconds=seconds)


def shown(reasons: Sequence[str], most: int = 5) -> str:
    more = f" and {len(reasons) - most} more" if len(reasons) > most else ""
    return ", ".join(reasons[:most]) + more

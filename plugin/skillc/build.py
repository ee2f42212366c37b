"""Carries a plan out: compile what is new, publish it, and write the lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from skillc.outcome import BuildReport, Outcome, Status
from skillc.plan import GGUF_DTYPE, Plan, Step
from skillc.progress import Progress
from skillc_compiler.errors import AdapterError, CompilerError, StoreError
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill
from skillc_compiler.store import Store, StoredAdapter

if TYPE_CHECKING:
    from skillc_compiler.adapter import Adapter
    from skillc_compiler.families.interface import Compiler
    from skillc_compiler.gguf_base import BaseInfo

Load = Callable[[], "Compiler"]


def run_plan(plan: Plan, load: Load, progress: Progress) -> BuildReport:
    """Compile what `plan` says, publish it and write the lock; `load` is called only if needed.

    A skill that fails is an outcome, not an error. Raises SkillcError when nothing can be built: no
    compiler, a store or a lock that cannot be written.
    """
    started = time.perf_counter()
    job = Job(plan, load, progress)
    if plan.todo:
        plan.project.make_state()
        plan.project.store().sweep()
        progress.begin(len(plan.todo))
    try:
        for step in plan.steps:
            job.outcomes.append(job.run(step))
            progress.done(job.outcomes[-1])
        for name in plan.removed:
            job.outcomes.append(Outcome(name, "removed"))
            progress.done(job.outcomes[-1])
    finally:
        progress.end()
    job.lock().dump(plan.project.lock_path)
    return make_report(plan, job.outcomes, started)


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
    plan: Plan, outcomes: list[Outcome], started: float, *, dry_run: bool = False
) -> BuildReport:
    seconds = time.perf_counter() - started
    target = plan.target
    return BuildReport(
        target.base.name, target.compiler_id, tuple(outcomes), plan.warnings, seconds, dry_run
    )


def verdict_of(probe: Mapping[str, float]) -> Literal["adapter", "text"]:
    """How to serve a skill: as text when its adapter brings back no more of it than no adapter.

    `recall` and `recall_none` are token accuracies on the skill's own code spans.
    """
    if not {"recall", "recall_none"} <= probe.keys():
        return "adapter"
    return "adapter" if probe["recall"] > probe["recall_none"] else "text"


def last_good(plan: Plan, name: str) -> LockedSkill | None:
    """The lock's entry of a skill that now fails, if its adapter still fits the base."""
    before = plan.before
    if before is None or before.base.hash != plan.target.base_hash:
        return None
    locked = before.skills.get(name)
    return locked if locked is not None and plan.project.store().has(locked.key) else None


@dataclass
class Job:
    """One build while it runs."""

    plan: Plan
    load: Load
    progress: Progress
    outcomes: list[Outcome] = field(default_factory=list)
    entries: dict[str, LockedSkill] = field(default_factory=dict)
    tools: tuple[Compiler, BaseInfo] | None = None

    @property
    def store(self) -> Store:
        return self.plan.project.store()

    def run(self, step: Step) -> Outcome:
        """Take one skill through the build."""
        if step.skill is None:
            return self.fail(step, step.error)
        if not step.todo and self.keep(step):
            return Outcome(step.name, "unchanged", step.source, step.key)
        # Outside the try: without a compiler no skill can be built, and that ends the build.
        self.loaded()
        self.progress.compiling(step.name)
        started = time.perf_counter()
        try:
            stored = self.publish(step, self.compile(step))
        except (CompilerError, AdapterError) as error:
            return self.fail(step, " ".join(str(error).split()))
        self.enter(step, stored)
        seconds = time.perf_counter() - started
        return Outcome(step.name, "built", step.source, step.key, seconds=seconds, size=stored.size)

    def compile(self, step: Step) -> Adapter:
        """The adapter of `step`; CompilerError or AdapterError are about this skill alone."""
        assert step.skill is not None
        compiler, _ = self.loaded()
        try:
            return compiler.compile(step.skill, rank=self.plan.rank)
        except (RuntimeError, ValueError, MemoryError) as error:
            # What torch raises over one odd text must not cost the other skills.
            kind = type(error).__name__
            raise CompilerError(f"cannot be compiled: unexpected {kind}: {error}") from error

    def publish(self, step: Step, adapter: Adapter) -> StoredAdapter:
        from skillc_compiler.gguf_adapter import adapter_to_gguf

        _, info = self.loaded()
        data = adapter_to_gguf(adapter, info, dtype=GGUF_DTYPE)
        if step.stored:
            self.store.remove(step.key)
        return self.store.publish(step.key, adapter, data)

    def loaded(self) -> tuple[Compiler, BaseInfo]:
        """The compiler and the base, loaded when first asked for."""
        from skillc_compiler.gguf_base import read_base_info

        if self.tools is None:
            self.tools = self.load(), read_base_info(self.plan.target.base.gguf)
        return self.tools

    def keep(self, step: Step) -> bool:
        """Enter an unchanged skill into the lock; False when the store's entry is damaged."""
        assert step.skill is not None
        before = self.plan.before
        locked = before.skills.get(step.name) if before is not None else None
        if locked is not None and (locked.key, locked.source) == (step.key, step.source):
            self.entries[step.name] = locked
            return True
        try:
            self.enter(step, self.store.open(step.key))
        except StoreError:
            return False
        return True

    def fail(self, step: Step, reason: str) -> Outcome:
        locked = last_good(self.plan, step.name)
        if locked is not None:
            self.entries[step.name] = locked
        kept = locked is not None
        return Outcome(step.name, "failed", step.source, reason=reason, kept=kept)

    def enter(self, step: Step, stored: StoredAdapter) -> None:
        assert step.skill is not None
        probe = stored.manifest.probe
        self.entries[step.name] = LockedSkill(
            step.source, step.skill.hash, step.key, verdict_of(probe), probe
        )

    def lock(self) -> Lock:
        """The lock after this build: what it did not touch stays as it was."""
        target, before = self.plan.target, self.plan.before
        touched = {step.name for step in self.plan.steps} | set(self.plan.removed)
        old = before.skills if before is not None else {}
        untouched = {name: entry for name, entry in old.items() if name not in touched}
        return Lock(
            LockedBase(target.base.name, target.base_hash),
            LockedCompiler(target.compiler_id, target.compiler_hash),
            {**untouched, **self.entries},
        )

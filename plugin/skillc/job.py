"""One build while it runs: what is kept, fetched or compiled, and the lock at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from skillc.outcome import Outcome
from skillc.plan import GGUF_DTYPE, Plan, Step
from skillc.progress import Progress
from skillc_compiler.errors import AdapterError, CompilerError, SkillError, StoreError
from skillc_compiler.file_lock import hold
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill
from skillc_compiler.store import Store, StoredAdapter

if TYPE_CHECKING:
    from skillc_compiler.adapter import Adapter
    from skillc_compiler.families.interface import Compiler
    from skillc_compiler.gguf_base import BaseInfo
    from skillc_compiler.share import Share
    from skillc_compiler.skill import Skill

Load = Callable[[], "Compiler"]

BATCH = 32
"""Skills that are compiled together: their adapters are in memory at the same time."""


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
    """One build: `outcomes` and lock `entries` by name; with `locked` the lock stays as it is."""

    plan: Plan
    load: Load
    progress: Progress
    locked: bool = False
    batch: int = BATCH
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    entries: dict[str, LockedSkill] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    tools: tuple[Compiler, BaseInfo] | None = None

    def __post_init__(self) -> None:
        self.store: Store = self.plan.project.store()
        self.old: Mapping[str, LockedSkill] = self.plan.before.skills if self.plan.before else {}
        self.shared: Share | None = None

    def run(self) -> None:
        """Take every skill through the build."""
        todo = []
        for step in self.plan.steps:
            if step.error:
                self.fail(step, step.error)
            elif step.todo or not self.keep(step):
                todo.append(step)
        if todo:
            self.open_share()
        self.compile_all([step for step in todo if not self.fetch(step)])
        for name in self.plan.removed:
            self.done(Outcome(name, "removed"))

    def in_order(self) -> list[Outcome]:
        """The outcomes in the order of the plan."""
        names = [step.name for step in self.plan.steps]
        return [self.outcomes[name] for name in (*names, *self.plan.removed)]

    def done(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] = outcome
        self.progress.done(outcome)

    def keep(self, step: Step) -> bool:
        """Enter an unchanged skill into the lock; False when the store's entry is damaged."""
        locked = self.old.get(step.name)
        if locked is not None and (locked.key, locked.source) == (step.key, step.source):
            self.entries[step.name] = replace(locked, stale=False) if locked.stale else locked
        else:
            try:
                self.enter(step, self.store.open(step.key))
            except StoreError:
                return False
        self.done(Outcome(step.name, "unchanged", step.source, step.key))
        return True

    def fail(self, step: Step, reason: str) -> None:
        locked = last_good(self.plan, step.name)
        if locked is not None:
            self.entries[step.name] = replace(locked, stale=True)
        kept = locked is not None
        self.done(Outcome(step.name, "failed", step.source, reason=reason, kept=kept))

    def enter(self, step: Step, stored: StoredAdapter) -> None:
        probe, locked = stored.manifest.probe, self.old.get(step.name)
        made = LockedSkill(step.source, step.hash, step.key, verdict_of(probe), probe)
        # Another machine may have measured the same adapter a little differently: its word stays.
        forced = step.todo and step.stored
        if locked is not None and locked.key == step.key and not forced:
            made = replace(made, verdict=locked.verdict, probe=locked.probe)
        self.entries[step.name] = made

    def open_share(self) -> None:
        try:
            self.shared = self.plan.project.share()
        except StoreError as error:
            self.warnings.append(str(error))

    def fetch(self, step: Step) -> bool:
        """Take the adapter of `step` from the shared store, if that has it."""
        if self.shared is None or step.stored:
            return False
        from skillc_compiler.gguf_base import read_base_info
        from skillc_compiler.gguf_check import validate_adapter

        try:
            files = self.shared.read(step.key)
            if files is None:
                return False
            stored = self.store.adopt(step.key, files)
            self.check(step, stored)
            validate_adapter(stored.gguf_bytes(), read_base_info(self.plan.target.base.gguf))
        except (StoreError, AdapterError) as error:
            self.store.remove(step.key)
            self.warnings.append(f"shared store: {error}; {step.name} is compiled instead")
            return False
        self.enter(step, stored)
        self.done(Outcome(step.name, "fetched", step.source, step.key, size=stored.size))
        return True

    def check(self, step: Step, stored: StoredAdapter) -> None:
        """AdapterError when a fetched adapter is not what its key stands for."""
        target, manifest = self.plan.target, stored.manifest
        ours = (step.hash, target.base_hash, target.compiler_hash)
        if ours != (manifest.skill_hash, manifest.base_hash, manifest.compiler_hash):
            raise AdapterError(f"{step.key[:16]}: its manifest is of another skill or base")

    def compile_all(self, steps: Sequence[Step]) -> None:
        """Compile in batches; what another process is building now comes last."""
        theirs: list[Step] = []
        for start in range(0, len(steps), self.batch):
            with ExitStack() as held:
                ours: list[Step] = []
                for step in steps[start : start + self.batch]:
                    building = self.store.building(step.key, wait=False)
                    (ours if held.enter_context(building) else theirs).append(step)
                self.compile_batch(ours)
        for step in theirs:
            # Nothing is held while it waits, so two builds cannot wait for each other.
            with self.store.building(step.key, wait=True):
                self.compile_batch([step])

    def compile_batch(self, steps: Sequence[Step]) -> None:
        """Compile and publish skills whose keys nobody else is building."""
        named = {skill.hash: (step, skill) for step, skill in self.texts(steps)}
        if not named:
            return
        # Outside the try: without a compiler no skill can be built, and that ends the build.
        compiler, _ = self.loaded()
        self.progress.compiling(next(iter(named.values()))[0].name)
        clock = [time.perf_counter()]

        def take(skill: Skill, made: Adapter | CompilerError) -> None:
            step, _ = named.pop(skill.hash)
            seconds, clock[0] = time.perf_counter() - clock[0], time.perf_counter()
            self.take(step, made, seconds)

        skills = [skill for _, skill in named.values()]
        try:
            compiler.compile_many(skills, rank=self.plan.rank, on_done=take)
        except (RuntimeError, ValueError, MemoryError) as error:
            # What torch raises over one odd text must not cost the skills of other batches.
            kind = type(error).__name__
            for step, _ in named.values():
                self.fail(step, f"cannot be compiled: unexpected {kind}: {error}")

    def texts(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Skill]]:
        """The steps that have to be compiled, with the text that was planned."""
        from skillc_compiler.skill import read_skill

        for step in steps:
            if not step.stored and self.store.has(step.key) and self.keep(step):
                continue
            try:
                skill = read_skill(step.path)
            except SkillError as error:
                self.fail(step, self.plan.project.shorten(str(error)))
                continue
            if skill.hash == step.hash:
                yield step, skill
            else:
                self.done(Outcome(step.name, "changed", step.source))

    def take(self, step: Step, made: Adapter | CompilerError, seconds: float) -> None:
        """Publish what was made of a skill, or say why nothing was."""
        try:
            if isinstance(made, CompilerError):
                raise made
            stored = self.publish(step, made)
        except (CompilerError, AdapterError) as error:
            self.fail(step, " ".join(str(error).split()))
            return
        self.enter(step, stored)
        self.offer(step)
        self.done(
            Outcome(step.name, "built", step.source, step.key, seconds=seconds, size=stored.size)
        )

    def publish(self, step: Step, adapter: Adapter) -> StoredAdapter:
        from skillc_compiler.gguf_adapter import adapter_to_gguf

        _, info = self.loaded()
        data = adapter_to_gguf(adapter, info, dtype=GGUF_DTYPE)
        if step.stored:
            self.plan.memory.forget(step.key)
            self.store.remove(step.key)
        return self.store.publish(step.key, adapter, data)

    def offer(self, step: Step) -> None:
        """Put a new adapter into the shared store; one failure ends that for this build."""
        from skillc_compiler.share import read_entry

        files = read_entry(self.store, step.key) if self.shared is not None else None
        if self.shared is None or files is None:
            return
        try:
            self.shared.write(step.key, files)
        except StoreError as error:
            self.warnings.append(f"shared store: {error}")
            self.shared = None

    def loaded(self) -> tuple[Compiler, BaseInfo]:
        """The compiler and the base, loaded when first asked for."""
        from skillc_compiler.gguf_base import read_base_info

        if self.tools is None:
            self.tools = self.load(), read_base_info(self.plan.target.base.gguf)
        return self.tools

    def write_lock(self) -> None:
        """Write the lock, unless it is the same; nothing newer in it is ever replaced."""
        if self.locked or self.lock(self.plan.before) == self.plan.before:
            return
        with hold(self.plan.project.make_state() / "lock.lock"):
            now = self.plan.project.lock()
            self.give_way(now)
            self.lock(now).dump(self.plan.project.lock_path)

    def give_way(self, now: Lock | None) -> None:
        """Leave entries to the next round that are not of the newest text, or were pruned."""
        there = now.skills if now is not None else {}
        for step in self.plan.steps:
            entry = self.entries.get(step.name)
            if entry is None or entry.stale or entry == there.get(step.name):
                continue
            if self.plan.text_now(step) != entry.hash or not self.store.has(entry.key):
                del self.entries[step.name]
                self.done(Outcome(step.name, "changed", step.source))

    def lock(self, now: Lock | None) -> Lock:
        """The lock after this build, on top of `now`: what it did not touch stays as it is."""
        target = self.plan.target
        there = now.skills if now is not None and target.matches(now) else {}
        went = {name for name in self.plan.removed if there.get(name) == self.old.get(name)}
        changed = {name for name, one in self.outcomes.items() if one.status == "changed"}
        decided = ({step.name for step in self.plan.steps} - changed) | went
        rest = {name: one for name, one in there.items() if name not in decided}
        return Lock(
            LockedBase(target.base.name, target.base_hash),
            LockedCompiler(target.compiler_id, target.compiler_hash),
            {**rest, **self.entries},
        )

"""What a build has to do: every skill read, its build key compared with the store and the lock."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skillc.memory import Memory
from skillc.project import Project
from skillc.target import Target
from skillc_compiler.errors import ProjectError
from skillc_compiler.find import Found
from skillc_compiler.lock import Lock
from skillc_compiler.store import Store, key_maker

GGUF_DTYPE = "f16"


@dataclass(slots=True)
class Step:
    """One skill of the project: read and keyed, or why it could not be read.

    `hash` is the skill's, `stored` says that the store has the key, `todo` that this build has to
    compile it.
    """

    name: str
    path: Path
    source: str
    hash: str = ""
    key: str = ""
    error: str = ""
    stored: bool = False
    todo: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a build in order, and the names that leave the lock."""

    project: Project
    target: Target
    rank: int
    steps: tuple[Step, ...]
    removed: tuple[str, ...]
    before: Lock | None
    warnings: tuple[str, ...]
    memory: Memory
    key_of: Callable[[str], str]

    @property
    def todo(self) -> list[Step]:
        return [step for step in self.steps if step.todo]

    def text_now(self, step: Step) -> str:
        """The hash of what the skill's file holds at this moment; empty when it has none."""
        return Memory().read(step.path).hash


def make_plan(
    project: Project,
    target: Target,
    *,
    names: Sequence[str] = (),
    force: bool = False,
    rank: int | None = None,
    memory: Memory | None = None,
) -> Plan:
    """Read the project's skills and decide; `names` limits the build to those.

    Raises ProjectError when there is nothing to build, a name is unknown, or `names` would mix
    adapters of two bases or compilers in one lock.
    """
    warnings: list[str] = []
    memory = project.memory() if memory is None else memory
    before = project.lock()
    found = project.found(lambda line: warnings.append(project.shorten(line)), memory)
    if not found and (before is None or not before.skills):
        roots = ", ".join(project.settings.sources)
        raise ProjectError(f"no skills in {roots}: put a SKILL.md under .skills/NAME/")
    present = {one.name for one in found}
    check_names(names, present)
    if names and before is not None and not target.matches(before):
        raise ProjectError(
            f"{project.lock_path.name} was built with another base or compiler: "
            "run 'skillc build' without names once"
        )
    rank = project.settings.rank if rank is None else rank
    key_of = key_maker(target.base_hash, target.compiler_hash, key_options(rank))
    store = project.store()
    wanted = [one for one in found if not names or one.name in names]
    steps = []
    for one in wanted:
        step = read_step(project, one, memory, warnings)
        if not step.error:
            set_key(step, step.hash, key_of, store, memory)
            step.todo = force or not step.stored
            keep_foreign(step, before, target, warnings, replace=force and step.name in names)
        steps.append(step)
    gone: Iterable[str] = before.skills if before is not None and not names else ()
    removed = tuple(name for name in gone if name not in present)
    return Plan(
        project, target, rank, tuple(steps), removed, before, tuple(warnings), memory, key_of
    )


def read_step(project: Project, found: Found, memory: Memory, warnings: list[str]) -> Step:
    source = project.relative(found.path)
    known = memory.read(found.path)
    if known.error:
        return Step(found.name, found.path, source, error=project.shorten(known.error))
    if known.warnings:
        warnings += [f"{source}: {warning}" for warning in known.warnings]
    return Step(found.name, found.path, source, known.hash)


def set_key(
    step: Step, text: str, key_of: Callable[[str], str], store: Store, memory: Memory
) -> None:
    """Give `step` the hash `text`, its build key, and whether the store has that."""
    step.hash, step.key = text, key_of(text)
    step.stored = memory.has(store, step.key)


def keep_foreign(
    step: Step, before: Lock | None, target: Target, warnings: list[str], *, replace: bool
) -> None:
    """Leave an adapter that was trained elsewhere in its place, unless that one was asked for."""
    locked = before.skills.get(step.name) if before is not None else None
    if locked is None or before is None or not locked.foreign or replace:
        return
    if before.base.hash != target.base_hash:
        warnings.append(f"{step.name}: its foreign adapter was for another base: compiled instead")
        return
    if locked.hash != step.hash:
        warnings.append(
            f"{step.name}: changed, its foreign adapter stays: "
            f"'skillc build --force {step.name}' compiles it"
        )
    step.key, step.stored, step.todo = locked.key, True, False


def changes(plan: Plan) -> Iterator[str]:
    """What running `plan` would change in the lock, one phrase for each skill."""
    if plan.before is None:
        yield "there is none"
        return
    if not plan.target.matches(plan.before):
        yield "it is for another base or compiler"
        return
    for step in plan.steps:
        locked = plan.before.skills.get(step.name)
        if step.error:
            yield f"{step.name} cannot be read"
        elif locked is None:
            yield f"{step.name} is new"
        elif (locked.key, locked.source, locked.stale) != (step.key, step.source, False):
            yield f"{step.name} changed"
    yield from (f"{name} is gone" for name in plan.removed)


def key_options(rank: int) -> Mapping[str, object]:
    """The options that decide an adapter's bytes."""
    return {"dtype": GGUF_DTYPE, "rank": rank}


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """ProjectError for the first of `names` that is not `known`."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            there = ", ".join(sorted(known)) or "none"
            hint = f"did you mean '{near[0]}'?" if near else f"there is {there}"
            raise ProjectError(f"no skill '{name}' in this project: {hint}")

"""What a build has to do: every skill read, its build key compared with the store and the lock."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from skillc.project import Project
from skillc.target import Target
from skillc_compiler.errors import ProjectError, SkillError
from skillc_compiler.find import Found
from skillc_compiler.lock import Lock
from skillc_compiler.skill import Skill, read_skill
from skillc_compiler.store import build_key

GGUF_DTYPE = "f16"


@dataclass(frozen=True, slots=True)
class Step:
    """One skill of the project: read and keyed, or why it could not be read.

    `stored` says that the store has the key, `todo` that this build has to compile it.
    """

    name: str
    source: str
    skill: Skill | None = None
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

    @property
    def todo(self) -> list[Step]:
        return [step for step in self.steps if step.todo]


def make_plan(
    project: Project,
    target: Target,
    *,
    names: Sequence[str] = (),
    force: bool = False,
    rank: int | None = None,
) -> Plan:
    """Read the project's skills and decide; `names` limits the build to those.

    Raises ProjectError when there is nothing to build, a name is unknown, or `names` would mix
    adapters of two bases or compilers in one lock.
    """
    warnings: list[str] = []
    before = project.lock()
    found = project.found(lambda line: warnings.append(project.shorten(line)))
    if not found and (before is None or not before.skills):
        roots = ", ".join(project.settings.sources)
        raise ProjectError(f"no skills in {roots}: put a SKILL.md under .skills/NAME/")
    check_names(names, [one.name for one in found])
    if names and before is not None and not target.matches(before):
        raise ProjectError(
            f"{project.lock_path.name} was built with another base or compiler: "
            "run 'skillc build' without names once"
        )
    rank = project.settings.rank if rank is None else rank
    wanted = [one for one in found if not names or one.name in names]
    read = [read_step(project, one, warnings) for one in wanted]
    steps = tuple(decide(step, project, target, rank=rank, force=force) for step in read)
    gone: Iterable[str] = before.skills if before is not None and not names else ()
    present = {one.name for one in found}
    removed = tuple(name for name in gone if name not in present)
    return Plan(project, target, rank, steps, removed, before, tuple(warnings))


def read_step(project: Project, found: Found, warnings: list[str]) -> Step:
    source = project.relative(found.path)
    try:
        skill = read_skill(found.path)
    except SkillError as error:
        return Step(found.name, source, error=project.shorten(str(error)))
    warnings += [f"{source}: {warning}" for warning in skill.warnings]
    return Step(found.name, source, skill)


def decide(step: Step, project: Project, target: Target, *, rank: int, force: bool) -> Step:
    """`step` with its build key, and whether it has to be compiled."""
    if step.skill is None:
        return step
    key = build_key(step.skill.hash, target.base_hash, target.compiler_hash, key_options(rank))
    stored = project.store().has(key)
    return replace(step, key=key, stored=stored, todo=force or not stored)


def key_options(rank: int) -> Mapping[str, object]:
    """The options that decide an adapter's bytes."""
    return {"dtype": GGUF_DTYPE, "rank": rank}


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """ProjectError for the first of `names` that is not `known`."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known) or 'none'}"
            )
            raise ProjectError(f"no skill '{name}' in this project: {hint}")

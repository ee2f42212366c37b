"""Adapters that were trained elsewhere: checked, stored, and locked as foreign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skillc.plan import GGUF_DTYPE, check_names
from skillc.project import Project
from skillc_compiler.bases import find_base
from skillc_compiler.errors import CompilerError, ProjectError
from skillc_compiler.families.interface import compiler_identity
from skillc_compiler.file_lock import hold
from skillc_compiler.foreign import read_foreign
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill
from skillc_compiler.skill import read_skill
from skillc_compiler.store import build_key

# In the lock of a project whose base has no compiler.
NO_COMPILER = LockedCompiler("none", "0" * 64)


@dataclass(frozen=True, slots=True)
class Added:
    """What was taken in: the skill, its key, the adapter's rank and modules, bytes, warnings."""

    name: str
    key: str
    rank: int
    modules: int
    size: int
    warnings: tuple[str, ...]


def add_foreign(project: Project, path: Path, name: str) -> Added:
    """Give the skill `name` the adapter at `path` (a PEFT folder or a GGUF).

    The skill's text stays what it is: it names and describes what the adapter does. Raises
    SkillcError when the adapter does not fit the project's base, and then nothing has changed.
    """
    found = {one.name: one for one in project.found(lambda line: None)}
    check_names([name], found)
    skill = read_skill(found[name].path)
    base = find_base(project.settings.base)
    info = read_base_info(base.gguf)
    foreign = read_foreign(path, skill, info, GGUF_DTYPE)
    manifest = foreign.adapter.manifest
    options: Mapping[str, object] = {"foreign": True, "kind": "folder" if path.is_dir() else "gguf"}
    key = build_key(skill.hash, info.hash, manifest.compiler_hash, options)
    project.make_state()
    stored = project.store().publish(key, foreign.adapter, foreign.gguf)
    entry = LockedSkill(project.relative(found[name].path), skill.hash, key, foreign=True)
    with hold(project.make_state() / "lock.lock"):
        lock = lock_with(project.lock(), LockedBase(base.name, info.hash), entry, name)
        lock.dump(project.lock_path)
    modules = len(foreign.adapter.pairs)
    return Added(name, key, foreign.adapter.rank, modules, stored.size, foreign.warnings)


def lock_with(before: Lock | None, base: LockedBase, entry: LockedSkill, name: str) -> Lock:
    """The lock with this entry, all others as they were. Raises ProjectError for another base."""
    if before is None:
        return Lock(base, compiler_of(base.name), {name: entry})
    if before.base.hash != base.hash:
        raise ProjectError(
            f"the lock is for base {before.base.name}, not {base.name}: run 'skillc build' first"
        )
    return Lock(before.base, before.compiler, {**before.skills, name: entry})


def compiler_of(base: str) -> LockedCompiler:
    """The compiler of a base, for a lock that has none yet."""
    try:
        return LockedCompiler(*compiler_identity(find_base(base)))
    except CompilerError:
        return NO_COMPILER

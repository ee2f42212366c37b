"""Where each skill of a project stands: its text now, against the lock and the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from skillc.project import Project
from skillc_compiler.errors import BaseModelError, SkillError
from skillc_compiler.find import Found
from skillc_compiler.lock import Lock, LockedSkill
from skillc_compiler.skill import Skill, read_skill

State = Literal["built", "changed", "new", "missing", "unreadable", "gone"]


@dataclass(frozen=True, slots=True)
class Status:
    """One skill: what is read now and what the lock holds; `size` is the adapter's bytes.

    `state` is "built" (served as it reads now), "changed" (the lock has an older text or another
    base), "new" (not built yet), "missing" (in the lock, not in the store), "unreadable", or "gone"
    (in the lock only). `reason` says more where there is more to say.
    """

    name: str
    source: str
    state: State
    skill: Skill | None = None
    locked: LockedSkill | None = None
    size: int = 0
    reason: str = ""
    shadows: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        return self.locked.verdict if self.locked is not None else "-"

    def to_dict(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "state": self.state,
            "verdict": self.locked.verdict if self.locked else None,
            "key": self.locked.key if self.locked else None,
            "hash": self.skill.hash if self.skill else None,
            "words": len(self.skill.text.split()) if self.skill else None,
            "bytes": self.size,
            "reason": self.reason or None,
            "warnings": list(self.skill.warnings) if self.skill else [],
            "shadows": list(self.shadows),
        }


def project_status(project: Project, problems: list[str]) -> list[Status]:
    """Every skill found or locked, by name; lines on what cannot be looked at go to `problems`."""
    lock = project.lock()
    locked = lock.skills if lock is not None else {}
    other_base = lock is not None and not fits_base(project, lock)
    found = project.found(lambda line: problems.append(project.shorten(line)))
    known = [of_found(project, one, locked.get(one.name), other_base) for one in found]
    names = {status.name for status in known}
    gone = [
        Status(name, entry.source, "gone", locked=entry, reason="run 'skillc build'")
        for name, entry in locked.items()
        if name not in names
    ]
    return sorted([*known, *gone], key=lambda status: status.name)


def of_found(
    project: Project, found: Found, locked: LockedSkill | None, other_base: bool
) -> Status:
    source = project.relative(found.path)
    shadows = tuple(project.relative(path) for path in found.shadows)
    try:
        skill = read_skill(found.path)
    except SkillError as error:
        reason = project.shorten(str(error))
        return Status(found.name, source, "unreadable", None, locked, 0, reason, shadows)
    size = adapter_size(project, locked)
    state, reason = judge(skill, locked, size, other_base)
    return Status(found.name, source, state, skill, locked, size, reason, shadows)


def judge(
    skill: Skill, locked: LockedSkill | None, size: int, other_base: bool
) -> tuple[State, str]:
    if locked is None:
        return "new", ""
    if other_base:
        return "changed", "the base is another one now"
    if locked.hash != skill.hash:
        return "changed", ""
    return ("built", "") if size else ("missing", "its adapter is not in the store")


def adapter_size(project: Project, locked: LockedSkill | None) -> int:
    """Bytes of the GGUF of a lock's entry; 0 when the store does not have it."""
    from skillc_compiler.store_entry import GGUF_FILE

    if locked is None or not project.store().has(locked.key):
        return 0
    return (project.store().folder(locked.key) / GGUF_FILE).stat().st_size


def fits_base(project: Project, lock: Lock) -> bool:
    """Whether `lock` was made for the base that the project has now."""
    from skillc.target import hash_base
    from skillc_compiler.bases import find_base

    try:
        return hash_base(find_base(project.settings.base)) == lock.base.hash
    except BaseModelError:
        return False

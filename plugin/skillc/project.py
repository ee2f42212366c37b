"""A project: the folder with the skills, its settings, and where skillc keeps its own files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc.settings import SETTINGS_FILE, Settings, has_tool_table, read_settings
from skillc_compiler.errors import ProjectError

if TYPE_CHECKING:
    from skillc.memory import Memory
    from skillc_compiler.find import Found
    from skillc_compiler.lock import Lock
    from skillc_compiler.share import Share
    from skillc_compiler.store import Store

SKILLS_FOLDER = ".skills"
STATE_FOLDER = ".skillc"
LOCK_FILE = "skillc.lock"
USER_ROOTS = ("~/.agents/skills", "~/.claude/skills", "~/.config/opencode/skills")
"""Where a user keeps skills for all projects, nearest first."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with `.skills/`, `skillc.toml`, `[tool.skillc]` or `skillc.lock`."""

    root: Path
    settings: Settings

    @classmethod
    def find(cls, start: Path) -> Project:
        """The nearest project at or above `start`, no further up than its git root."""
        start = start.resolve()
        for folder in (start, *start.parents):
            if is_project(folder):
                return cls.at(folder)
            if (folder / ".git").exists():
                break
        raise ProjectError(f"no project in {start} or above it: run 'skillc init' first")

    @classmethod
    def at(cls, root: Path) -> Project:
        """The project at exactly `root`; ProjectError when its settings cannot be used."""
        return cls(root, read_settings(root))

    @property
    def state(self) -> Path:
        return self.root / STATE_FOLDER

    @property
    def lock_path(self) -> Path:
        return self.root / LOCK_FILE

    @property
    def store_path(self) -> Path:
        return self.state / "store"

    def make_state(self) -> Path:
        """The state folder, made if missing, with a .gitignore that keeps it out of git."""
        self.state.mkdir(exist_ok=True)
        ignore = self.state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", "utf-8")
        return self.state

    def store(self) -> Store:
        from skillc_compiler.store import Store

        return Store(self.store_path)

    def lock(self) -> Lock | None:
        """The lock, or None before the first build; StoreError when it cannot be read."""
        from skillc_compiler.lock import Lock

        return Lock.load(self.lock_path) if self.lock_path.exists() else None

    def memory(self) -> Memory:
        """What skills and adapters were at the last build."""
        from skillc.memory import Memory

        return Memory(self.state / "memory.json")

    def share(self) -> Share | None:
        """The store that others use too, if the settings name one."""
        from skillc_compiler.share import open_share

        return open_share(self.settings.store, self.root) if self.settings.store else None

    def roots(self) -> list[Path]:
        """The folders searched for skills, nearest first."""
        settings = self.settings
        user = USER_ROOTS if settings.user_skills else ()
        sources = (*settings.sources, *settings.extra_sources, *user)
        return [self.root / Path(source).expanduser() for source in sources]

    def found(self, report: Callable[[str], None], memory: Memory | None = None) -> list[Found]:
        """Every skill's place; `report` gets one line for whatever cannot be looked at."""
        from skillc_compiler.find import find_skills

        if memory is None:
            return find_skills(self.roots(), allowed=[self.root], report=report)
        return find_skills(
            self.roots(),
            allowed=[self.root],
            name_of=memory.name_of,
            listing_of=memory.listing,
            report=report,
        )

    def relative(self, path: Path) -> str:
        """`path` as the lock names it: from the root, or ~ for a user's own skill."""
        place, root = str(path), f"{self.root}{os.sep}"
        if place.startswith(root):
            return place.removeprefix(root)
        for user in USER_ROOTS:
            top = str(Path(user).expanduser())
            if place.startswith(f"{top}{os.sep}"):
                return user + place.removeprefix(top)
        return Path(os.path.relpath(path, self.root)).as_posix()

    def shorten(self, message: str) -> str:
        """`message` with paths below the root shown from the root."""
        return message.replace(f"{self.root}{os.sep}", "")


def is_project(folder: Path) -> bool:
    """Whether `folder` is the root of a project."""
    return (
        (folder / SETTINGS_FILE).is_file()
        or (folder / LOCK_FILE).is_file()
        or (folder / SKILLS_FOLDER).is_dir()
        or has_tool_table(folder)
    )

"""Finds skills under the folders agents keep them in: bounded, safe from loops, in fixed order."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skillc_compiler.errors import SkillError
from skillc_compiler.frontmatter import (
    LIMIT,
    FrontmatterError,
    parse_frontmatter,
    split_frontmatter,
)
from skillc_compiler.hidden_text import visible
from skillc_compiler.skill_file import FILE_NAMES, NAME_LENGTH, choose_name, read_head

PROJECT_ROOTS = (".skills", ".agents/skills", ".opencode/skills", ".claude/skills")
"""Where a project keeps skills, nearest first."""

DEPTH = 6
"""Folders below a root that are searched."""

FOLDERS = 2000
"""Most folders without a SKILL.md that are searched below one root, or inside one skill."""

_SKIPPED = {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv"}
_RESOURCES = {"scripts", "references", "assets"}
_PLAIN_NAME = re.compile(
    rb"---[ \t]*\r?\n(?:[a-z][a-z-]*: [^\n]*\n){0,3}?"
    rb"name:[ \t]+([\"']?)([a-z0-9]+(?:-[a-z0-9]+)*)\1[ \t]*\r?\n[^\s#]"
)


Listing = Sequence[tuple[str, str]]
"""The entries of a folder by name: (name, kind), kind "d" folder, "l" link, "f" anything else."""


@dataclass(frozen=True, slots=True)
class Found:
    """One skill: its SKILL.md as found below `root`, and the files of the same name it hides."""

    name: str
    path: Path
    root: Path
    shadows: tuple[Path, ...] = ()


def find_skills(
    roots: Sequence[Path],
    *,
    allowed: Sequence[Path] = (),
    name_of: Callable[[Path], str] | None = None,
    listing_of: Callable[[str], Listing] | None = None,
    report: Callable[[str], None] = lambda problem: None,
) -> list[Found]:
    """List the skills below `roots`, nearest root first, each real file once, in a fixed order.

    A link counts when it leads into a root or a folder in `allowed` (the project, say). Of equal
    names the nearest wins and lists the others under `shadows`. `report` gets one line for whatever
    cannot be searched. `name_of` and `listing_of` may answer from a cache; the defaults read each
    file's head and each folder.
    """
    walk = _Walk([*roots, *allowed], listing_of or list_folder, report)
    winners: dict[str, tuple[Path, Path]] = {}
    shadows: dict[str, list[Path]] = {}
    for root in roots:
        for path in map(Path, walk.files(root)):
            name = (name_of or peek_name)(path)
            if name in winners:
                shadows.setdefault(name, []).append(path)
            else:
                winners[name] = path, root
    return [
        Found(name, path, root, tuple(shadows.get(name, ())))
        for name, (path, root) in winners.items()
    ]


def list_folder(path: str) -> Listing:
    """What is in a folder. Raises OSError."""
    with os.scandir(path) as entries:
        return sorted((entry.name, _kind(entry)) for entry in entries)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "l"
    return "d" if entry.is_dir(follow_symlinks=False) else "f"


def peek_name(path: Path) -> str:
    """The name `read_skill` gives a file, from its head; the folder's when it cannot be read."""
    folder = path.parent.name or path.absolute().parent.name
    try:
        data = read_head(path, LIMIT + 1024)
        plain = _PLAIN_NAME.match(data)
        if plain and len(plain[2]) <= NAME_LENGTH:
            return plain[2].decode()
        text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
        lines, first, _ = split_frontmatter(text)
        declared = parse_frontmatter(lines, first).values.get("name")
    except (SkillError, FrontmatterError):
        declared = None
    return choose_name(declared, folder)[0]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to search: `skill` is the skill folder it lies in, or empty."""

    path: str
    real: str
    depth: int
    skill: str = ""


class _Walk:
    """Searches roots one by one, and remembers every real path it has been to."""

    def __init__(
        self,
        allowed: Sequence[Path],
        listing_of: Callable[[str], Listing],
        report: Callable[[str], None],
    ) -> None:
        self._listing_of = listing_of
        self._report = report
        self._allowed = {os.path.realpath(folder) for folder in allowed}
        self._seen: set[str] = set()

    def files(self, root: Path) -> Iterator[str]:
        """Yield each SKILL.md below `root`; folders that are really there come before links."""
        if not os.path.lexists(root):
            return
        todo = [_Folder(str(root), os.path.realpath(root).rstrip("/"), 0)]
        linked: deque[_Folder] = deque()
        counts: Counter[str] = Counter()
        while todo or linked:
            folder = todo.pop() if todo else linked.popleft()
            if folder.real in self._seen:
                continue
            self._seen.add(folder.real)
            entries = self._entries(folder.path)
            has_file = False
            if file := next((name for name in FILE_NAMES if name in entries), None):
                has_file = True
                if self._is_new(file, entries[file], folder):
                    yield f"{folder.path}/{file}"
            else:
                counts[folder.skill] += 1
            if counts[""] > FOLDERS:
                self._problem(str(root), f"has over {FOLDERS} folders without a skill; name fewer")
                return
            if folder.depth < DEPTH and counts[folder.skill] <= FOLDERS:
                self._children(folder, entries, has_file, todo, linked)

    def _children(
        self,
        folder: _Folder,
        entries: dict[str, str],
        has_file: bool,
        todo: list[_Folder],
        linked: deque[_Folder],
    ) -> None:
        skill = folder.skill or (folder.path if has_file else "")
        folders: list[_Folder] = []
        for name, kind in entries.items():
            if kind == "f" or name in _SKIPPED or (has_file and name in _RESOURCES):
                continue
            path = f"{folder.path}/{name}"
            if kind == "d":
                folders.append(_Folder(path, f"{folder.real}/{name}", folder.depth + 1, skill))
            elif not skill and (real := self._target_folder(path)):
                linked.append(_Folder(path, real, folder.depth + 1))
        todo.extend(reversed(folders))

    def _is_new(self, name: str, kind: str, folder: _Folder) -> bool:
        """Whether the SKILL.md may be read and is not one that was found already."""
        real = f"{folder.real}/{name}"
        if kind == "l":
            real = self._target(f"{folder.path}/{name}")
        new = bool(real) and real not in self._seen
        self._seen.add(real)
        return new

    def _target_folder(self, link: str) -> str:
        """`_target` of a link to a folder or to nothing; links to files are of no interest."""
        try:
            folder = stat.S_ISDIR(Path(link).stat().st_mode)
        except OSError:
            folder = True
        return self._target(link) if folder else ""

    def _target(self, link: str) -> str:
        """Where a link leads, or an empty string and a report when that is not allowed."""
        try:
            real = os.path.realpath(link, strict=True)
        except OSError as error:
            self._problem(link, f"link leads nowhere: {error.strerror}; remove it")
            return ""
        if any(real == top or real.startswith(top.rstrip("/") + "/") for top in self._allowed):
            return real
        self._problem(link, "link leads out of the project; add its target to the sources")
        return ""

    def _entries(self, path: str) -> dict[str, str]:
        try:
            return dict(self._listing_of(path))
        except OSError as error:
            self._problem(path, f"cannot be searched: {error.strerror}; check its permissions")
            return {}

    def _problem(self, path: str, what: str) -> None:
        self._report(f"{visible(path, 300)}: {what}")

"""What skills, folders and adapters were when last looked at, so that a build need not read them.

Nothing is trusted that may have changed since: a file counts as known only while its times, size
and inode are the same, and only if it was at rest when it was read (git's index does the same).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillc_compiler.errors import SkillError
from skillc_compiler.find import Listing, list_folder, peek_name
from skillc_compiler.skill import parse_skill
from skillc_compiler.skill_file import read_bounded
from skillc_compiler.store import Store
from skillc_compiler.store_entry import ENTRY_FILES

VERSION = 1
REST_NS = 2_000_000_000
"""A file changed within this long before it was read may change again under the same times."""

Stamp = list[int]


@dataclass(frozen=True, slots=True)
class Known:
    """A SKILL.md as last read: name and hash, or the `error` that says why it cannot be used."""

    name: str
    hash: str
    warnings: tuple[str, ...] = ()
    error: str = ""


class Memory:
    """Answers from what `path` holds, and looks where that is out of date; one thread at a time.

    With `trusting` off every skill is read again, whatever its times say.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.trusting = True
        kept = load(path) if path is not None else {}
        self._files: dict[str, list[Any]] = kept.get("files", {})
        self._folders: dict[str, list[Any]] = kept.get("folders", {})
        self._entries: dict[str, list[Stamp]] = kept.get("entries", {})
        self._begin()

    def begin(self, *, trusting: bool = True) -> None:
        """Start another look at a project; what the last one did not ask for is forgotten."""
        self.trusting = trusting
        if self._seen_files:
            self._files, self._folders = self._seen_files, self._seen_folders
            self._entries = self._seen_entries
        self._begin()

    def _begin(self) -> None:
        self._seen_files: dict[str, list[Any]] = {}
        self._seen_folders: dict[str, list[Any]] = {}
        self._seen_entries: dict[str, list[Stamp]] = {}
        self._errors: dict[str, Known] = {}
        self._now = time.time_ns()
        self.news = 0

    def listing(self, folder: str) -> Listing:
        """What is in a folder, as `list_folder` says it. Raises OSError."""
        stamp = stamp_of(folder)
        known = self._folders.get(folder)
        if known is None or known[0] != stamp:
            names = "/".join(kind + name for name, kind in list_folder(folder))
            known = [stamp, names]
            self.news += 1
        if self._at_rest(stamp):
            self._seen_folders[folder] = known
        return [(name[1:], name[0]) for name in known[1].split("/")] if known[1] else []

    def name_of(self, path: Path) -> str:
        """The name of the skill in a SKILL.md."""
        return self.read(path).name

    def read(self, path: Path) -> Known:
        """What is in a SKILL.md; asked again in the same look, the same answer."""
        place = str(path)
        if place in self._errors:
            return self._errors[place]
        known = self._seen_files.get(place) or self._look(place, path)
        return Known(known[2], known[3], tuple(known[4])) if known else self._errors[place]

    def _look(self, place: str, path: Path) -> list[Any] | None:
        known = self._files.get(place)
        try:
            stamp = stamp_of(place)
        except OSError:
            stamp = []  # The read below says what is wrong.
        if known is not None and self.trusting and known[0] == stamp:
            self._seen_files[place] = known
            return known
        before = known
        try:
            data = read_bounded(path)
            digest = hashlib.sha256(data).hexdigest()
            if known is None or known[1] != digest:
                skill = parse_skill(data, folder=folder_name(path), path=path)
                known = [stamp, digest, skill.name, skill.hash, list(skill.warnings)]
        except SkillError as error:
            self._errors[place] = Known(peek_name(path), "", error=str(error))
            return None
        # A stamp of nothing fits no file, so what is not at rest is read again next time.
        known = [stamp if self._at_rest(stamp) else [], *known[1:]]
        self.news += known != before
        self._seen_files[place] = known
        return known

    def has(self, store: Store, key: str) -> bool:
        """`store.has(key)`, without a look into the manifest while no file changed."""
        known = self._seen_entries.get(key)
        if known is not None:
            return True
        folder = f"{store.root}/{key}/"
        try:
            stamps = [stamp_of(folder + name) for name in ENTRY_FILES]
        except OSError:
            return False
        if self._entries.get(key) != stamps:
            if not store.has(key):
                return False
            self.news += 1
        if all(map(self._at_rest, stamps)):
            self._seen_entries[key] = stamps
        return True

    def forget(self, key: str) -> None:
        """Look at the entry of `key` again when next asked."""
        self._seen_entries.pop(key, None)
        self._entries.pop(key, None)

    def save(self) -> None:
        """Write what is known beside the project's state, if anything is new; best effort."""
        if self.path is None or not self.news or not self.path.parent.is_dir():
            return
        kept = {
            "entries": self._seen_entries,
            "files": self._seen_files,
            "folders": self._seen_folders,
            "version": VERSION,
        }
        text = json.dumps(kept, separators=(",", ":"))
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            beside.write_text(f"{seal(text)}\n{text}", "ascii")
            beside.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def _at_rest(self, stamp: Stamp) -> bool:
        # Also false for times in the future, as after a clock was set back.
        return bool(stamp) and self._now - max(stamp[0], stamp[1]) > REST_NS


def load(path: Path) -> dict[str, Any]:
    """What `Memory.save` wrote; nothing when it is missing, damaged or of another version."""
    try:
        first, _, text = path.read_text("ascii").partition("\n")
        kept = json.loads(text) if first == seal(text) else {}
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and kept.get("version") == VERSION else {}


def seal(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def stamp_of(path: str) -> Stamp:
    """What changes when a file or folder does. Raises OSError."""
    found = os.stat(path)  # noqa: PTH116 (making a Path takes longer than this)
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino]


def folder_name(path: Path) -> str:
    return path.parent.name or path.absolute().parent.name

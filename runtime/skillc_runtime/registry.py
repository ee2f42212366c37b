"""A project's skills as the server sees them: what the lock says, from the store, checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.errors import AdapterError, SkillcError, SkillError, StoreError
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.lock import Lock, LockedSkill
from skillc_compiler.store import Store, StoredAdapter
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.api_error import ApiError
from skillc_runtime.elision import KnownSkill
from skillc_runtime.names import MAX_SKILLS, Wanted, check_set, from_model, unknown_model
from skillc_runtime.runtime_adapters import RuntimeAdapters
from skillc_runtime.skill_set import Member, SkillSet

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

LOCK_FILE = "skillc.lock"
STORE_FOLDER = Path(".skillc", "store")

_Stamp = tuple[int, int, int]
# Two writes within one tick of a file system's clock leave the same time; look again after it.
_CLOCK_TICK_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The lock as last read, or the line that says why it cannot be."""

    stamp: _Stamp | None = None
    read_at_ns: int = 0
    lock: Lock | None = None
    problem: str | None = None


class Registry:
    """Resolves names to skill sets; safe to call from several threads.

    `root` is the project (None: no skills), `name` what clients call the base.
    """

    def __init__(self, root: Path | None, base: BaseInfo, name: str | None = None) -> None:
        self.base = base
        self.name = name or base.name
        self._root = root
        self._store = Store((root or Path()) / STORE_FOLDER)
        self._snapshot = _Snapshot()
        self._stored: dict[str, tuple[_Stamp, StoredAdapter]] = {}
        self._texts: dict[str, str] = {}
        self._known: dict[tuple[str, str, str], tuple[_Stamp | None, KnownSkill | None]] = {}
        self._all_open: Lock | None = None
        self._all_known: tuple[Lock | None, dict[str, KnownSkill]] = (None, {})
        self._problems: dict[str, tuple[LockedSkill, str]] = {}
        self._refused: dict[str, str] = {}
        self._loaded = RuntimeAdapters(self._store, self.name)
        self._defaults: tuple[Wanted, ...] = ()
        self._turn = threading.Lock()

    def skills(self) -> Mapping[str, LockedSkill]:
        """The lock's skills, none when there is no usable lock, and what clients loaded."""
        with self._turn:
            return {**_skills(self._refresh()), **self._loaded.skills}

    def load(self, name: str, path: str, *, in_place: bool = False) -> None:
        """Serve an entry of the store as `name`, see `RuntimeAdapters.load`."""
        with self._turn:
            self._loaded.load(name, path, _skills(self._refresh()), in_place=in_place)

    def unload(self, name: str) -> None:
        """Serve what `load` added no more; ApiError when there is none."""
        with self._turn:
            self._loaded.unload(name, _skills(self._refresh()))

    def defaults(self) -> dict[str, float]:
        """The skills, and their scales, of requests for the base that name none."""
        served = self.ids() if self._defaults else ()
        return {skill.name: skill.scale for skill in self._defaults if skill.name in served}

    def set_defaults(self, wanted: Sequence[Wanted]) -> None:
        """Attach `wanted` to requests for the base that name no skills; ApiError as `resolve`."""
        self.resolve(self.name, wanted)
        self._defaults = tuple(skill for skill in wanted if skill.scale)

    def ids(self) -> list[str]:
        """The skills that can be asked for, sorted: a skill's place is its number for clients
        that know adapters by numbers only."""
        return sorted(name for name, locked in self.skills().items() if locked.verdict != "off")

    def problems(self) -> dict[str, str]:
        """What is known not to work, in one line each, by skill name or file."""
        skills = self.skills()
        with self._turn:
            found = {
                name: line
                for name, (locked, line) in self._problems.items()
                if skills.get(name) == locked
            }
            if self._snapshot.problem:
                found[LOCK_FILE] = self._snapshot.problem
            return found

    def resolve(self, model: str, asked: Sequence[Wanted] | None = None) -> SkillSet:
        """The skill set of a request: `asked` (body or header) if given, else the model name's.

        Raises ApiError: 404 unknown, 409 switched off, 503 cannot be served as promised.
        """
        named = from_model(model, self.name)
        wanted = named if asked is None else asked
        if asked is None and not named:
            wanted = [Wanted(name, scale) for name, scale in self.defaults().items()]
        check_set(wanted)
        with self._turn:
            snapshot = self._refresh()
            for skill in (*named, *wanted):
                self._find(skill.name, model, snapshot)
            members = [
                self._member(skill, self._find(skill.name, model, snapshot)) for skill in wanted
            ]
        return SkillSet(tuple(member for member in members if member.scale))

    def settled(self) -> bool:
        """Whether the lock, its adapters and their texts are read: no request waits for a disk."""
        if self._root is None:
            return True
        snapshot = self._snapshot
        lock = snapshot.lock
        if lock is None or lock is not self._all_known[0]:
            return False
        if lock is not self._all_open:  # once they are, not looked through for every request
            served = (locked for locked in lock.skills.values() if locked.verdict == "adapter")
            if not all(locked.key in self._stored for locked in served):
                return False
            self._all_open = lock
        return snapshot.stamp == _stamp(self._root / LOCK_FILE)

    def known(self) -> Mapping[str, KnownSkill]:
        """The texts that an adapter may stand for: of skills served so, unchanged since built."""
        with self._turn:
            lock = self._refresh().lock
            if lock is None or lock.base.hash != self.base.hash:
                return {}
            if lock is self._all_known[0]:
                return self._all_known[1]
            served = {n: locked for n, locked in lock.skills.items() if locked.verdict == "adapter"}
            found = {name: self._known_text(name, locked) for name, locked in served.items()}
            known = {name: skill for name, skill in found.items() if skill is not None}
            if len(known) == len(served):  # else a file may yet become what was compiled
                self._all_known = lock, known
        return known

    def with_mentioned(self, skills: SkillSet, mentioned: Sequence[str]) -> SkillSet:
        """`skills` and those of the `mentioned` ones that can be served, as many as a set holds."""
        members = {member.name: member for member in skills.members}
        with self._turn:
            lock = self._refresh().lock
            for name in mentioned:
                locked = lock.skills.get(name) if lock else None
                if locked is None or name in members or len(members) >= MAX_SKILLS:
                    continue
                try:
                    members[name] = self._member(Wanted(name), locked)
                except ApiError:  # its text is in the prompt, and stays there
                    continue
        return SkillSet(tuple(members.values()))

    def adapter_hash(self, locked: LockedSkill) -> str | None:
        """The sha256 of a skill's adapter, if it has been opened."""
        with self._turn:
            known = self._stored.get(locked.key)
            return known[1].sha256 if known else None

    def verify(self) -> dict[str, str]:
        """Check every skill that the lock would serve; returns `problems()`."""
        for name, locked in self.skills().items():
            if locked.verdict != "off":
                with self._turn:
                    self._verify(name, locked)
        return self.problems()

    def refuse(self, skills: SkillSet, line: str) -> None:
        """Remember that the engine refused an adapter that was alone and at its normal scale."""
        if len(skills.adapters) == 1 and skills.adapters[0].scale == 1.0:
            with self._turn:
                self._refused[skills.adapters[0].sha256] = line

    def _verify(self, name: str, locked: LockedSkill) -> None:
        from skillc_compiler.gguf_check import validate_adapter

        try:
            if locked.verdict == "text":
                self._text(locked)
                return
            stored = self._open(locked)
            try:
                validate_adapter(stored.gguf_bytes(), self.base)
            except AdapterError as error:
                self._refused[stored.sha256] = str(error)
                raise
        except SkillcError as error:
            self._problems[name] = (locked, str(error))

    def _refresh(self) -> _Snapshot:
        """The lock as it is now; read again whenever it may have changed."""
        if self._root is None:
            return self._snapshot
        path = self._root / LOCK_FILE
        stamp = _stamp(path)
        old = self._snapshot
        settled = stamp is None or old.read_at_ns - stamp[1] > _CLOCK_TICK_NS
        if stamp == old.stamp and old.read_at_ns and settled:
            return old
        lock, problem = None, None
        now = time.time_ns()
        if stamp is not None:
            try:
                lock = Lock.load(path)
            except StoreError as error:
                problem = str(error)
        self._snapshot = _Snapshot(stamp, now, lock, problem)
        return self._snapshot

    def _find(self, name: str, model: str, snapshot: _Snapshot) -> LockedSkill:
        if name in self._loaded.skills:
            return self._loaded.skills[name]
        if snapshot.problem:
            raise unusable(snapshot.problem)
        skills = _skills(snapshot)
        if name not in skills:
            known = ", ".join(sorted(skills)[:20]) or "none yet; run skillc build"
            raise unknown_model(model, f"no skill {name[:100]!r} (skills: {known})")
        assert snapshot.lock is not None
        if snapshot.lock.base.hash != self.base.hash:
            raise unusable(
                f"the skills were built for another base than {self.name}: run skillc build"
            )
        return skills[name]

    def _member(self, skill: Wanted, locked: LockedSkill) -> Member:
        if locked.verdict == "off":
            line = f"skill {skill.name!r} is off: measured, it does not help {self.name}; "
            raise ApiError(409, f"{line}see skillc show {skill.name}", code="skill_off")
        try:
            member = self._served(skill, locked)
        except SkillcError as error:
            self._problems[skill.name] = (locked, str(error))
            raise unusable(f"skill {skill.name!r} cannot be served: {error}") from error
        self._problems.pop(skill.name, None)
        return member

    def _served(self, skill: Wanted, locked: LockedSkill) -> Member:
        if locked.verdict == "text":
            return Member(skill.name, locked.hash, skill.scale, text=self._text(locked))
        stored = self._open(locked)
        if stored.sha256 in self._refused:
            raise AdapterError(self._refused[stored.sha256])
        ref = AdapterRef(stored.gguf_path, stored.sha256, skill.scale)
        activation = stored.manifest.activation
        return Member(skill.name, stored.sha256, skill.scale, ref=ref, activation=activation)

    def _known_text(self, name: str, locked: LockedSkill) -> KnownSkill | None:
        from skillc_compiler.skill import read_skill

        path = (self._root or Path()) / Path(locked.source).expanduser()
        key = (name, locked.hash, locked.source)
        stamp, known = self._known.get(key, (None, None))
        if known is not None or (stamp is not None and stamp == _stamp(path)):
            return known
        stamp = _stamp(path)
        try:
            skill = read_skill(path)
            if skill.hash == locked.hash:
                known = KnownSkill(name, skill.description, skill.body, file_sha256(path))
        except (SkillError, OSError):
            known = None
        self._known[key] = (stamp, known)
        return known

    def _text(self, locked: LockedSkill) -> str:
        from skillc_compiler.skill import read_skill

        if locked.hash not in self._texts:
            skill = read_skill((self._root or Path()) / Path(locked.source).expanduser())
            if skill.hash != locked.hash:
                raise SkillError(f"{locked.source}: changed since the build; run skillc build")
            self._texts[locked.hash] = skill.text
        return self._texts[locked.hash]

    def _open(self, locked: LockedSkill) -> StoredAdapter:
        """The store's entry, hashes checked; opened again only when its file is another one."""
        known = self._stored.get(locked.key)
        if known and _stamp(known[1].gguf_path) == known[0]:
            return known[1]
        self._stored.pop(locked.key, None)
        stored = self._store.open(locked.key)
        stamp = _stamp(stored.gguf_path)
        if stored.manifest.base_hash != self.base.hash:
            raise AdapterError(f"{stored.folder}: built for another base; run skillc build")
        if stored.manifest.skill_hash != locked.hash:
            raise AdapterError(f"{stored.folder}: built from another text; run skillc build")
        if stamp is not None:
            self._stored[locked.key] = (stamp, stored)
        return stored


def _skills(snapshot: _Snapshot) -> Mapping[str, LockedSkill]:
    return snapshot.lock.skills if snapshot.lock else {}


def _stamp(path: Path) -> _Stamp | None:
    """What changes when a file is replaced or written; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def unusable(line: str) -> ApiError:
    """The 503 for a skill that is there but cannot be served as promised."""
    return ApiError(503, line, code="skill_unusable")

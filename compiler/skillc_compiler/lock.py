"""The lock, `skillc.lock`: each skill's source, build key and verdict, as JSON that merges."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from skillc_compiler.durable import store_error, write_durable
from skillc_compiler.errors import StoreError

VERSION = 1
"""The version of the format that is written, and the only one that is read."""

VERDICTS = ("adapter", "text", "off")

_LIMIT = 64 << 20
# What is only written of an entry when it is so.
_MARKS = ("stale", "foreign")
_HEX = re.compile(r"[0-9a-f]{8,128}")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_REBUILD = "delete the file and run 'skillc build'"


@dataclass(frozen=True, slots=True)
class LockedBase:
    """The base the keys were made for."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class LockedCompiler:
    """The compiler the keys were made by."""

    id: str
    hash: str


@dataclass(frozen=True, slots=True)
class LockedSkill:
    """One skill: `source` is its SKILL.md from the project's root, with forward slashes.

    `hash` is the skill's, `key` its entry in the store; `verdict` says how to serve it: by its
    "adapter", by its "text" in the prompt, or not at all ("off"). `probe` holds what was measured.
    `stale` marks the last good adapter of a skill that could not be read or compiled since,
    `foreign` one that was trained elsewhere and that no build replaces unasked.
    """

    source: str
    hash: str
    key: str
    verdict: Literal["adapter", "text", "off"] = "adapter"
    probe: Mapping[str, float] = field(default_factory=dict)
    stale: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Lock:
    """What the last build left; equal locks give equal bytes."""

    base: LockedBase
    compiler: LockedCompiler
    skills: Mapping[str, LockedSkill] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def load(cls, path: Path) -> Lock:
        """Read a lock; unknown keys are ignored. Raises StoreError with one line."""
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except OSError as error:
            raise store_error(path, "be read", error) from error
        if len(data) > _LIMIT:
            raise StoreError(f"{path}: is over {_LIMIT >> 20} MiB; {_REBUILD}")
        return cls.from_json(data, str(path))

    @classmethod
    def from_json(cls, data: bytes | str, where: str = "skillc.lock") -> Lock:
        """Inverse of `to_json`; `where` names the file in errors. Raises StoreError."""
        record = _parse(data, where)
        if not isinstance(record, dict) or "version" not in record:
            raise StoreError(f"{where}: is not a lock of skillc; {_REBUILD}")
        if record["version"] != VERSION:
            version = str(record["version"])[:20]
            raise StoreError(f"{where}: is of version {version}, not {VERSION}; update skillc")
        base = _Fields(record.get("base"), f"{where}: base")
        compiler = _Fields(record.get("compiler"), f"{where}: compiler")
        skills = record.get("skills", {})
        if not isinstance(skills, dict):
            raise StoreError(f"{where}: skills is not an object; {_REBUILD}")
        return cls(
            LockedBase(base.text("name"), base.text("hash")),
            LockedCompiler(compiler.text("id"), compiler.text("hash")),
            {name: _skill(name, skills[name], where) for name in sorted(skills)},
        )

    def to_json(self) -> str:
        """The lock as JSON with sorted keys, one value a line."""
        record = {
            "base": asdict(self.base),
            "compiler": asdict(self.compiler),
            "skills": {name: _record(skill) for name, skill in self.skills.items()},
            "version": self.version,
        }
        text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    def dump(self, path: Path) -> bool:
        """Write the lock in one step; False when the file has these bytes already.

        Raises StoreError, and then the old file is untouched.
        """
        data = self.to_json().encode()
        try:
            if path.read_bytes() == data:
                return False
        except OSError:
            pass  # Missing or unreadable: the write below succeeds or says why not.
        write_durable(path, data)
        return True


class _Fields:
    """One object of the file, whose values are checked as they are taken."""

    def __init__(self, record: object, where: str) -> None:
        if not isinstance(record, dict):
            raise StoreError(f"{where} is missing or not an object; {_REBUILD}")
        self.record: dict[str, Any] = record
        self.where = where

    def text(self, key: str, form: re.Pattern[str] | None = None) -> str:
        value = self.record.get(key)
        if not isinstance(value, str) or (form and not form.fullmatch(value)):
            raise StoreError(f"{self.where}: {key} is missing or malformed; {_REBUILD}")
        return value


def _skill(name: str, record: object, where: str) -> LockedSkill:
    fields = _Fields(record, f"{where}: skill {name[:64]!r}")
    if not _NAME.fullmatch(name):
        raise StoreError(f"{fields.where}: is not a skill's name; {_REBUILD}")
    verdict = fields.record.get("verdict", "adapter")
    probe = fields.record.get("probe", {})
    if verdict not in VERDICTS:
        raise StoreError(f"{fields.where}: verdict is not one of {', '.join(VERDICTS)}; {_REBUILD}")
    if not isinstance(probe, dict) or not all(map(_is_number, probe.values())):
        raise StoreError(f"{fields.where}: probe does not hold numbers; {_REBUILD}")
    marks = {key: fields.record.get(key, False) for key in _MARKS}
    for key, value in marks.items():
        if not isinstance(value, bool):
            raise StoreError(f"{fields.where}: {key} is not true or false; {_REBUILD}")
    source, text, key = fields.text("source"), fields.text("hash"), fields.text("key", _HEX)
    return LockedSkill(source, text, key, verdict, probe, **marks)


def _record(skill: LockedSkill) -> dict[str, object]:
    values = {key: getattr(skill, key) for key in ("source", "hash", "key", "verdict")}
    marks = {key: True for key in _MARKS if getattr(skill, key)}
    return {**values, "probe": dict(skill.probe), **marks}


def _parse(data: bytes | str, where: str) -> Any:
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        return json.loads(text)
    except json.JSONDecodeError as error:
        if conflict := re.search(r"^(<{7}|={7}|>{7})", text, re.M):
            line = text.count("\n", 0, conflict.start()) + 1
            raise StoreError(f"{where}:{line}: has a merge conflict; {_REBUILD}") from error
        raise StoreError(
            f"{where}:{error.lineno}: is not JSON ({error.msg}); {_REBUILD}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where}: is not UTF-8 JSON; {_REBUILD}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

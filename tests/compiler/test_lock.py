"""The lock: what is written is read, equal locks are equal bytes, and bad ones are one line."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skillc_compiler.errors import StoreError
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill

SKILL = LockedSkill(".skills/a/SKILL.md", "1" * 64, "2" * 64, "text", {"token": 0.5, "exact": 1})


def lock(*names: str) -> Lock:
    skills = {name: replace(SKILL, source=f".skills/{name}/SKILL.md") for name in names}
    return Lock(LockedBase("nano", "b" * 64), LockedCompiler("writer", "c" * 64), skills)


def record(**changes: Any) -> dict[str, Any]:
    return {**json.loads(lock("a").to_json()), **changes}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "skillc.lock"
    assert lock("b", "a").dump(path)
    assert Lock.load(path) == lock("a", "b")
    assert list(Lock.load(path).skills) == ["a", "b"]


def test_bytes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    text = lock("b", "a").to_json()
    assert text == lock("a", "b").to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"


def test_stale_entries_are_marked() -> None:
    fresh = lock("a")
    stale = replace(fresh, skills={"a": replace(SKILL, stale=True)})
    assert "stale" not in fresh.to_json()
    assert json.loads(stale.to_json())["skills"]["a"]["stale"] is True
    assert Lock.from_json(stale.to_json()) == stale
    with pytest.raises(StoreError, match="stale is not true or false"):
        Lock.from_json(stale.to_json().replace('"stale": true', '"stale": 1'))


def test_defaults_and_unknown_keys() -> None:
    data = record(future=1)
    data["skills"]["a"] = {"source": "s", "hash": "h", "key": "f" * 64, "more": []}
    read = Lock.from_json(json.dumps(data))
    assert read.skills["a"] == LockedSkill("s", "h", "f" * 64, "adapter", {})


def test_an_equal_lock_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "skillc.lock"
    assert lock("a").dump(path)
    before = path.stat()
    assert not lock("a").dump(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert lock("b").dump(path)
    assert path.stat().st_ino != before.st_ino


def test_a_failed_write_leaves_the_old_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "skillc.lock"
    lock("a").dump(path)

    def fail(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"skillc.lock: cannot be written: no space left"):
        lock("b").dump(path)
    assert Lock.load(path) == lock("a")
    assert list(tmp_path.iterdir()) == [path]


def test_two_people_adding_skills_merge(tmp_path: Path) -> None:
    versions = {"base": ("c", "m"), "mine": ("a", "c", "m"), "theirs": ("c", "m", "x")}
    for name, skills in versions.items():
        (tmp_path / name).write_text(lock(*skills).to_json())
    merged = subprocess.run(
        ["git", "merge-file", "-p", "mine", "base", "theirs"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert merged.returncode == 0
    assert Lock.from_json(merged.stdout) == lock("a", "c", "m", "x")


CONFLICT = lock("a").to_json().replace('    "a": {', '<<<<<<< HEAD\n    "a": {', 1)
BROKEN = lock("a").to_json().replace('"nano"', "nano", 1)


def skill_with(**changes: Any) -> str:
    return json.dumps(record(skills={"a": {**record()["skills"]["a"], **changes}}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "skillc.lock:1: is not JSON (Expecting value); "),
        (BROKEN, "skillc.lock:4: is not JSON (Expecting value); "),
        (CONFLICT, "skillc.lock:11: has a merge conflict; "),
        (b"\xff\xfe", "skillc.lock: is not UTF-8 JSON; "),
        ("[" * 100_000, "skillc.lock: is not UTF-8 JSON; "),
        ("[]", "skillc.lock: is not a lock of skillc; "),
        ("{}", "skillc.lock: is not a lock of skillc; "),
        (json.dumps(record(version=2)), "skillc.lock: is of version 2, not 1; update skillc"),
        (json.dumps(record(version="1")), "skillc.lock: is of version 1, not 1; update skillc"),
        (json.dumps(record(base=None)), "skillc.lock: base is missing or not an object; "),
        (json.dumps(record(base={"name": 1})), "skillc.lock: base: name is missing or malformed; "),
        (json.dumps(record(compiler={"id": "w"})), "skillc.lock: compiler: hash is missing or "),
        (json.dumps(record(skills=[])), "skillc.lock: skills is not an object; "),
        (
            json.dumps(record(skills={"a": 1})),
            "skillc.lock: skill 'a' is missing or not an object; ",
        ),
        (
            json.dumps(record(skills={"../x": {}})),
            "skillc.lock: skill '../x': is not a skill",
        ),
        (skill_with(key="../x"), "skillc.lock: skill 'a': key is missing or malformed; "),
        (skill_with(source=None), "skillc.lock: skill 'a': source is missing or malformed; "),
        (
            skill_with(verdict="maybe"),
            "skillc.lock: skill 'a': verdict is not one of adapter",
        ),
        (skill_with(verdict=[]), "skillc.lock: skill 'a': verdict is not one of adapter"),
        (skill_with(probe=[1]), "skillc.lock: skill 'a': probe does not hold numbers; "),
        (skill_with(probe={"x": "y"}), "skillc.lock: skill 'a': probe does not hold numbers; "),
        (skill_with(probe={"x": float("nan")}), "skillc.lock: skill 'a': probe does not hold num"),
    ],
)
def test_a_bad_lock_is_one_line(tmp_path: Path, data: str | bytes, message: str) -> None:
    path = tmp_path / "skillc.lock"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(StoreError) as error:
        Lock.load(path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_a_missing_lock_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        Lock.load(tmp_path / "skillc.lock")


def test_a_mark_at_the_start_is_read(tmp_path: Path) -> None:
    path = tmp_path / "skillc.lock"
    path.write_text("\ufeff" + lock("a").to_json().replace("\n", "\r\n"))
    assert Lock.load(path) == lock("a")

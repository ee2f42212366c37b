"""Names to skill sets, and the lock read again exactly when it changes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.support import ProjectFolder, random_adapter

from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.lock import Lock
from skillc_runtime.api_error import ApiError
from skillc_runtime.names import Wanted, from_header, from_model
from skillc_runtime.registry import Registry
from skillc_runtime.skill_set import Member, SkillSet


@pytest.fixture
def registry(project: ProjectFolder) -> Registry:
    return Registry(project.root, project.base, "nano")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nano", []),
        ("base", []),
        ("nano:a", [Wanted("a")]),
        ("nano+a", [Wanted("a")]),
        ("base:a", [Wanted("a")]),
        ("a", [Wanted("a")]),
        ("nano:a+b@0.5", [Wanted("a"), Wanted("b", 0.5)]),
        ("nano:a@0.7+b", [Wanted("a", 0.7), Wanted("b")]),
        ("a+b@-1", [Wanted("a"), Wanted("b", -1.0)]),
        ("base+a:0.8,b", [Wanted("a", 0.8), Wanted("b")]),
        ("nano: a , b @ 0.5 ", [Wanted("a"), Wanted("b", 0.5)]),
        ("nanometre", [Wanted("nanometre")]),
    ],
)
def test_model_names(model: str, expected: list[Wanted]) -> None:
    assert from_model(model, "nano") == expected


@pytest.mark.parametrize(
    "model",
    ["", "nano:", "nano:+", "nano:a+", "a@", "a@x", "a@nan", "a@inf", "a@99", "a:b:c", "a b", "@1"],
)
def test_names_that_mean_nothing(model: str) -> None:
    with pytest.raises(ApiError) as error:
        from_model(model, "nano")
    assert (error.value.status, error.value.code) == (404, "model_not_found")


def test_header() -> None:
    assert from_header(" a:0.5, b ") == [Wanted("a", 0.5), Wanted("b")]
    assert from_header(" ") == []


def test_text_and_adapter_members(registry: Registry, project: ProjectFolder) -> None:
    found = registry.resolve("nano:deploy@0.5+notes")
    assert [member.served_as for member in found.members] == ["adapter", "text"]
    assert found.adapters[0].scale == 0.5
    assert found.texts[0].startswith("---\nname: notes\n")
    assert found.header().count(", ") == 1
    assert SkillSet().header() == ""


def test_report() -> None:
    member = Member("a", "h" * 64, 0.5, text="x")
    assert member.report() == {"name": "a", "hash": "h" * 64, "scale": 0.5, "as": "text"}


def test_lock_is_read_only_when_it_changed(
    registry: Registry, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    load = Lock.load

    def counted(path: Path) -> Lock:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(Lock, "load", counted)
    old = project.lock_path.stat().st_mtime_ns - 10**9
    os.utime(project.lock_path, ns=(old, old))
    for _ in range(5):
        registry.resolve("nano:deploy")
    assert len(reads) == 1
    project.add("deploy", 9)
    registry.resolve("nano:deploy")
    assert len(reads) == 2


def test_two_writes_in_one_tick_of_the_clock_are_both_seen(
    registry: Registry, project: ProjectFolder
) -> None:
    first = project.lock_path.read_bytes()
    stamp = project.lock_path.stat()
    registry.resolve("nano:deploy")
    # Same inode, size and time: only the bytes differ.
    project.lock_path.write_bytes(first.replace(b'"deploy"', b'"banana"'))
    os.utime(project.lock_path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert project.lock_path.stat().st_size == stamp.st_size
    assert "banana" in registry.skills()


def test_store_entry_made_again_is_opened_again(registry: Registry, project: ProjectFolder) -> None:
    before = registry.resolve("nano:deploy").members[0]
    project.store.remove(project.locked["deploy"].key)
    with pytest.raises(ApiError) as error:
        registry.resolve("nano:deploy")
    assert error.value.status == 503
    assert list(registry.problems()) == ["deploy"]
    project.add("deploy", 1)
    assert registry.resolve("nano:deploy").members[0] == before
    assert registry.problems() == {}


def test_verify_finds_what_cannot_be_served(registry: Registry, project: ProjectFolder) -> None:
    path = project.gguf("style")
    path.write_bytes(path.read_bytes()[:-8])
    (project.root / ".skills" / "notes" / "SKILL.md").unlink()
    assert sorted(registry.verify()) == ["notes", "style"]
    for name in ("style", "notes"):
        with pytest.raises(ApiError) as error:
            registry.resolve(f"nano:{name}")
        assert error.value.status == 503
    assert registry.resolve("nano:deploy").adapters


@pytest.mark.parametrize("fault", ["gguf", "base", "text"])
def test_entries_that_are_whole_but_wrong(
    registry: Registry, project: ProjectFolder, fault: str
) -> None:
    """The store vouches for the bytes, not for what is in them."""
    locked = project.locked["deploy"]
    base = replace(project.base, hash="d" * 64) if fault == "base" else project.base
    adapter = random_adapter(base, 1, locked.hash if fault != "text" else "e" * 64)
    data = b"GGUF but no adapter" if fault == "gguf" else adapter_to_gguf(adapter, base)
    project.store.remove(locked.key)
    project.store.publish(locked.key, adapter, data)
    assert list(registry.verify()) == ["deploy"]
    for _ in range(2):
        with pytest.raises(ApiError) as error:
            registry.resolve("nano:deploy")
        assert error.value.status == 503
    assert list(registry.problems()) == ["deploy"]


def test_refused_adapter_stays_refused_until_it_changes(
    registry: Registry, project: ProjectFolder
) -> None:
    registry.refuse(registry.resolve("nano:deploy"), "it makes the base compute NaN")
    with pytest.raises(ApiError, match="compute NaN"):
        registry.resolve("nano:deploy")
    with pytest.raises(ApiError, match="compute NaN"):
        registry.resolve("nano:style+deploy")
    project.add("deploy", 8)
    assert registry.resolve("nano:deploy").adapters
    assert registry.problems() == {}


def test_without_a_project_there_are_no_skills(base: BaseInfo) -> None:
    registry = Registry(None, base)
    assert registry.resolve("tiny") == SkillSet()
    with pytest.raises(ApiError) as error:
        registry.resolve("tiny:deploy")
    assert error.value.status == 404


def add_long_ago(project: ProjectFolder, name: str, seed: int) -> None:
    """A lock that was just written is read again until its time can tell two writes apart."""
    project.add(name, seed)
    long_ago = project.lock_path.stat().st_mtime_ns - 10**10
    os.utime(project.lock_path, ns=(long_ago, long_ago))


def test_is_settled_while_what_was_read_stays(base: BaseInfo, tmp_path: Path) -> None:
    project = ProjectFolder(tmp_path, base)
    add_long_ago(project, "deploy", 1)
    registry = Registry(tmp_path, base)
    assert not registry.settled()
    assert set(registry.known()) == {"deploy"}
    assert not registry.settled()  # the adapter has not been opened
    registry.resolve("tiny:deploy")
    assert registry.settled()
    add_long_ago(project, "style", 2)
    assert not registry.settled()
    assert set(registry.known()) == {"deploy", "style"}
    assert not registry.settled()
    registry.verify()
    assert registry.settled()
    assert Registry(None, base).settled()


def test_is_not_settled_while_a_text_differs(base: BaseInfo, tmp_path: Path) -> None:
    project = ProjectFolder(tmp_path, base)
    project.add("deploy", 1)
    path = tmp_path / ".skills" / "deploy" / "SKILL.md"
    path.write_text(path.read_text("utf-8") + "\nMore.\n", "utf-8")
    registry = Registry(tmp_path, base)
    assert not registry.known()
    assert not registry.settled()

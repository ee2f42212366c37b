"""What a build remembers of files: never older than the files are, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugin.project import SKILL, FakeCompiler, Run, build_json, write_skill

from skillc.memory import REST_NS, Memory, seal
from skillc.project import Project
from skillc_compiler.skill_file import read_bounded

NAMES = ("testing", "deploy")


@pytest.fixture
def built(root: Path, run: Run, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was built, and looked at when everything was at rest."""
    for name in NAMES:
        write_skill(root, name)
    run("build")
    later = time.time_ns() + REST_NS + 10**9
    monkeypatch.setattr("skillc.memory.time.time_ns", lambda: later)
    run("build")
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the skills that are read from now on."""
    seen: list[str] = []

    def read(path: Path) -> bytes:
        seen.append(path.parent.name)
        return read_bounded(path)

    monkeypatch.setattr("skillc.memory.read_bounded", read)
    return seen


def test_what_is_at_rest_is_not_read(built: Path, run: Run, reads: list[str]) -> None:
    assert build_json(run)["unchanged"] == 2
    assert reads == []


def test_what_changed_a_moment_ago_is_read(root: Path, run: Run, compiler: FakeCompiler,
                                           reads: list[str]) -> None:  # fmt: skip
    write_skill(root, "testing")
    for _ in range(2):
        run("build")
        assert "testing" in reads
        reads.clear()


def same_size_same_time(file: Path) -> None:
    before = file.stat()
    file.write_text(file.read_text("utf-8").replace("--fast", "--slow"), "utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file_in_its_place(file: Path) -> None:
    before = file.stat()
    other = file.with_name("new")
    other.write_text(file.read_text("utf-8").replace("--fast", "--slow"), "utf-8")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def another_folder_in_its_place(file: Path) -> None:
    before = file.parent.stat()
    shutil.copytree(file.parent, file.parents[1] / "other")
    shutil.rmtree(file.parent)
    (file.parents[1] / "other").rename(file.parent)
    file.write_text(file.read_text("utf-8").replace("--fast", "--slow"), "utf-8")
    os.utime(file.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change", [same_size_same_time, another_file_in_its_place, another_folder_in_its_place]
)
def test_changes_that_hide(
    change: Callable[[Path], None], built: Path, run: Run, reads: list[str]
) -> None:
    change(built / ".skills" / "testing" / "SKILL.md")
    record = build_json(run)
    assert (record["built"], record["unchanged"]) == (1, 1)
    assert set(reads) == {"testing"}


def test_new_and_deleted_skills_are_seen(built: Path, run: Run, reads: list[str]) -> None:
    write_skill(built, "release")
    shutil.rmtree(built / ".skills" / "deploy")
    record = build_json(run)
    assert (record["built"], record["removed"], record["unchanged"]) == (1, 1, 1)
    assert set(reads) == {"release"}


@pytest.mark.parametrize("name", ["adapter.gguf", "manifest.json", "adapter_config.json"])
def test_a_damaged_entry_is_seen(name: str, built: Path, run: Run, reads: list[str]) -> None:
    store = Project.at(built).store()
    key = store.keys()[0]
    file = store.folder(key) / name
    file.write_bytes(file.read_bytes()[:-10])
    assert build_json(run)["built"] == 1
    store.open(key)


def test_everything_is_read_when_nothing_is_trusted(built: Path, reads: list[str]) -> None:
    memory = Project.at(built).memory()
    files = [built / ".skills" / name / "SKILL.md" for name in NAMES]
    before = [memory.read(file) for file in files]
    assert reads == []
    memory.begin(trusting=False)
    assert [memory.read(file) for file in files] == before
    assert reads == list(NAMES)
    assert memory.news == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"{}", b"0\n{}", f"{seal('[1]')}\n[1]".encode(), seal("").encode() + b"\n"],
)
def test_a_damaged_memory_is_forgotten(
    data: bytes, built: Path, run: Run, reads: list[str]
) -> None:
    (built / ".skillc" / "memory.json").write_bytes(data)
    assert build_json(run)["unchanged"] == 2
    assert sorted(reads) == sorted(NAMES)


def test_a_memory_of_another_version_is_forgotten(built: Path, run: Run, reads: list[str]) -> None:
    path = built / ".skillc" / "memory.json"
    kept = json.loads(path.read_text("ascii").partition("\n")[2])
    text = json.dumps({**kept, "version": 99})
    path.write_text(f"{seal(text)}\n{text}", "ascii")
    build_json(run)
    assert sorted(reads) == sorted(NAMES)


def test_what_is_gone_is_forgotten(built: Path, run: Run) -> None:
    shutil.rmtree(built / ".skills" / "deploy")
    write_skill(built, "testing", SKILL.format(name="testing") + "- More.\n")
    run("build")
    kept = (built / ".skillc" / "memory.json").read_text("ascii")
    assert "deploy/SKILL.md" not in kept


def test_errors_are_not_remembered(root: Path) -> None:
    path = write_skill(root, "testing", "no frontmatter")
    memory = Memory()
    assert memory.read(path).error
    write_skill(root, "testing")
    memory.begin()
    assert memory.read(path).error == ""

"""`skillc watch` sees every way in which an editor, git or an installer changes a skill."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugin.project import BROKEN, FakeCompiler, locked, write_skill
from tests.plugin.watched import eventually, serves, text, watching

from skillc_compiler.adapter import Adapter
from skillc_compiler.skill import Skill

Save = Callable[[Path, str], None]


def in_place(file: Path, new: str) -> None:
    file.write_text(new, "utf-8")


def rename_over(file: Path, new: str) -> None:
    beside = file.with_name(".SKILL.md.swp")
    beside.write_text(new, "utf-8")
    beside.replace(file)


def backup_and_create(file: Path, new: str) -> None:
    file.rename(file.with_name("SKILL.md~"))
    file.write_text(new, "utf-8")


def move_in(file: Path, new: str) -> None:
    outside = file.parents[3] / "elsewhere.md"
    outside.write_text(new, "utf-8")
    outside.replace(file)


def truncate_and_append(file: Path, new: str) -> None:
    with file.open("w", encoding="utf-8") as out:
        for start in range(0, len(new), 40):
            out.write(new[start : start + 40])
            out.flush()


def delete_and_create(file: Path, new: str) -> None:
    file.unlink()
    file.write_text(new, "utf-8")


def swap_the_folder(file: Path, new: str) -> None:
    other = file.parent.with_name("other")
    other.mkdir()
    (other / "SKILL.md").write_text(new, "utf-8")
    shutil.rmtree(file.parent)
    other.rename(file.parent)


def keep_the_time(file: Path, new: str) -> None:
    before = file.stat()
    file.write_text(new, "utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def two_at_once(file: Path, new: str) -> None:
    file.write_text("---\nname: testing\ndescription: Old.\n---\nOld.\n", "utf-8")
    file.write_text(new, "utf-8")


SAVES: list[Save] = [
    in_place,
    rename_over,
    backup_and_create,
    move_in,
    truncate_and_append,
    delete_and_create,
    swap_the_folder,
    keep_the_time,
    two_at_once,
]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
def test_save_styles(save: Save, root: Path, compiler: FakeCompiler) -> None:
    file = write_skill(root, "testing")
    with watching(root, compiler) as seen:
        eventually(lambda: serves(root, "testing", text("testing")))
        for number in range(2):
            new = text("testing", f"Rule {number} by {save.__name__}.")
            save(file, new)
            eventually(lambda new=new: serves(root, "testing", new))  # type: ignore[misc]
    assert seen.lines == []
    assert set(seen.statuses("testing")) <= {"built", "removed"}


def test_new_renamed_nested_and_deleted_skills(root: Path, compiler: FakeCompiler) -> None:
    with watching(root, compiler):
        write_skill(root, "testing")
        eventually(lambda: serves(root, "testing", text("testing")))
        nested = root / ".skills" / "group" / "inner" / "deploy"
        nested.mkdir(parents=True)
        (nested / "SKILL.md").write_text(text("deploy"), "utf-8")
        eventually(lambda: serves(root, "deploy", text("deploy")))
        folder = root / ".skills" / "release"
        (root / ".skills" / "testing").rename(folder)
        (folder / "SKILL.md").write_text(text("release"), "utf-8")
        eventually(lambda: sorted(locked(root).skills) == ["deploy", "release"])
        shutil.rmtree(root / ".skills")
        eventually(lambda: not locked(root).skills)
        write_skill(root, "again")
        eventually(lambda: serves(root, "again", text("again")))


def test_a_source_that_is_made_later(root: Path, compiler: FakeCompiler) -> None:
    with watching(root, compiler) as seen:
        eventually(lambda: seen.lines)
        assert seen.lines[0].startswith("no skills in .skills, .agents/skills")
        folder = root / ".claude" / "skills" / "testing"
        folder.mkdir(parents=True)
        (folder / "SKILL.md").write_text(text("testing"), "utf-8")
        eventually(lambda: serves(root, "testing", text("testing")))


@pytest.fixture
def outside(tmp_path: Path, root: Path) -> Path:
    """A skill in a folder outside of the project that is one of its sources."""
    folder = tmp_path / "outside"
    (folder / "testing").mkdir(parents=True)
    (folder / "testing" / "SKILL.md").write_text(text("testing"), "utf-8")
    settings = f'base = "tiny"\nrank = 4\nextra_sources = ["{folder}"]\n'
    (root / "skillc.toml").write_text(settings, "utf-8")
    return folder / "testing"


def test_a_linked_folder(root: Path, outside: Path, compiler: FakeCompiler) -> None:
    (root / ".skills" / "testing").symlink_to(outside, target_is_directory=True)
    with watching(root, compiler):
        eventually(lambda: serves(root, "testing", text("testing")))
        (outside / "SKILL.md").write_text(text("testing", "More."), "utf-8")
        eventually(lambda: serves(root, "testing", text("testing", "More.")))


def test_a_linked_file(root: Path, tmp_path: Path, outside: Path, compiler: FakeCompiler) -> None:
    hidden = outside.parent / ".git" / "notes.md"
    hidden.parent.mkdir()
    (outside / "SKILL.md").rename(hidden)
    (root / ".skills" / "testing").mkdir()
    (root / ".skills" / "testing" / "SKILL.md").symlink_to(hidden)
    with watching(root, compiler):
        eventually(lambda: serves(root, "testing", text("testing")))
        hidden.write_text(text("testing", "More."), "utf-8")
        eventually(lambda: serves(root, "testing", text("testing", "More.")))


def test_a_folder_linked_after_the_start(
    root: Path, tmp_path: Path, outside: Path, compiler: FakeCompiler
) -> None:
    """Its target is seen from then on too."""
    target = root / "vendor" / "deploy"
    target.mkdir(parents=True)
    (target / "SKILL.md").write_text(text("deploy"), "utf-8")
    with watching(root, compiler):
        eventually(lambda: serves(root, "testing", text("testing")))
        (root / ".skills" / "deploy").symlink_to(target, target_is_directory=True)
        eventually(lambda: serves(root, "deploy", text("deploy")))
        (target / "SKILL.md").write_text(text("deploy", "More."), "utf-8")
        eventually(lambda: serves(root, "deploy", text("deploy", "More.")))


def test_a_hundred_saves_are_few_builds(root: Path, compiler: FakeCompiler) -> None:
    file = write_skill(root, "testing")
    with watching(root, compiler) as seen:
        eventually(lambda: serves(root, "testing", text("testing")))
        before = len(compiler.compiled)
        for number in range(100):
            file.write_text(text("testing", f"Save {number}."), "utf-8")
            time.sleep(0.008)
        eventually(lambda: serves(root, "testing", text("testing", "Save 99.")))
        assert len(compiler.compiled) - before <= 2
    assert "failed" not in seen.statuses("testing")


def test_a_text_that_changes_during_its_build(root: Path, compiler: FakeCompiler) -> None:
    """The older text is compiled but never entered: the newest wins."""
    file = write_skill(root, "testing")
    compile_one, entered = compiler.compile, []

    def rewrite(skill: Skill, *, rank: int = 32) -> Adapter:
        adapter = compile_one(skill, rank=rank)
        if len(compiler.compiled) < 3:
            file.write_text(text("testing", f"Edit {len(compiler.compiled)}."), "utf-8")
        if (root / "skillc.lock").exists():
            entered.append(locked(root).skills.get("testing"))
        return adapter

    compiler.compile = rewrite  # type: ignore[method-assign]
    with watching(root, compiler):
        eventually(lambda: serves(root, "testing", text("testing", "Edit 2.")))
    assert len(compiler.compiled) == 3
    assert not any(entered)


def test_two_hundred_skills_at_once(root: Path, compiler: FakeCompiler) -> None:
    names = [f"skill-{number:03d}" for number in range(200)]
    with watching(root, compiler):
        for name in names:
            write_skill(root, name)
        eventually(lambda: (root / "skillc.lock").exists() and len(locked(root).skills) == 200)
        for name in names:
            write_skill(root, name, text(name, "Other branch."))
        eventually(lambda: all(serves(root, name, text(name, "Other branch.")) for name in names))


def test_an_unreadable_skill_is_told_once(root: Path, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    with watching(root, compiler, scan_seconds=0.05) as seen:
        eventually(lambda: serves(root, "testing", text("testing")))
        write_skill(root, "testing", BROKEN.replace("broken", "testing"))
        write_skill(root, "deploy")
        eventually(lambda: serves(root, "deploy", text("deploy")))
        eventually(lambda: locked(root).skills["testing"].stale)
        looks = len(seen.polling)
        eventually(lambda: len(seen.polling) > looks + 3)
        assert seen.statuses("testing") == ["built", "failed"]
        write_skill(root, "testing", text("testing", "Mended."))
        eventually(lambda: serves(root, "testing", text("testing", "Mended.")))


def test_settings_that_become_wrong(root: Path, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    with watching(root, compiler) as seen:
        eventually(lambda: serves(root, "testing", text("testing")))
        right = (root / "skillc.toml").read_text("utf-8")
        (root / "skillc.toml").write_text("rnak = 1\n", "utf-8")
        eventually(lambda: seen.lines)
        assert "did you mean 'rank'?" in seen.lines[0]
        (root / "skillc.toml").write_text(right.replace("rank = 4", "rank = 2"), "utf-8")
        eventually(lambda: compiler.ranks[-1] == 2)


def test_without_any_event_the_scan_finds_it(
    root: Path, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skillc.hints.Hints.watch", lambda self, folders: None)
    file = write_skill(root, "testing")
    with watching(root, compiler, scan_seconds=0.1):
        eventually(lambda: serves(root, "testing", text("testing")))
        keep_the_time(file, text("testing", "Unseen."))
        eventually(lambda: serves(root, "testing", text("testing", "Unseen.")))


def test_polling_when_asked(root: Path, compiler: FakeCompiler) -> None:
    file = write_skill(root, "testing")
    threads = threading.active_count()
    with watching(root, compiler, polling=True) as seen:
        assert threading.active_count() == threads + 1
        eventually(lambda: serves(root, "testing", text("testing")))
        rename_over(file, text("testing", "Polled."))
        eventually(lambda: serves(root, "testing", text("testing", "Polled.")))
        assert set(seen.polling) == {True}

"""`skillc build`: what is compiled when, and what stands in the lock afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugin.project import (
    BROKEN,
    SKILL,
    FakeCompiler,
    Run,
    build_json,
    file_hashes,
    locked,
    write_compiler,
    write_skill,
)

from skillc.job import verdict_of
from skillc_compiler.store import Store


def test_first_build_then_nothing_to_do(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    first = run("build")
    assert first.code == 0, first.err
    assert first.out.startswith("2 built, 0 unchanged in ")
    assert "built deploy in " in first.err
    lock = locked(root)
    assert list(lock.skills) == ["deploy", "testing"]
    assert lock.skills["testing"].source == ".skills/testing/SKILL.md"
    assert lock.skills["testing"].verdict == "adapter"
    assert lock.base.name == "tiny"
    store = Store(root / ".skillc" / "store")
    for entry in lock.skills.values():
        assert store.open(entry.key).manifest.skill_hash == entry.hash
    before = (root / "skillc.lock").stat()
    second = run("build")
    assert (second.code, second.err) == (0, "")
    assert second.out.startswith("0 built, 2 unchanged in ")
    assert sorted(compiler.compiled) == ["deploy", "testing"]
    assert (root / "skillc.lock").stat().st_mtime_ns == before.st_mtime_ns


def test_only_what_changed_is_compiled(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    old = locked(root).skills
    write_skill(root, "testing", SKILL.format(name="testing") + "- One rule more.\n")
    compiler.compiled.clear()
    assert run("build").code == 0
    assert compiler.compiled == ["testing"]
    new = locked(root).skills
    assert new["deploy"] == old["deploy"]
    assert new["testing"].key != old["testing"].key
    write_skill(root, "testing")
    assert build_json(run)["unchanged"] == 2
    assert locked(root).skills == old
    assert compiler.compiled == ["testing"]


def test_white_space_changes_nothing(root: Path, run: Run, compiler: FakeCompiler) -> None:
    path = write_skill(root, "testing")
    run("build")
    path.write_bytes(path.read_bytes().replace(b"\n", b"  \r\n") + b"\n\n")
    assert build_json(run)["unchanged"] == 1
    assert compiler.compiled == ["testing"]


def test_a_rename_finds_its_adapter_again(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    run("build")
    elsewhere = root / ".claude" / "skills"
    elsewhere.mkdir(parents=True)
    (root / ".skills" / "testing").rename(elsewhere / "testing")
    assert build_json(run)["unchanged"] == 1
    assert locked(root).skills["testing"].source == ".claude/skills/testing/SKILL.md"
    assert compiler.compiled == ["testing"]


def test_force_compiles_again_to_the_same_bytes(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    run("build")
    before = file_hashes(root / ".skillc")
    assert build_json(run, "--force")["built"] == 1
    assert compiler.compiled == ["testing", "testing"]
    assert file_hashes(root / ".skillc") == before


def test_dry_run_writes_nothing(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "broken", BROKEN)
    before = file_hashes(root)
    done = run("build", "--dry-run")
    assert done.code == 1
    assert "would build testing\n" in done.out
    assert "failed broken: " in done.out
    assert "1 to build, 0 unchanged, 1 failed" in done.out
    assert file_hashes(root) == before
    assert not (root / ".skillc").exists()
    assert compiler.compiled == []


def test_deleted_skills_leave_the_lock(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    shutil.rmtree(root / ".skills" / "deploy")
    record = build_json(run)
    assert (record["removed"], record["unchanged"]) == (1, 1)
    assert list(locked(root).skills) == ["testing"]
    shutil.rmtree(root / ".skills" / "testing")
    assert run("build").code == 0
    assert locked(root).skills == {}
    nothing = run("build")
    assert nothing.code == 2
    assert "put a SKILL.md under .skills/NAME/" in nothing.err


def test_a_new_compiler_builds_all_again(
    root: Path, home: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    write_compiler(home / "bases" / "tiny", "fake-2")
    refused = run("build", "testing")
    assert refused.code == 2
    assert "another base or compiler" in refused.err
    assert build_json(run)["built"] == 2
    assert locked(root).compiler.id == "fake-2"


def test_names_limit_the_build(root: Path, run: Run, compiler: FakeCompiler) -> None:
    for name in ("testing", "deploy", "release"):
        write_skill(root, name)
    assert build_json(run, "deploy", "release")["built"] == 2
    assert list(locked(root).skills) == ["deploy", "release"]
    write_skill(root, "deploy", SKILL.format(name="deploy") + "- More.\n")
    shutil.rmtree(root / ".skills" / "release")
    assert build_json(run, "testing")["built"] == 1
    assert list(locked(root).skills) == ["deploy", "release", "testing"]
    unknown = run("build", "relase")
    assert unknown.code == 2
    assert "no skill 'relase' in this project" in unknown.err


def test_rank(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    run("build")
    assert build_json(run, "--rank", "8")["built"] == 1
    assert compiler.ranks == [4, 8]


def test_the_state_stays_out_of_git(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    before = set(root.parent.rglob("*"))
    run("build")
    assert (root / ".skillc" / ".gitignore").read_text() == "*\n"
    for path in set(root.parent.rglob("*")) - before:
        assert path == root / "skillc.lock" or path.is_relative_to(root / ".skillc")


def test_shadowed_and_linked_skills(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    other = root / ".claude" / "skills" / "testing" / "SKILL.md"
    other.parent.mkdir(parents=True)
    other.write_text(SKILL.format(name="testing") + "- Other.\n", "utf-8")
    (root / ".agents").mkdir()
    (root / ".agents" / "skills").symlink_to(root / ".skills", target_is_directory=True)
    record = build_json(run)
    assert [skill["source"] for skill in record["skills"]] == [".skills/testing/SKILL.md"]


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [
        ({}, "adapter"),
        ({"recall": 0.9, "recall_none": 0.1}, "adapter"),
        ({"recall": 0.1, "recall_none": 0.1}, "text"),
        ({"recall": 0.0, "recall_none": 0.1}, "text"),
    ],
)
def test_verdict(probe: dict[str, float], verdict: str) -> None:
    assert verdict_of(probe) == verdict


def test_an_adapter_without_effect_is_served_as_text(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    compiler.probe = {"recall": 0.2, "recall_none": 0.2}
    assert run("build").code == 0
    entry = locked(root).skills["testing"]
    assert (entry.verdict, entry.probe) == ("text", compiler.probe)


def test_no_change_build_imports_neither_torch_nor_numpy(
    root: Path, home: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    run("build")
    code = (
        "import sys\nfrom skillc.cli import run\nassert run(['build']) == 0\n"
        "print([m for m in ('torch', 'numpy', 'rich', 'llama_cpp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n[]\n"), done.stdout

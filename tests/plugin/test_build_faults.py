"""`skillc build`: one thing that is wrong costs one line, and the rest goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.plugin.project import (
    BROKEN,
    FakeCompiler,
    Run,
    build_json,
    locked,
    write_base,
    write_skill,
)

from skillc_compiler.errors import CompilerError
from skillc_compiler.store import Store


def test_an_unreadable_skill_costs_only_itself(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "broken", BROKEN)
    write_skill(root, "testing")
    done = run("build")
    assert done.code == 1
    line = next(line for line in done.err.splitlines() if line.startswith("failed broken: "))
    assert ".skills/broken/SKILL.md:" in line
    assert str(root) not in done.err
    assert list(locked(root).skills) == ["testing"]


def test_the_last_good_adapter_stays(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    run("build")
    old = locked(root).skills["testing"]
    write_skill(root, "testing", BROKEN.replace("broken", "testing"))
    done = run("build")
    assert done.code == 1
    assert "; its last good adapter stays" in done.err
    assert locked(root).skills["testing"] == replace(old, stale=True)
    assert build_json(run)["skills"][0]["kept"] is True
    write_skill(root, "testing")
    assert build_json(run)["unchanged"] == 1
    assert locked(root).skills["testing"] == old


def test_the_last_good_adapter_of_another_base_goes(
    root: Path, home: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    run("build")
    write_base(home, seed=1)
    write_skill(root, "testing", BROKEN.replace("broken", "testing"))
    assert build_json(run)["skills"][0]["kept"] is False
    assert locked(root).skills == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CompilerError("skill 'odd': the adapter is not finite"), "the adapter is not finite"),
        (RuntimeError("sizes of\ntensors"), "unexpected RuntimeError: sizes of tensors"),
    ],
)
def test_a_skill_that_cannot_be_compiled(
    error: Exception, reason: str, root: Path, run: Run, compiler: FakeCompiler
) -> None:
    for name in ("aaa", "odd", "zzz"):
        write_skill(root, name)
    compiler.failing["odd"] = error
    done = run("build")
    assert done.code == 1
    assert sum(line.startswith("failed odd: ") for line in done.err.splitlines()) == 1
    assert reason in done.err
    assert "Traceback" not in done.err
    assert list(locked(root).skills) == ["aaa", "zzz"]


def test_without_a_compiler(root: Path, home: Path, run: Run) -> None:
    write_skill(root, "testing")
    (home / "bases" / "tiny" / "compiler.json").unlink()
    done = run("build")
    assert done.code == 2
    assert done.err.startswith("skillc: error: base 'tiny' has no compiler")
    assert not (root / "skillc.lock").exists()


def test_a_compiler_that_does_not_load(root: Path, run: Run) -> None:
    write_skill(root, "testing")
    done = run("build")
    assert done.code == 2
    assert "compiler family 'fake' is not known" in done.err
    assert not (root / "skillc.lock").exists()


def test_an_unknown_base(root: Path, run: Run) -> None:
    write_skill(root, "testing")
    (root / "skillc.toml").write_text('base = "giant"\n', "utf-8")
    done = run("build")
    assert done.code == 2
    assert "no base called 'giant'" in done.err


def test_a_damaged_entry_is_built_again(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    run("build")
    key = locked(root).skills["testing"].key
    gguf = root / ".skillc" / "store" / key / "adapter.gguf"
    gguf.write_bytes(gguf.read_bytes()[:-1])
    assert build_json(run)["built"] == 1
    Store(root / ".skillc" / "store").open(key)
    flipped = bytearray(gguf.read_bytes())
    flipped[-1] ^= 1
    gguf.write_bytes(flipped)
    (root / "skillc.lock").unlink()
    assert build_json(run)["built"] == 1
    Store(root / ".skillc" / "store").open(key)


def test_a_lock_with_a_conflict_is_refused(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    (root / "skillc.lock").write_text("<<<<<<< ours\n", "utf-8")
    done = run("build")
    assert done.code == 2
    assert "merge conflict" in done.err

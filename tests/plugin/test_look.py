"""`skillc list`, `show` and `doctor`: what they say is what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.plugin.project import BROKEN, SKILL, FakeCompiler, Run, write_base, write_skill

from skillc_compiler.skill import read_skill


def states(run: Run) -> dict[str, str]:
    record = json.loads(run("list", "--json").out)
    return {skill["name"]: skill["state"] for skill in record["skills"]}


def test_each_state(root: Path, home: Path, run: Run, compiler: FakeCompiler) -> None:
    for name in ("built", "changed", "missing", "gone"):
        write_skill(root, name)
    run("build")
    lock = json.loads((root / "skillc.lock").read_text("utf-8"))
    write_skill(root, "new")
    write_skill(root, "changed", SKILL.format(name="changed") + "- More.\n")
    write_skill(root, "unreadable", BROKEN.replace("broken", "unreadable"))
    shutil.rmtree(root / ".skills" / "gone")
    shutil.rmtree(root / ".skillc" / "store" / lock["skills"]["missing"]["key"])
    found = states(run)
    assert found == {name: name for name in found}
    assert set(found) == {"built", "changed", "missing", "gone", "new", "unreadable"}
    write_base(home, seed=1)
    assert states(run)["built"] == "changed"


def test_list_for_people(root: Path, run: Run, compiler: FakeCompiler) -> None:
    empty = run("list")
    assert (empty.code, empty.out) == (0, "")
    assert "no skills in .skills, " in empty.err
    write_skill(root, "testing")
    write_skill(root, "broken", BROKEN)
    run("build")
    other = root / ".claude" / "skills" / "testing" / "SKILL.md"
    other.parent.mkdir(parents=True)
    other.write_text(SKILL.format(name="testing"), "utf-8")
    done = run("ls")
    assert done.code == 1
    head, broken, testing = done.out.splitlines()
    assert head.split() == ["NAME", "STATE", "VERDICT", "WORDS", "ADAPTER", "SOURCE"]
    assert broken.split()[:3] == ["broken", "unreadable", "-"]
    assert testing.split()[:3] == ["testing", "built", "adapter"]
    assert "broken: .skills/broken/SKILL.md:" in done.err
    hides = "testing: .skills/testing/SKILL.md hides .claude/skills/testing/SKILL.md"
    assert hides in done.err


def test_show_source_is_the_text_that_is_compiled(root: Path, run: Run) -> None:
    path = write_skill(root, "testing")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\n\n")
    assert run("show", "testing", "--source").out == read_skill(path).text
    write_skill(root, "broken", BROKEN)
    done = run("show", "broken", "--source")
    assert (done.code, done.out) == (2, "")


def show(run: Run, name: str) -> dict[str, Any]:
    record = json.loads(run("show", name, "--json").out)
    assert isinstance(record, dict)
    return record


def test_show(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    before = show(run, "testing")
    assert (before["state"], before["manifest"]) == ("new", None)
    assert before["tokens"] > before["words"]
    run("build")
    after = show(run, "testing")
    assert (after["state"], after["verdict"]) == ("built", "adapter")
    assert after["manifest"]["skill_hash"] == after["hash"]
    assert after["manifest"]["rank"] == 4
    assert after["probe"] == {"recall": 0.9, "recall_none": 0.1}
    gguf = root / ".skillc" / "store" / after["key"] / "adapter.gguf"
    assert after["bytes"] == gguf.stat().st_size
    lines = run("show", "testing").out.splitlines()
    assert "description  How to run testing in this project." in lines
    assert "manifest     base_name = tiny" in lines


def test_show_an_unknown_skill(root: Path, run: Run) -> None:
    write_skill(root, "testing")
    done = run("show", "testnig")
    assert done.code == 2
    problem = "no skill 'testnig' in this project: did you mean 'testing'?"
    assert done.err == f"skillc: error: {problem}\n"


def checks(run: Run, code: int, *args: str | Path) -> dict[str, Any]:
    done = run(*args, "doctor", "--json")
    assert done.code == code, done.err
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def test_doctor(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    found = checks(run, 0)
    assert found["project"]["value"] == str(root)
    assert found["skills"]["value"] == "1 new"
    assert found["compiler"]["value"] == "fake-1"
    assert found["base"]["value"].startswith("tiny: qwen3, 2 layers, width 64, context 256, ")
    assert "llama-cpp-python" in found
    run("build")
    assert checks(run, 0)["skills"]["value"] == "1 built"
    assert "ok   base " in run("doctor").out


def test_doctor_without_a_base(root: Path, run: Run) -> None:
    (root / "skillc.toml").write_text('base = "giant"\n', "utf-8")
    found = checks(run, 1)
    assert found["base"]["value"] is None
    assert "no base called 'giant'" in found["base"]["reason"]
    assert "MISS base " in run("doctor").out


def test_doctor_without_a_compiler(root: Path, home: Path, run: Run) -> None:
    (home / "bases" / "tiny" / "compiler.json").unlink()
    found = checks(run, 0)
    assert found["compiler"]["value"] is None
    assert "has no compiler" in found["compiler"]["reason"]

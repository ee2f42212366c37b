"""Builds beside other builds: two at once, a team's store, a lock that must not change, a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.plugin.project import (
    BROKEN,
    FakeCompiler,
    Run,
    build_json,
    file_hashes,
    locked,
    write_compiler,
    write_skill,
)
from tests.plugin.watched import serves, text

from skillc.build import build
from skillc.plan import Plan, make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.target import find_target
from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import StoreError
from skillc_compiler.skill import Skill
from skillc_compiler.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [f"skill-{number}" for number in range(8)]


def build_at(root: Path, compiler: FakeCompiler, *names: str) -> dict[str, int]:
    """One build in this thread; how many skills had each outcome."""
    project = Project.at(root)
    target = find_target(project.settings.base)
    report = build(lambda: make_plan(project, target, names=names), lambda: compiler, Progress())
    return {status: report.count(status) for status in ("built", "unchanged", "failed")}


def test_two_builders_share_the_work(root: Path, compiler: FakeCompiler) -> None:
    """Both succeed, and no skill is compiled twice."""
    for name in NAMES:
        write_skill(root, name)
    compile_one = compiler.compile

    def slowly(skill: Skill, *, rank: int = 32) -> Adapter:
        time.sleep(0.02)
        return compile_one(skill, rank=rank)

    compiler.compile = slowly  # type: ignore[method-assign]
    counts: list[dict[str, int]] = []
    threads = [
        threading.Thread(target=lambda: counts.append(build_at(root, compiler))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(compiler.compiled) == NAMES
    assert sum(count["built"] for count in counts) == len(NAMES)
    assert all(count["built"] + count["unchanged"] == len(NAMES) for count in counts)
    assert all(serves(root, name, text(name)) for name in NAMES)
    store = root / ".skillc" / "store"
    assert sorted(path.name for path in store.iterdir()) == Store(store).keys()


def test_an_older_text_is_never_entered_after_a_newer_one(
    root: Path, compiler: FakeCompiler
) -> None:
    """A second build overtakes the first one while that compiles the older text."""
    write_skill(root, "testing")
    write_skill(root, "deploy")
    compile_one = compiler.compile

    def overtaken(skill: Skill, *, rank: int = 32) -> Adapter:
        adapter = compile_one(skill, rank=rank)
        if len(compiler.compiled) == 1:
            write_skill(root, "testing", text("testing", "Newer."))
            assert build_at(root, compiler, "testing")["built"] == 1
            assert serves(root, "testing", text("testing", "Newer."))
        return adapter

    compiler.compile = overtaken  # type: ignore[method-assign]
    assert build_at(root, compiler)["failed"] == 0
    assert serves(root, "testing", text("testing", "Newer."))
    assert serves(root, "deploy", text("deploy"))


def test_a_text_that_never_rests_is_left_to_the_next_build(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    compile_one = compiler.compile

    def rewritten(skill: Skill, *, rank: int = 32) -> Adapter:
        write_skill(root, "testing", text("testing", f"Edit {len(compiler.compiled)}."))
        return compile_one(skill, rank=rank)

    compiler.compile = rewritten  # type: ignore[method-assign]
    done = run("build")
    assert done.code == 1
    assert "testing" not in locked(root).skills
    compiler.compile = compile_one  # type: ignore[method-assign]
    assert build_json(run)["failed"] == 0


def test_what_was_pruned_meanwhile_is_built_again(root: Path, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    project = Project.at(root)
    target = find_target(project.settings.base)
    plans: list[Plan] = []

    class Pruning(Progress):
        def end(self) -> None:
            if len(plans) == 1:
                shutil.rmtree(project.store_path)

    def make() -> Plan:
        plans.append(make_plan(project, target))
        return plans[-1]

    report = build(make, lambda: compiler, Pruning())
    assert (len(plans), report.count("built")) == (2, 1)
    assert serves(root, "testing", text("testing"))


def test_locked_says_what_would_change(root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    first = run("build", "--locked")
    assert (first.code, "skillc.lock is out of date (there is none)" in first.err) == (1, True)
    run("build")
    before = (root / "skillc.lock").read_bytes()
    assert run("build", "--locked").code == 0
    write_skill(root, "testing", text("testing", "More."))
    write_skill(root, "release")
    shutil.rmtree(root / ".skills" / "deploy")
    for args in (["--locked"], ["--locked", "--dry-run"]):
        done = run("build", *args)
        assert done.code == 1
        assert "(release is new, testing changed, deploy is gone)" in done.err
        assert done.err.count("\n") == 1
    assert (root / "skillc.lock").read_bytes() == before
    run("build")
    write_skill(root, "testing", BROKEN.replace("broken", "testing"))
    assert "testing cannot be read" in run("build", "--locked").err


def test_locked_compiles_what_is_missing(root: Path, run: Run, compiler: FakeCompiler) -> None:
    """As on a fresh clone, where the store is empty; other measurements do not change the lock."""
    write_skill(root, "testing")
    run("build")
    before = (root / "skillc.lock").read_bytes()
    shutil.rmtree(root / ".skillc")
    compiler.probe = {"recall": 0.0, "recall_none": 0.5}
    assert build_json(run, "--locked")["built"] == 1
    assert (root / "skillc.lock").read_bytes() == before
    shutil.rmtree(root / ".skillc")
    assert build_json(run)["built"] == 1
    assert (root / "skillc.lock").read_bytes() == before
    assert build_json(run, "--force")["built"] == 1
    assert locked(root).skills["testing"].verdict == "text"


@pytest.fixture(params=["folder", "url"])
def team(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Path:
    """The folder of a shared store that the project uses."""
    folder = tmp_path / "team"
    if request.param == "url":
        pytest.importorskip("fsspec")
    where = f"file://{folder}" if request.param == "url" else "../team"
    (root / "skillc.toml").write_text(f'base = "tiny"\nrank = 4\nstore = "{where}"\n', "utf-8")
    return folder


def test_a_team_mate_fetches(team: Path, root: Path, run: Run, compiler: FakeCompiler) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    assert build_json(run)["built"] == 2
    mine = file_hashes(root / ".skillc" / "store")
    shutil.rmtree(root / ".skillc")
    compiler.compiled.clear()
    record = build_json(run, "--locked")
    assert (record["fetched"], record["built"], record["warnings"]) == (2, 0, [])
    assert compiler.compiled == []
    assert file_hashes(root / ".skillc" / "store") == mine
    write_skill(root, "testing", text("testing", "More."))
    done = run("build")
    assert done.out.startswith("1 built, 1 unchanged")
    assert len(list(team.glob("*/manifest.json"))) == 3


def test_a_damaged_or_foreign_shared_adapter_is_compiled_instead(
    team: Path, root: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    keys = {name: entry.key for name, entry in locked(root).skills.items()}
    gguf = team / keys["testing"] / "adapter.gguf"
    gguf.write_bytes(gguf.read_bytes()[:-1] + b"x")
    shutil.rmtree(team / keys["deploy"])
    (team / keys["deploy"]).mkdir()
    shutil.rmtree(root / ".skillc")
    record = build_json(run)
    assert (record["built"], record["fetched"]) == (2, 0)
    assert all(line.startswith("shared store: ") for line in record["warnings"])
    assert all(serves(root, name, text(name)) for name in keys)


def test_a_shared_store_that_cannot_be_written_costs_a_warning(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    (root / "file").write_text("")
    (root / "skillc.toml").write_text('base = "tiny"\nrank = 4\nstore = "file/x"\n', "utf-8")
    for name in ("testing", "deploy"):
        write_skill(root, name)
    record = build_json(run)
    assert record["built"] == 2
    assert len(record["warnings"]) == 1
    assert "a file is where a folder should be" in record["warnings"][0]


@pytest.mark.parametrize("number", [28, 30, 13])
def test_a_disk_that_takes_nothing_is_one_line(
    number: int, root: Path, run: Run, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC, EROFS, EACCES: nothing is lost, and the next build goes through."""
    write_skill(root, "testing")
    run("build")
    write_skill(root, "deploy")
    before = (root / "skillc.lock").read_bytes()
    fsync = os.fsync

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    done = run("build")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert (root / "skillc.lock").read_bytes() == before
    monkeypatch.setattr(os, "fsync", fsync)
    assert serves(root, "testing", text("testing"))
    assert build_json(run)["built"] == 1


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """The project's .skillc on a file system of 256 KiB; skips where none can be mounted."""
    state = root / ".skillc"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(state)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield state
    subprocess.run(["umount", str(state)], check=True)


def test_a_full_disk(small_disk: Path, root: Path, run: Run, compiler: FakeCompiler) -> None:
    """What fits is served, what does not is one line, and no adapter is torn."""
    write_skill(root, "testing")
    assert run("build").code == 0
    (small_disk / "ballast").write_bytes(bytes(200 << 10))
    for name in NAMES:
        write_skill(root, name)
    done = run("build")
    assert done.code == 2
    assert "no space left on the disk" in done.err
    assert serves(root, "testing", text("testing"))
    store = Store(small_disk / "store")
    keys = store.keys()
    assert [store.open(key).key for key in keys] == keys
    (small_disk / "ballast").unlink()
    assert run("build").code == 0
    assert all(serves(root, name, text(name)) for name in NAMES)


def test_nothing_to_do_needs_no_writing(small_disk: Path, root: Path, run: Run,
                                        compiler: FakeCompiler) -> None:  # fmt: skip
    write_skill(root, "testing")
    assert run("build").code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run("build").code == 0
    write_skill(root, "deploy")
    done = run("build")
    assert done.code == 2
    assert "read-only" in done.err
    assert serves(root, "testing", text("testing"))


def test_a_clock_that_goes_back(root: Path, run: Run, compiler: FakeCompiler) -> None:
    """Files from the future are read again every time, never believed."""
    path = write_skill(root, "testing")
    future = time.time() + 86400
    os.utime(path, (future, future))
    run("build")
    before = path.stat()
    path.write_text(text("testing").replace("--fast", "--slow"), "utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert build_json(run)["built"] == 1


def test_a_new_base_or_compiler_is_seen_by_locked(
    root: Path, home: Path, run: Run, compiler: FakeCompiler
) -> None:
    write_skill(root, "testing")
    run("build")
    write_compiler(home / "bases" / "tiny", "fake-2")
    assert "it is for another base or compiler" in run("build", "--locked").err


@pytest.mark.slow
def test_kills_leave_nothing_torn_or_stale(home: Path) -> None:
    """The benchmark asks 200 times."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "crash.py"), "--kills", "10"]
    options = ["--base", "tiny", "--json"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, text=True)
    figures = json.loads(done.stdout)["figures"]
    assert figures["kills"] == 10
    assert (figures["torn"], figures["stale"], figures["unrepaired"]) == (0, 0, 0)


def test_an_interrupted_build_keeps_what_it_made(
    root: Path, run: Run, compiler: FakeCompiler
) -> None:
    for name in NAMES:
        write_skill(root, name)
    compile_one = compiler.compile

    def interrupt(skill: Skill, *, rank: int = 32) -> Adapter:
        if len(compiler.compiled) == 4:
            signal.raise_signal(signal.SIGINT)
        return compile_one(skill, rank=rank)

    compiler.compile = interrupt  # type: ignore[method-assign]
    assert run("build").code == 130
    with pytest.raises(StoreError):
        locked(root)
    compiler.compile = compile_one  # type: ignore[method-assign]
    assert build_json(run)["built"] == len(NAMES) - 4
    assert sorted(compiler.compiled) == NAMES

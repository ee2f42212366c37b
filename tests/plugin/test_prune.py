"""`skillc prune`: what no skill uses goes, the oldest first; what is used never."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.plugin.project import SKILL, FakeCompiler, Run, build_json, locked, write_skill

from skillc_compiler.store import Store


@pytest.fixture
def store(root: Path, run: Run, compiler: FakeCompiler) -> Store:
    """A store with the adapters of four texts of `testing`, one a day, the last in use."""
    store = Store(root / ".skillc" / "store")
    for day in range(4):
        write_skill(root, "testing", SKILL.format(name="testing") + f"- Day {day}.\n")
        run("build")
        folder = store.folder(locked(root).skills["testing"].key)
        os.utime(folder, (day * 86400, day * 86400))
    return store


def test_all_unused_go(store: Store, root: Path, run: Run) -> None:
    used = locked(root).skills["testing"].key
    before = store.total_size()
    preview = json.loads(run("prune", "--dry-run", "--json").out)
    assert len(store.keys()) == 4
    done = json.loads(run("prune", "--json").out)
    assert store.keys() == [used]
    assert done["freed_bytes"] == preview["freed_bytes"] == before - store.total_size() > 0
    assert (done["kept"], done["kept_bytes"]) == (1, store.total_size())
    assert build_json(run)["unchanged"] == 1
    assert run("prune").out.startswith("freed 0.0 MB (0 adapters); 1 left, ")


def test_the_oldest_go_first_down_to_the_size(
    store: Store, root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_day = sorted(store.keys(), key=lambda key: store.folder(key).stat().st_mtime)
    monkeypatch.setattr("skillc.verbs.prune_verb.MEGABYTE", store.size(by_day[0]) + 10)
    assert run("prune", "--size", "1").code == 0
    assert sorted(store.keys()) == sorted(by_day[2:])
    (root / "skillc.toml").write_text('base = "tiny"\nrank = 4\nstore_mb = 1\n', "utf-8")
    assert run("prune").code == 0
    assert sorted(store.keys()) == sorted(by_day[2:])
    assert run("prune", "--size", "0").code == 0
    assert store.keys() == by_day[3:]


def test_orphans_go_too(store: Store, run: Run) -> None:
    orphan = store.root / ".tmp-0123-4-5"
    orphan.mkdir()
    (orphan / "adapter.gguf").write_bytes(bytes(1000))
    os.utime(orphan, (0, 0))
    assert json.loads(run("prune", "--json").out)["freed_bytes"] > 1000
    assert not orphan.exists()


def test_without_a_store(root: Path, run: Run) -> None:
    done = run("prune")
    assert (done.code, done.out) == (0, "freed 0.0 MB (0 adapters); 0 left, 0.0 MB\n")
    assert not (root / ".skillc").exists()


def test_a_deleted_skill_is_freed_by_build_and_prune(store: Store, root: Path, run: Run) -> None:
    shutil.rmtree(root / ".skills" / "testing")
    run("build")
    assert len(store.keys()) == 4
    run("prune")
    assert store.keys() == []

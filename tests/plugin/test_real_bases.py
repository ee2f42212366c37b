"""Bases of other architectures through the tool: added, calibrated, built, with verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.compiler import stand_in
from tests.plugin.project import Run, locked, write_skill

from skillc.job import verdict_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3", "mistral"])
def test_calibrate_and_build_on_any_base(
    kind: str, root: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skillc_compiler.families.calibrate.GAINS", (16.0,))
    monkeypatch.setattr("skillc_compiler.families.calibrate.MOST_SITES", 3)
    folder = stand_in.write_folder(tmp_path / kind, kind)
    added = run("base", "add", kind, "--hf", folder, "--write-as", "f32")
    assert added.code == 0, added.err
    found = run("compiler", "calibrate", "--base", kind, "--skills", 2, "--flips", 1, "--json")
    record = json.loads(found.out)
    assert (found.code, record["helps"]) == (0, True), found.err
    write_skill(root, "testing")
    built = run("build", "--base", kind, "--json")
    assert (built.code, json.loads(built.out)["built"]) == (0, 1), built.err
    lock = locked(root)
    assert (lock.base.name, lock.compiler.id) == (kind, "writer-untrained")
    entry = lock.skills["testing"]
    assert entry.probe.keys() == {"recall", "recall_none"}
    assert entry.verdict == verdict_of(entry.probe)
    # The project's own base is another one, and its lock says so.
    other = run("build", "--locked")
    assert (other.code, "another base or compiler" in other.err) == (1, True)

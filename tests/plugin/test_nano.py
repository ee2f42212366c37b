"""The embedded base and its compiler at work on the example project, end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skillc.demo import EXAMPLE
from skillc_compiler.lock import Lock

pytestmark = pytest.mark.slow


@pytest.fixture
def orchard(tmp_path: Path) -> Path:
    folder = tmp_path / "orchard"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".skillc", "skillc.lock"))
    return folder


def skillc(folder: Path, *args: str) -> dict[str, Any]:
    """Run `skillc ARGS --json` as a process of its own; its object, and its exit code as "code"."""
    command = [sys.executable, "-m", "skillc", "-C", str(folder), *args, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    record = json.loads(done.stdout)
    assert isinstance(record, dict)
    return record | {"code": done.returncode}


def test_build_is_reproducible_and_then_idle(orchard: Path) -> None:
    first = skillc(orchard, "build")
    assert (first["code"], first["built"], first["warnings"]) == (0, 6, [])
    lock = Lock.load(orchard / "skillc.lock")
    for name, entry in lock.skills.items():
        assert entry.verdict == "adapter", name
        assert entry.probe["recall"] > entry.probe["recall_none"], name
    assert skillc(orchard, "build")["unchanged"] == 6
    key = lock.skills["testing"].key
    gguf = orchard / ".skillc" / "store" / key / "adapter.gguf"
    before = gguf.read_bytes()
    assert skillc(orchard, "build", "testing", "--force")["built"] == 1
    assert gguf.read_bytes() == before


def test_demo_asks_in_every_arm_and_says_what_was_served(orchard: Path) -> None:
    """How many obey is measured on held-out skills (tests/e2e); twelve questions are too few."""
    report = skillc(orchard, "demo", "--project", str(orchard), "--all")
    arms = report["arms"]
    assert report["code"] == (0 if arms["adapter"]["obeyed"] else 1)
    assert arms["none"]["obeyed"] == 0
    assert arms["adapter"]["prompt_tokens_mean"] < arms["text"]["prompt_tokens_mean"] / 3
    served = {one["served_as"] for one in report["answers"] if one["arm"] == "adapter"}
    assert served == {"adapter"}

"""The OpenCode plugin: its own tests, and that every installation carries it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skillc import __version__, opencode

PLUGIN = Path(__file__).resolve().parents[2] / "plugin" / "opencode"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_its_own_tests() -> None:
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--test", "test/"], cwd=PLUGIN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]


def test_its_package() -> None:
    package = json.loads((PLUGIN / "package.json").read_text("utf-8"))
    assert package["version"] == __version__
    assert "dependencies" not in package
    shipped = {*package["files"], "package.json"} - {"README.md"}
    assert shipped == set(opencode.PLUGIN_FILES)
    assert all((PLUGIN / name).is_file() for name in package["files"])


def test_the_wheel_carries_its_files() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    settings = tomllib.loads((PLUGIN.parents[1] / "pyproject.toml").read_text("utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {
        f"plugin/opencode/{name}": f"skillc/opencode_plugin/{name}"
        for name in opencode.PLUGIN_FILES
    }
    assert opencode.plugin_source() == PLUGIN

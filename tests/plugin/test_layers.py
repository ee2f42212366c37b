"""Imports point one way, and torch stays where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORT_ALL = """\
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
found = sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:]))
assert not found, f"{sys.argv[1]} imports {found}"
"""


@pytest.mark.slow
def test_layers() -> None:
    """`lint-imports` holds skillc above skillc_runtime above skillc_compiler."""
    program = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", ["skillc", "skillc_runtime"])
def test_no_torch_at_import(package: str) -> None:
    """Importing every module of the tool and of the runtime leaves torch out."""
    heavy = ("torch", "transformers", "peft")
    command = [sys.executable, "-c", IMPORT_ALL, package, *heavy]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

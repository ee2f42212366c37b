"""docs/performance.md has a row for every figure that a benchmark of the engine promises."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_performance", ROOT / "docs" / "make_performance.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(name: str) -> set[str]:
    """The keys of a benchmark's TARGETS."""
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TARGETS":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{name}.py has no TARGETS")


def test_every_promised_figure_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    for name, keys in module.FILES.items():
        assert targets(name) == set(keys)
    monkeypatch.setattr(sys, "argv", ["make_performance.py", "--check"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert not end.value.code


def test_only_what_is_measured_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    result = {
        "figures": {"cold": 7.25},
        "targets": {"cold": [">=", 5.0], "warm": [">=", 1.0]},
        "machine": {"cpu": "one", "cores": 2, "memory_gib": 3.0},
    }
    monkeypatch.setattr(module, "measure", lambda name: result)
    first = module.table("", ["ttft"])
    assert "| `ttft.py` | `cold` | 7.25 | >= 5 | one, 2 cores, 3.0 GiB |" in first
    assert "| `ttft.py` | `warm` | not measured yet | >= 1 |" in first
    page = f"before\n{module.BEGIN}\n{first}{module.END}\nafter"
    assert module.table(page, []) == first

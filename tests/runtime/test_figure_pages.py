"""Pages of docs/ have a row for every figure that their benchmarks promise."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / "docs" / "make_figures.py")
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
    for benchmarks in module.PAGES.values():
        for name, keys in benchmarks.items():
            assert targets(name) <= set(keys)
    monkeypatch.setattr(sys, "argv", ["make_figures.py", "--check"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert not end.value.code


def test_only_what_is_measured_changes() -> None:
    module = load()
    result = {
        "figures": {"cold": 7.25},
        "targets": {"cold": [">=", 5.0], "warm": [">=", 1.0]},
        "machine": {"cpu": "one", "cores": 2, "memory_gib": 3.0},
    }
    first = module.table("performance", "", {"ttft": result})
    assert "| `ttft.py` | `cold` | 7.25 | >= 5 | one, 2 cores, 3.0 GiB |" in first
    assert "| `ttft.py` | `warm` | not measured yet | >= 1 |" in first
    page = f"before\n{module.BEGIN}\n{first}{module.END}\nafter"
    assert module.table("performance", page, {}) == first


def test_a_benchmark_that_prints_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = load()
    (tmp_path / "ttft.py").write_text("raise SystemExit(2)", "utf-8")
    monkeypatch.setattr(module, "BENCHMARKS", tmp_path)
    with pytest.raises(SystemExit, match=r"ttft\.py printed no figures and ended with 2"):
        module.measure("ttft")

"""docs/eval.md has a row for every target, and the script that writes it says what was found."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from skillc.evaluate.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "make_eval.py"
KEYS = [f"{suite}.{key}" for suite, targets in TARGETS.items() for key in targets]


def rows(page: str) -> dict[str, str]:
    """The rows between the marks, by figure."""
    inside = page.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    return {line.split("`")[1]: line for line in inside.splitlines() if line.startswith("| `")}


def test_every_target_has_its_row() -> None:
    assert list(rows((ROOT / "docs" / "eval.md").read_text("utf-8"))) == KEYS


def test_rows_say_what_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = runpy.run_path(str(SCRIPT))
    figures = {
        "commands.adapter_exact": 0.5, "commands.adapter_exact_low": 0.4,
        "commands.adapter_exact_high": 0.6, "commands.text_exact": 0.7, "unrelated.flips": 0.01,
        "seconds": 90.0,
    }  # fmt: skip
    result = {
        "figures": figures,
        "targets": {
            "commands.adapter_exact": [">=", 0.5],
            "unrelated.flips": ["<", 0.01],
            "real.cloze_recovery": [">=", 0.6],
        },
        "skipped": {"real.cloze_recovery": "no help"},
        "machine": {"cpu": "one", "cores": 2},
    }
    page, printed = tmp_path / "eval.md", tmp_path / "result.json"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter", "utf-8")
    printed.write_text("notes\n" + json.dumps(result) + "\n", "utf-8")
    monkeypatch.setitem(module["main"].__globals__, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["make_eval.py", str(printed)])
    module["main"]()
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("after") and "old" not in text
    assert "All together 2 minutes on 2 cores (one)." in text
    assert list(rows(text).values()) == [
        "| `commands.adapter_exact` | 0.500 (0.400 to 0.600) | >= 0.5 | yes | 0.700 |",
        "| `unrelated.flips` | 0.010 | < 0.01 | no |  |",
        "| `real.cloze_recovery` | none: no help | >= 0.6 | no | |",
    ]

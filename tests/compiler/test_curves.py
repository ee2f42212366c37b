"""Training curves: what a log says, in the order of training, drawn where it can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skillc_compiler.train.curves import draw_curves, read_log

ROWS = [
    {"stage": "text", "step": 20, "text_loss": 2.0, "text_entry": 0.1, "text_later": 0.3},
    {"stage": "text", "step": 40, "text_loss": 1.5, "text_entry": 0.2, "text_later": 0.5},
    {"stage": "copy", "step": 20, "text_loss": 5.0, "text_entry": 0.0, "text_later": 0.1},
    # The run was started again from an earlier checkpoint.
    {"stage": "text", "step": 40, "text_loss": 1.4, "text_entry": 0.3, "val_text_entry": 0.25},
]


def write(folder: Path) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_stages_follow_each_other_and_a_repeated_step_counts_once(tmp_path: Path) -> None:
    rows = read_log(write(tmp_path))
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("copy", 20), ("text", 20), ("text", 40),
    ]  # fmt: skip
    assert rows[-1]["text_loss"] == 1.4


def test_curves_are_drawn_beside_the_log(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves(tmp_path) is None
    write(tmp_path)
    drawn = draw_curves(tmp_path)
    assert drawn == tmp_path / "curves.png"
    assert drawn.read_bytes().startswith(b"\x89PNG") and drawn.stat().st_size > 10_000

"""The curves of a run: losses and accuracies of `log.jsonl` as `curves.png` beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

_PANELS = (
    ("loss", ("text_loss", "adapter_loss")),
    ("first and other choosing tokens right", ("text_entry", "adapter_entry")),
    ("later tokens right", ("text_later", "adapter_later")),
)
_STAGES = ("copy", "drill", "lookup", "text", "joint")
_COLOURS = {"text": "tab:blue", "adapter": "tab:orange"}


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log in the order of training; a step that was done twice counts as done last."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    last = {(row["stage"], row["step"]): row for row in rows if row.get("stage") in _STAGES}
    return sorted(last.values(), key=lambda row: (_STAGES.index(row["stage"]), row["step"]))


def draw_curves(out: Path) -> Path | None:
    """Draw `out`/log.jsonl; None where matplotlib is missing or nothing is logged yet."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    log = out / "log.jsonl"
    rows = read_log(log) if log.is_file() else []
    if not rows:
        return None
    places, borders = _places(rows)
    figure, axes = plt.subplots(len(_PANELS), 1, figsize=(9, 9), sharex=True)
    for axis, (title, keys) in zip(axes, _PANELS, strict=True):
        for key in keys:
            arm = key.split("_")[0]
            _line(axis, places, rows, key, color=_COLOURS[arm], label=f"{arm}, training")
            _line(axis, places, rows, f"val_{key}", color=_COLOURS[arm], marker="o", linestyle=":",
                  label=f"{arm}, wording not trained on")  # fmt: skip
        for stage, (begin, end) in borders.items():
            axis.axvspan(begin, end, alpha=0.06, color="k" if stage == "text" else "w")
            axis.text((begin + end) / 2, 1.01, stage, transform=axis.get_xaxis_transform(),
                      ha="center", fontsize=8)  # fmt: skip
        axis.set_ylabel(title, fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].legend(fontsize=7, loc="best")
    axes[-1].set_xlabel("steps")
    figure.tight_layout()
    target = out / "curves.png"
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _places(rows: Rows) -> tuple[list[int], dict[str, tuple[int, int]]]:
    """Steps counted over all stages, and where each stage begins and ends."""
    start = 0
    places: list[int] = []
    borders: dict[str, tuple[int, int]] = {}
    for stage in _STAGES:
        steps = [row["step"] for row in rows if row["stage"] == stage]
        if steps:
            places += [start + step for step in steps]
            borders[stage] = (start, start + steps[-1])
            start += steps[-1]
    return places, borders


def _line(axis: Any, places: Sequence[int], rows: Rows, key: str, **style: Any) -> None:
    found = [(x, row[key]) for x, row in zip(places, rows, strict=True) if row.get(key)]
    if found:
        axis.plot(*zip(*found, strict=True), linewidth=1.2, markersize=4, **style)

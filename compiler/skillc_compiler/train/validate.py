"""Validation in training: token accuracies on wording that was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from skillc_compiler.train.feed import Feed, Step, make_step
from skillc_compiler.train.step import Score, joint_step, score
from skillc_compiler.train.trainer import Run

STEPS = 4
SEED = 777


def validation(feed: Feed) -> Callable[[Run], dict[str, float]]:
    """A function of a run: `val_<arm>_entry` (answers' first tokens) and `val_<arm>_later`."""
    data = replace(feed.data, drill=0.0, match=0)
    held = replace(feed, texts=(), seed=SEED, split="val", stage="text", drills=0, data=data)

    def evaluate(run: Run) -> dict[str, float]:
        totals: dict[str, list[int]] = {}
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for number in range(STEPS):
                for arm, result in _arms(run, make_step(held, number, 1.0)).items():
                    counts = (
                        result.entry_right, result.entry_all,
                        result.later_right, result.later_all,
                    )  # fmt: skip
                    before = totals.get(arm, [0] * len(counts))
                    totals[arm] = [a + b for a, b in zip(before, counts, strict=True)]
        found = {}
        for arm, (entry, entries, later, laters) in totals.items():
            found[f"val_{arm}_entry"] = entry / max(entries, 1)
            found[f"val_{arm}_later"] = later / max(laters, 1)
        return found

    return evaluate


def _arms(run: Run, step: Step) -> dict[str, Score]:
    rows = step.batch.read
    if run.writer is None:
        trace = run.model(rows.tokens, rows.positions, rows.mask())
        return {"text": score(run.model, trace.hidden, rows)}
    outcome = joint_step(run.model, run.writer, step.batch, step.order, 0.0)
    return {"text": outcome.text, "adapter": outcome.adapter}

"""Validation in training: token accuracies on wording that was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from skillc_compiler.train import ops
from skillc_compiler.train.feed import Feed, Step, make_step
from skillc_compiler.train.match import compare
from skillc_compiler.train.recipe import Recipe
from skillc_compiler.train.step import Score, joint_step, score
from skillc_compiler.train.trainer import Run

STEPS = 4
MATCHED = 24
SEED = 777


def validation(feed: Feed, recipe: Recipe) -> Callable[[Run], dict[str, float]]:
    """A function of a run: `val_<arm>_entry` (answers' first tokens) and `val_<arm>_later`.

    Where lines are told apart, also `val_match` and `val_match_writes`: of the lines of
    `MATCHED` documents, how often each head or site finds the right one, the mean of all.
    """
    data = replace(feed.data, drill=0.0, match=MATCHED if feed.data.match else 0)
    held = replace(feed, texts=(), seed=SEED, split="val", stage="text", drills=0, data=data)

    def evaluate(run: Run) -> dict[str, float]:
        totals: dict[str, list[int]] = {}
        found: dict[str, float] = {}
        with torch.no_grad(), ops.autocast(run.device):
            for number in range(STEPS):
                step = make_step(held, number, 1.0).to(run.device)
                for name, share in _matched(run, step, recipe).items():
                    found[name] = found.get(name, 0.0) + share / STEPS
                for arm, result in _arms(run, step).items():
                    counts = (
                        result.entry_right, result.entry_all,
                        result.later_right, result.later_all,
                    )  # fmt: skip
                    before = totals.get(arm, [0] * len(counts))
                    totals[arm] = [a + b for a, b in zip(before, counts, strict=True)]
        for arm, (entry, entries, later, laters) in totals.items():
            found[f"val_{arm}_entry"] = entry / max(entries, 1)
            found[f"val_{arm}_later"] = later / max(laters, 1)
        return found

    return evaluate


def _matched(run: Run, step: Step, recipe: Recipe) -> dict[str, float]:
    if step.matches is None:
        return {}
    found = compare(run.model, run.writer, step.matches, recipe.matchers)
    return {f"val_{name}": float(each.right.mean()) for name, each in found.items()}


def _arms(run: Run, step: Step) -> dict[str, Score]:
    rows = step.batch.read
    if run.writer is None:
        trace = run.model(rows.tokens, rows.positions, rows.mask())
        return {"text": score(run.model, trace.hidden, rows)}
    outcome = joint_step(run.model, run.writer, step.batch, step.order, 0.0)
    return {"text": outcome.text, "adapter": outcome.adapter}

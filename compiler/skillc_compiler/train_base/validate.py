"""Validation in training: answer tokens right on skills worded otherwise, and what stays."""

from __future__ import annotations

import torch

from skillc_compiler.families.bound import cut
from skillc_compiler.families.host import Factors
from skillc_compiler.families.interface import DEFAULT_RANK
from skillc_compiler.train_base.lessons import Lessons, Row
from skillc_compiler.train_base.loss import logits_of, wanted
from skillc_compiler.train_base.trainable import Trainable


@torch.no_grad()
def validate(
    student: Trainable, lessons: Lessons, count: int, rank: int = DEFAULT_RANK
) -> dict[str, float]:
    """Shares of answer tokens right by arm, and of choices on unrelated prompts that changed.

    `val_adapter` is of the adapter as it would be served, cut to `rank`; `val_none` of the base
    alone, `val_text` of the base with the text in its prompt.
    """
    hits: dict[str, list[torch.Tensor]] = {}
    for place in range(count):
        lesson = lessons.make(0, place)
        made = student.factors(lesson.text)
        factors = cut({path: (a.cpu(), b.cpu()) for path, (a, b) in made.items()}, rank)
        quiet = [Row(ids, 1) for ids in lesson.quiet]
        answers = wanted(lesson.asked)
        arms: dict[str, tuple[list[Row], Factors]] = {
            "val_none": (lesson.asked, {}),
            "val_text": (lesson.taught, {}),
            "val_adapter": (lesson.asked, factors),
        }
        for name, (rows, attached) in arms.items():
            hits.setdefault(name, []).append(_guesses(student, rows, attached) == answers)
        changed = _guesses(student, quiet, factors) != _guesses(student, quiet, {})
        hits.setdefault("val_flips", []).append(changed)
    found = {name: torch.cat(parts).float() for name, parts in hits.items()}
    return {name: round(float(each.mean()), 4) for name, each in found.items() if len(each)}


def _guesses(student: Trainable, rows: list[Row], attached: Factors) -> torch.Tensor:
    with student.host.attached(attached):
        return logits_of(student.host, rows).argmax(-1).cpu()

"""Figures and tables from marks: by arm, by question kind, with bootstrap intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from skillc.evaluate.cases import FACT_KINDS
from skillc.evaluate.scoring import Mark

T = TypeVar("T")
_RESAMPLES = 400


def figures(marks: Sequence[Mark], arms: Sequence[str]) -> dict[str, float]:
    """`<arm>_exact`, `_entry`, `_recall`, `_token`, `_choice` over facts, `<arm>_<kind>` by kind.

    exact: share of answers that match. entry: share whose literal's first token is predicted.
    recall: share of the literal's later tokens predicted, given the ones before. token: both
    together. choice: share of answers that begin like the expected literal rather than another.
    `<arm>_outside` is the share of uncovered questions that the arm declines.
    """
    found: dict[str, float] = {}
    for arm in arms:
        own = [mark for mark in marks if mark.arm == arm]
        facts = [mark for mark in own if mark.kind in FACT_KINDS]
        found |= _measures(arm, facts)
        for kind in (*FACT_KINDS, "outside"):
            of_kind = [mark for mark in own if mark.kind == kind]
            if of_kind:
                found[f"{arm}_{kind}"] = _share(of_kind, lambda mark: mark.right)
    outside = [mark for mark in marks if mark.kind == "outside" and mark.arm == "adapter"]
    if outside:
        found["outside_leak"] = _share(outside, lambda mark: mark.leak)
    first = [mark for mark in marks if mark.arm == arms[0]]
    for kind in (*FACT_KINDS, "outside"):
        if any(mark.kind == kind for mark in first):
            found[f"questions_{kind}"] = sum(mark.kind == kind for mark in first)
    found["questions"] = sum(mark.kind in FACT_KINDS for mark in first)
    found["skills"] = len({mark.skill for mark in marks})
    return {key: round(value, 4) for key, value in found.items()}


def _measures(arm: str, facts: Sequence[Mark]) -> dict[str, float]:
    scored = [mark for mark in facts if mark.scored]
    later = sum(mark.later_right for mark in scored)
    later_all = sum(mark.later_all for mark in scored)
    entries = sum(mark.entry for mark in scored)
    return {
        **share(f"{arm}_exact", facts),
        f"{arm}_entry": entries / max(len(scored), 1),
        f"{arm}_recall": later / max(later_all, 1),
        f"{arm}_token": (entries + later) / max(len(scored) + later_all, 1),
        f"{arm}_choice": _share(scored, lambda mark: mark.chosen),
    }


def share(key: str, marks: Sequence[Mark]) -> dict[str, float]:
    """The share that is right, with its 95% interval: KEY, KEY_low, KEY_high."""
    low, high = interval(marks)
    return {key: _share(marks, lambda mark: mark.right), f"{key}_low": low, f"{key}_high": high}


def _share(marks: Sequence[Mark], good: Callable[[Mark], bool]) -> float:
    return sum(map(good, marks)) / max(len(marks), 1)


def interval(marks: Sequence[Mark], seed: int = 0) -> tuple[float, float]:
    """The 95% bootstrap interval of the share that is right, resampling whole skills."""
    by_skill: dict[str, list[bool]] = {}
    for mark in marks:
        by_skill.setdefault(mark.skill, []).append(mark.right)
    return bootstrap(list(by_skill.values()), _mean, seed)


def bootstrap(
    groups: Sequence[T], statistic: Callable[[Sequence[T]], float], seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of a statistic over independent groups, by resampling them (Efron 1979)."""
    if not groups:
        return 0.0, 0.0
    rng = random.Random(seed)
    found = sorted(statistic(rng.choices(groups, k=len(groups))) for _ in range(_RESAMPLES))
    return found[int(0.025 * _RESAMPLES)], found[int(0.975 * _RESAMPLES)]


def _mean(groups: Iterable[Sequence[bool]]) -> float:
    flat = [right for group in groups for right in group]
    return sum(flat) / len(flat)


def table(found: dict[str, float], arms: Sequence[str]) -> str:
    """A Markdown table: one row an arm; the head of a kind's column says how many questions."""
    kinds = [k for k in (*FACT_KINDS, "outside") if f"{arms[0]}_{k}" in found]
    counted = [f"{kind} ({found[f'questions_{kind}']:.0f})" for kind in kinds]
    head = [f"arm ({found['questions']:.0f} questions, {found['skills']:.0f} skills)", "exact"]
    rows = []
    for arm in arms:
        keys = ("entry", "recall", "token", "choice", *kinds)
        cells = [arm, f"{found[f'{arm}_exact']:.3f}", span(found, f"{arm}_exact")]
        rows.append([*cells, *(f"{found[f'{arm}_{key}']:.3f}" for key in keys)])
    return markdown([*head, "95%", "entry", "recall", "token", "choice", *counted], rows)


def share_table(found: dict[str, float], keys: Sequence[str], head: Sequence[str]) -> str:
    """A Markdown table with one row a figure: its share and interval."""
    rows = [[key, f"{found[key]:.3f}", span(found, key)] for key in keys]
    return markdown(head, rows)


def span(found: dict[str, float], key: str) -> str:
    """A figure's interval as text."""
    return f"{found[f'{key}_low']:.3f}-{found[f'{key}_high']:.3f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])

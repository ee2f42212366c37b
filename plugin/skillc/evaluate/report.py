"""Figures and tables from marks: by arm, by question kind, with bootstrap intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from skillc.evaluate.cases import FACT_KINDS
from skillc.evaluate.scoring import Mark

_RESAMPLES = 400


def figures(marks: Sequence[Mark], arms: Sequence[str]) -> dict[str, float]:
    """`<arm>_exact`, `_entry`, `_recall`, `_token` over fact questions, `<arm>_<kind>` by kind.

    exact: share of answers that match. entry: share whose literal's first token is predicted.
    recall: share of the literal's later tokens predicted, given the ones before. token: both
    together. `<arm>_outside` is the share of uncovered questions that the arm declines.
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
    found["questions"] = len([m for m in marks if m.arm == arms[0] and m.kind in FACT_KINDS])
    found["skills"] = len({mark.skill for mark in marks})
    return {key: round(value, 4) for key, value in found.items()}


def _measures(arm: str, facts: Sequence[Mark]) -> dict[str, float]:
    later = sum(mark.later_right for mark in facts)
    later_all = sum(mark.later_all for mark in facts)
    entries = sum(mark.entry for mark in facts)
    low, high = interval(facts)
    return {
        f"{arm}_exact": _share(facts, lambda mark: mark.right),
        f"{arm}_exact_low": low,
        f"{arm}_exact_high": high,
        f"{arm}_entry": _share(facts, lambda mark: mark.entry),
        f"{arm}_recall": later / max(later_all, 1),
        f"{arm}_token": (entries + later) / max(len(facts) + later_all, 1),
    }


def _share(marks: Sequence[Mark], good: Callable[[Mark], bool]) -> float:
    return sum(map(good, marks)) / max(len(marks), 1)


def interval(marks: Sequence[Mark], seed: int = 0) -> tuple[float, float]:
    """The 95% bootstrap interval of the share that is right, resampling whole skills."""
    by_skill: dict[str, list[bool]] = {}
    for mark in marks:
        by_skill.setdefault(mark.skill, []).append(mark.right)
    groups = list(by_skill.values())
    if not groups:
        return 0.0, 0.0
    rng = random.Random(seed)
    means = sorted(_mean(rng.choices(groups, k=len(groups))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]


def _mean(groups: Iterable[Sequence[bool]]) -> float:
    flat = [right for group in groups for right in group]
    return sum(flat) / len(flat)


def table(found: dict[str, float], arms: Sequence[str]) -> str:
    """A Markdown table: one row an arm."""
    kinds = [k for k in (*FACT_KINDS, "outside") if f"{arms[0]}_{k}" in found]
    head = ["arm", "exact", "95%", "entry", "recall", "token", *kinds]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm in arms:
        span = f"{found[f'{arm}_exact_low']:.3f}-{found[f'{arm}_exact_high']:.3f}"
        cells = [arm, f"{found[f'{arm}_exact']:.3f}", span]
        cells += [f"{found[f'{arm}_{key}']:.3f}" for key in ("entry", "recall", "token")]
        cells += [f"{found[f'{arm}_{kind}']:.3f}" for kind in kinds]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)

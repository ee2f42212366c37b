"""The suite `needle`: a number, eight numbers or an arbitrary string in a text of noise."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from skillc.evaluate.arms import Arms
from skillc.evaluate.bench import Bench, Curve, Result
from skillc.evaluate.cases import Case
from skillc.evaluate.needle_text import (
    BINS,
    DEPTHS,
    STRINGS,
    many_case,
    number_case,
    string_case,
)
from skillc.evaluate.report import markdown, share
from skillc.evaluate.scoring import Mark

ARMS = ("none", "text", "adapter", "wrong")
NEEDLES = 8
_SIZE = 200  # tokens of the texts with eight needles or a string


def needle(bench: Bench) -> Result:
    """Exact match by length of the text, with eight needles, and by length of the string."""
    number = bench.settings.size(24, 2)
    skipped = {}
    groups: dict[str, list[Case]] = {}
    for name, limit, cases in _groups(bench, number):
        if limit > bench.harness.room:
            skipped[name] = f"{limit} tokens do not fit in the base's context"
        else:
            groups[name] = cases
    everything = [_named(case, n) for n, case in enumerate(c for g in groups.values() for c in g)]
    adapters = bench.compile([case.skill for case in everything])
    arms = Arms(bench.harness, everything, adapters, bench.settings.rank, bench.note)
    marks = [mark for arm in ARMS for mark in arms.run(arm)]
    return _result(groups, marks, skipped)


def _groups(bench: Bench, number: int) -> Iterator[tuple[str, int, list[Case]]]:
    """Names of groups, tokens that a prompt of theirs may have, and their cases."""
    engine = bench.harness.engine

    def count(text: str) -> int:
        return len(engine.tokenize(text))

    rng = random.Random(f"needle-{bench.settings.seed}")
    for low, high in BINS:
        cases = [number_case(rng, low, high, n % DEPTHS, count) for n in range(number)]
        yield f"{low}_{high}", high + 64, cases
    many = [many_case(rng, _SIZE, NEEDLES, count) for _ in range(max(1, number // 2))]
    yield f"needles_{NEEDLES}", 2 * _SIZE, many
    for length in STRINGS:
        cases = [string_case(rng, length, _SIZE, count) for _ in range(number)]
        yield f"string_{length}", 2 * _SIZE, cases


def _named(case: Case, number: int) -> Case:
    return replace(case, skill=replace(case.skill, name=f"needle-{number}"))


def _result(
    groups: dict[str, list[Case]], marks: Sequence[Mark], skipped: dict[str, str]
) -> Result:
    found: dict[str, float] = {}
    group_of: dict[str, str] = {}
    for name, cases in groups.items():
        for _ in cases:
            group_of[f"needle-{len(group_of)}"] = name
    for arm in ARMS:
        own = [mark for mark in marks if mark.arm == arm]
        found |= share(f"{arm}_exact", own)
        for name in groups:
            found |= share(f"{arm}_{name}", [m for m in own if group_of[m.skill] == name])
    found["questions"] = len(marks) // len(ARMS)
    found["skills"] = len(group_of)
    found = {key: round(value, 4) for key, value in found.items()}
    asked = {name: sum(len(case.asks) for case in cases) for name, cases in groups.items()}
    rows = [
        [name, str(asked[name]), *(f"{found[f'{arm}_{name}']:.3f}" for arm in ARMS)]
        for name in groups
    ]
    rows.append(["all", str(found["questions"]), *(f"{found[f'{arm}_exact']:.3f}" for arm in ARMS)])
    return Result(
        found, markdown(["text", "questions", *ARMS], rows), _curves(found, groups), tuple(marks),
        skipped,
    )  # fmt: skip


def _curves(found: dict[str, float], groups: dict[str, list[Case]]) -> tuple[Curve, ...]:
    lengths = [(f"{low}_{high}", float(high)) for low, high in BINS]
    strings = [(f"string_{length}", float(length)) for length in STRINGS]

    def lines(
        points: list[tuple[str, float]],
    ) -> dict[str, list[tuple[float, float, float, float]]]:
        return {
            arm: [
                (x, found[f"{arm}_{key}"], found[f"{arm}_{key}_low"], found[f"{arm}_{key}_high"])
                for key, x in points
                if key in groups
            ]
            for arm in ("text", "adapter", "wrong")
        }

    return (
        Curve("needle: one number", "tokens of the text, at most", lines(lengths)),
        Curve("needle: one string", "characters of the string", lines(strings)),
    )

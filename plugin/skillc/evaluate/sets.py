"""The suite `sets`: the questions of each skill while one, two or four skills are attached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skillc.evaluate.bench import Bench, Curve, Result
from skillc.evaluate.cases import Ask, Case
from skillc.evaluate.factors import summed
from skillc.evaluate.harness import Asked
from skillc.evaluate.report import markdown, share, span
from skillc.evaluate.scoring import Mark
from skillc_compiler.adapter import Adapter
from skillc_compiler.data.generate import Generator, Sample, Shape
from skillc_compiler.skill import parse_skill

SIZES = (1, 2, 4)
# stacked: as served, the ranks of all skills side by side; merged: their sum at one skill's rank.
FORMS = ("stacked", "merged", "text")
_SHAPE = Shape(facts=(3, 6), outside=0.0, chat=0.0)


def sets(bench: Bench) -> Result:
    """Exact match by size of the set, of skills that answer no question of one another."""
    settings = bench.settings
    groups = -(-settings.size(48, 8) // max(SIZES))
    cases = _cases(settings.split, groups, settings.seed)
    adapters = bench.compile([case.skill for case in cases])
    found: dict[str, float] = {}
    marks: list[Mark] = []
    for size in SIZES:
        for form in FORMS:
            if form == "merged" and size == 1:
                continue
            own: list[Mark] = []
            for start in range(0, len(cases), size):
                part = slice(start, start + size)
                own += _ask(bench, form, f"{form}_{size}", cases[part], adapters[part])
                bench.note(f"{form} {size}", start + size, len(cases))
            found |= share(f"{form}_{size}", own)
            marks += own
    for size in SIZES[1:]:
        found[f"sets_{size}_share"] = found[f"stacked_{size}"] / max(found["stacked_1"], 1e-9)
    found["skills"], found["questions"] = len(cases), sum(len(case.asks) for case in cases)
    found = {key: round(value, 4) for key, value in found.items()}
    return Result(found, _table(found), (_curve(found),), tuple(marks))


def _cases(split: str, groups: int, seed: int) -> list[Case]:
    """Skills in groups of the largest size, none of which states what another one states."""
    generator = Generator(split, seed, _SHAPE)
    cases: list[Case] = []
    for _ in range(groups):
        group: list[Sample] = []
        while len(group) < max(SIZES):
            sample = generator.sample()
            if all(_topics(sample).isdisjoint(_topics(other)) for other in group):
                group.append(sample)
        for sample in group:
            skill = parse_skill(sample.text.encode(), folder=sample.name)
            skill = replace(skill, name=f"{sample.name}-{len(cases)}")
            cases.append(Case(skill, tuple(Ask(question) for question in sample.questions)))
    return cases


def _topics(sample: Sample) -> set[str]:
    """What a skill's facts are about, without the qualifiers."""
    return {fact.id.partition("+")[0] for fact in sample.facts}


def _ask(
    bench: Bench, form: str, arm: str, cases: Sequence[Case], adapters: Sequence[Adapter]
) -> list[Mark]:
    harness = bench.harness
    system = "\n".join(case.skill.text for case in cases) if form == "text" else ""
    asked = [Asked(case, ask, system) for case in cases for ask in case.asks]
    if form == "stacked":
        return harness.ask(arm, asked, [harness.store(adapter) for adapter in adapters])
    if form == "merged":
        return harness.ask(arm, asked, [harness.store(summed(adapters, bench.settings.rank))])
    return harness.ask(arm, asked)


def _table(found: dict[str, float]) -> str:
    rows = []
    for size in SIZES:
        cells = [str(size)]
        for form in FORMS:
            key = f"{form}_{size}"
            cells += [f"{found[key]:.3f}", span(found, key)] if key in found else ["", ""]
        part = found.get(f"sets_{size}_share")
        rows.append([*cells, "" if part is None else f"{part:.3f}"])
    head = [f"skills at once ({found['questions']:.0f} questions)"]
    for form in FORMS:
        head += [form, "95%"]
    return markdown([*head, "stacked over one skill"], rows)


def _curve(found: dict[str, float]) -> Curve:
    lines = {
        form: [
            (float(size), found[key], found[f"{key}_low"], found[f"{key}_high"])
            for size in SIZES
            if (key := f"{form}_{size}") in found
        ]
        for form in FORMS
    }
    return Curve("sets of skills", "skills attached at once", lines)

"""The suite `robust`: the same skills and questions, the text written otherwise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from skillc.evaluate.arms import Arms
from skillc.evaluate.bench import Bench, Result
from skillc.evaluate.cases import Ask, Case
from skillc.evaluate.report import markdown, share, span
from skillc.evaluate.scoring import Mark
from skillc.evaluate.variants import VARIANTS, Source
from skillc_compiler.data.generate import Generator, Sample, Shape
from skillc_compiler.skill import parse_skill

ARMS = ("text", "adapter")
PLAIN = "plain"
_SHAPE = Shape(outside=0.0, chat=0.0)


def robust(bench: Bench) -> Result:
    """Exact match of every variant against the plain text, of the same skills."""
    settings = bench.settings
    groups = _groups(settings.split, settings.size(48, 5), settings.seed)
    found: dict[str, float] = {}
    marks: list[Mark] = []
    for name, cases in groups.items():
        adapters = bench.compile([case.skill for case in cases])
        arms = Arms(bench.harness, cases, adapters, settings.rank, bench.note)
        for arm in ARMS:
            own = [_labelled(mark, name) for mark in arms.run(arm)]
            found |= share(f"{arm}_{name}", own)
            marks += own
    for arm in ARMS:
        for name in VARIANTS:
            found[f"{arm}_{name}_drop"] = found[f"{arm}_{PLAIN}"] - found[f"{arm}_{name}"]
    found["skills"] = len(groups[PLAIN])
    found["questions"] = sum(len(case.asks) for case in groups[PLAIN])
    found = {key: round(value, 4) for key, value in found.items()}
    return Result(found, _table(found, list(groups)), (), tuple(marks))


def _groups(split: str, count: int, seed: int) -> dict[str, list[Case]]:
    """Every variant of the same skills; only skills that every variant changes are taken."""
    generator = Generator(split, seed, _SHAPE)
    groups: dict[str, list[Case]] = {name: [] for name in (PLAIN, *VARIANTS)}
    while len(groups[PLAIN]) < count:
        source = Source(generator.sample(), split)
        rng = random.Random(f"{seed}-{source.sample.name}")
        texts = {name: make(source, rng) for name, make in VARIANTS.items()}
        if any(text == source.sample.text for text in texts.values()):
            continue
        for name, text in {PLAIN: source.sample.text, **texts}.items():
            groups[name].append(_case(source.sample, text))
    return groups


def _case(sample: Sample, text: str) -> Case:
    skill = parse_skill(text.encode(), folder=sample.name)
    return Case(skill, tuple(Ask(question) for question in sample.questions))


def _labelled(mark: Mark, variant: str) -> Mark:
    return replace(mark, arm=f"{mark.arm}_{variant}")


def _table(found: dict[str, float], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        cells = [name]
        for arm in ARMS:
            drop = found.get(f"{arm}_{name}_drop")
            cells += [f"{found[f'{arm}_{name}']:.3f}", span(found, f"{arm}_{name}")]
            cells.append("" if drop is None else f"{100 * drop:+.1f}")
        rows.append(cells)
    head = [f"variant ({found['questions']:.0f} questions)"]
    for arm in ARMS:
        head += [arm, "95%", "points lost"]
    return markdown(head, rows)

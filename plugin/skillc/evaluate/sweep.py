"""The suite `sweep`: exact match by rank, scale, length of the text, number of facts, activation.

On the validation split: what is chosen here is then reported on the test split.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from skillc.evaluate.bench import Bench, Curve, Result
from skillc.evaluate.cases import Ask, Case
from skillc.evaluate.factors import truncated
from skillc.evaluate.harness import Asked
from skillc.evaluate.report import markdown, share, span
from skillc.evaluate.scoring import Mark
from skillc_compiler.adapter import Adapter
from skillc_compiler.data.generate import Generator, Sample, Shape
from skillc_compiler.data.lexicon import load
from skillc_compiler.data.tools import slim_box, slim_prompt
from skillc_compiler.gguf_adapter import MAX_RANK
from skillc_compiler.skill import parse_skill

SPLIT = "val"
RANKS = (8, 16, 32, 64)
FULL = "full"
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
LENGTHS = (100, 250, 500, 1000, 2000)
FACTS = (4, 8, 16, 32)

Points = dict[str, tuple[float, list[Mark]]]


def sweep(bench: Bench) -> Result:
    """Sweeps over the adapters' settings, over documents of growing size, and over activation."""
    settings = bench.settings
    count = settings.size(24, 3)
    samples = _samples(settings.seed, count, (3, 8))
    cases = [_case(sample, sample.text) for sample in samples]
    full = bench.compile([case.skill for case in cases], rank=MAX_RANK)
    points: dict[str, Points] = {
        "rank": _ranks(bench, cases, full),
        "scale": _scales(bench, cases, full),
        "length": _lengths(bench, _samples(settings.seed, count, (3, 3))),
        "facts": _facts(bench, settings.seed, max(1, count // 2)),
        "activation": _activations(bench, settings.seed, max(1, count // 2)),
    }
    found: dict[str, float] = {}
    for name, group in points.items():
        for value, (_, marks) in group.items():
            found |= share(f"{name}_{value}", marks)
    whole = max(found[f"rank_{FULL}"], 1e-9)
    for rank in RANKS:
        found[f"rank_{rank}_share"] = found[f"rank_{rank}"] / whole
    found["tail_drop"] = found["activation_full"] - found["activation_tail"]
    shortest = found[f"length_{LENGTHS[0]}"]
    longest = [found[f"length_{n}"] for n in LENGTHS[1:] if f"length_{n}" in found]
    if longest:
        found["length_drop"] = shortest - min(longest)
    found["skills"] = count
    found = {key: round(value, 4) for key, value in found.items()}
    answers = [mark for group in points.values() for _, own in group.values() for mark in own]
    return Result(found, _table(found, points), tuple(_curves(found, points)), tuple(answers))


def _samples(seed: int, count: int, facts: tuple[int, int]) -> list[Sample]:
    generator = Generator(SPLIT, seed, Shape(facts=facts, outside=0.0, chat=0.0))
    return [generator.sample() for _ in range(count)]


def _case(sample: Sample, text: str) -> Case:
    skill = parse_skill(text.encode(), folder=sample.name)
    return Case(skill, tuple(Ask(question) for question in sample.questions))


def _run(
    bench: Bench,
    arm: str,
    cases: Sequence[Case],
    adapters: Sequence[Adapter],
    scale: float = 1.0,
) -> list[Mark]:
    """Each case's questions with its own adapter."""
    marks: list[Mark] = []
    for case, adapter in zip(cases, adapters, strict=True):
        ref = replace(bench.harness.store(adapter), scale=scale)
        marks += bench.harness.ask(arm, [Asked(case, ask) for ask in case.asks], [ref])
    bench.note(arm, len(cases), len(cases))
    return marks


def _ranks(bench: Bench, cases: Sequence[Case], full: Sequence[Adapter]) -> Points:
    points: Points = {}
    for rank in RANKS:
        cut = [truncated(adapter, rank) for adapter in full]
        points[str(rank)] = (float(rank), _run(bench, f"rank_{rank}", cases, cut))
    points[FULL] = (float(MAX_RANK), _run(bench, f"rank_{FULL}", cases, full))
    return points


def _scales(bench: Bench, cases: Sequence[Case], full: Sequence[Adapter]) -> Points:
    cut = [truncated(adapter, bench.settings.rank) for adapter in full]
    return {
        f"{scale:g}": (scale, _run(bench, f"scale_{scale:g}", cases, cut, scale))
        for scale in SCALES
    }


def _lengths(bench: Bench, samples: Sequence[Sample]) -> Points:
    """The same three facts and questions, with distractors around them up to each length."""
    engine = bench.harness.engine

    def count(text: str) -> int:
        return len(engine.tokenize(text))

    points: Points = {}
    for length in LENGTHS:
        cases = [_case(sample, padded(sample.text, length, count, i)) for i, sample in
                 enumerate(samples)]  # fmt: skip
        adapters = bench.compile([case.skill for case in cases])
        points[str(length)] = (float(length), _run(bench, f"length_{length}", cases, adapters))
    return points


def _facts(bench: Bench, seed: int, count: int) -> Points:
    """Documents that state more and more."""
    points: Points = {}
    for facts in FACTS:
        samples = _samples(seed, count, (facts, facts))
        cases = [_case(sample, sample.text) for sample in samples]
        adapters = bench.compile([case.skill for case in cases])
        points[str(facts)] = (float(facts), _run(bench, f"facts_{facts}", cases, adapters))
    return points


def _activations(bench: Bench, seed: int, count: int) -> Points:
    """Asked as an agent asks, with a system prompt and tools in front, where the two differ."""
    generator = Generator(SPLIT, seed, Shape(facts=(3, 8), outside=0.0, chat=0.0))
    tools = slim_box([])
    samples = [generator.with_tools(generator.sample(), tools, 0.0) for _ in range(count)]
    cases = [_case(sample, sample.text) for sample in samples]
    adapters = bench.compile([case.skill for case in cases])
    harness = bench.harness
    full: list[Mark] = []
    tail: list[Mark] = []
    for case, adapter in zip(cases, adapters, strict=True):
        asked = [Asked(case, ask, slim_prompt()) for ask in case.asks]
        refs = [harness.store(adapter)]
        full += harness.ask("activation_full", asked, refs)
        tail += harness.ask_tail("activation_tail", asked, refs)
        bench.note("activation", len(full), count * len(case.asks))
    return {"full": (0.0, full), "tail": (1.0, tail)}


def padded(text: str, length: int, count: Callable[[str], int], seed: int = 0) -> str:
    """`text` with sections that state no fact before and after its body, `length` tokens at most.

    A text that is longer by itself stays as it is.
    """
    lexicon = load(SPLIT)
    rng = random.Random(f"{seed}-{length}")
    front, end, body = text.partition("\n---\n\n")
    before: list[str] = []
    after: list[str] = []
    room = length - count(text)
    while True:
        piece = rng.choice((*lexicon.sections, *lexicon.fillers))
        room -= count(piece) + 2
        if room < 0:
            break
        rng.choice((before, after)).append(piece)
    return front + end + "\n\n".join([*before, body.rstrip(), *after]) + "\n"


def _table(found: dict[str, float], points: dict[str, Points]) -> str:
    rows = []
    for name, group in points.items():
        for value, (_, marks) in group.items():
            key = f"{name}_{value}"
            rows.append([name, value, str(len(marks)), f"{found[key]:.3f}", span(found, key)])
    return markdown(["sweep", "value", "questions", "exact", "95%"], rows)


def _curves(found: dict[str, float], points: dict[str, Points]) -> Iterator[Curve]:
    axes = {
        "rank": "rank",
        "scale": "scale of the adapter",
        "length": "tokens of the text",
        "facts": "facts in the text",
    }
    for name, axis in axes.items():
        group = points[name]
        line = [
            (x, found[key], found[f"{key}_low"], found[f"{key}_high"])
            for value, (x, _) in group.items()
            for key in (f"{name}_{value}",)
        ]
        yield Curve(f"by {name}", axis, {"adapter": line})

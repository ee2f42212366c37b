"""The suites `commands` and `handwritten`: questions about held-out skills in every arm."""

from __future__ import annotations

from collections.abc import Sequence

from skillc.evaluate.arms import ARMS, Arms
from skillc.evaluate.bench import Bench, Result
from skillc.evaluate.cases import Case, generated_cases, handwritten_cases
from skillc.evaluate.report import figures, table
from skillc.evaluate.scoring import Mark
from skillc_compiler.errors import ProjectError


def commands(bench: Bench) -> Result:
    """Generated skills of a split whose wording, templates and strings were held out."""
    settings = bench.settings
    return obey(bench, generated_cases(settings.split, settings.size(240, 20), settings.seed))


def handwritten(bench: Bench) -> Result:
    """Skills and questions written by hand, from a file."""
    path = bench.settings.handwritten
    if path is None:
        raise ProjectError("the handwritten suite needs --file FILE.jsonl, with queries in it")
    return obey(bench, handwritten_cases(path)[: bench.settings.size(1000, 12)])


def obey(bench: Bench, cases: Sequence[Case]) -> Result:
    """Ask all questions of the cases in all arms."""
    adapters = bench.compile([case.skill for case in cases])
    arms = Arms(bench.harness, cases, adapters, bench.settings.rank, bench.note, bench.sft)
    skipped = arms.missing()
    run = [arm for arm in ARMS if arm not in skipped]
    marks: list[Mark] = []
    for arm in run:
        marks += arms.run(arm)
    found = figures(marks, run)
    for what in ("exact", "command"):
        if f"adapter_{what}" in found:
            gap = found[f"adapter_{what}"] - found[f"text_{what}"]
            found[f"{what}_minus_text"] = round(gap, 4)
    return Result(found, table(found, run), (), tuple(marks), skipped)

"""One run of one suite or of all: measure, print, draw; the exit code says whether targets hold."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from skillc.evaluate.bench import Bench, Result, Settings
from skillc.evaluate.beside import beside, jobs_of
from skillc.evaluate.harness import harness
from skillc.evaluate.needle import needle
from skillc.evaluate.obey import commands, handwritten
from skillc.evaluate.real import real
from skillc.evaluate.robust import robust
from skillc.evaluate.sets import sets
from skillc.evaluate.sweep import sweep
from skillc.evaluate.targets import FLOORS, TARGETS
from skillc.evaluate.unrelated import unrelated
from skillc.figures import Target, figures_object
from skillc_compiler.bases import find_base

SUITES: dict[str, Callable[[Bench], Result]] = {
    "commands": commands,
    "handwritten": handwritten,
    "real": real,
    "needle": needle,
    "robust": robust,
    "sets": sets,
    "unrelated": unrelated,
    "sweep": sweep,
}
"""Every suite by name; the names in skillc.evaluate.cli are these."""


class _Notes:
    """Plain progress lines on standard error, at most one every few seconds."""

    def __init__(self, every: float = 5.0) -> None:
        self.suite = ""
        self._every = every
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            print(f"{self.suite}: {what} {done}/{total}", file=sys.stderr, flush=True)


def run(names: Sequence[str], settings: Settings, *, as_json: bool) -> int:
    """Measure and print these suites; 0 when their targets hold, 1 when not."""
    if settings.plot:
        from skillc.evaluate.plot import require_matplotlib

        require_matplotlib()
    begun = time.monotonic()
    results: dict[str, Result] = {}
    for name, result in measure(names, settings):
        results[name] = result
        if not as_json:
            print(_text(name, result, settings, titled=len(names) > 1), flush=True)
    _write(results, settings)
    if len(names) == 1:
        found = _object(names[0], results[names[0]], settings)
    else:
        found = _together(names, results, settings, time.monotonic() - begun)
    if as_json:
        print(json.dumps(found), flush=True)
    return 0 if found["met"] else 1


def measure(names: Sequence[str], settings: Settings) -> Iterator[tuple[str, Result]]:
    """The results of suites in order, without those that lack their file; several at once."""
    left_out = without_file(settings) if len(names) > 1 else {}
    names = [name for name in names if name not in left_out]
    jobs = jobs_of(settings, len(names))
    if jobs > 1:
        yield from beside(partial(_one, settings), names, jobs)
    else:
        yield from _by_turns(names, settings)


def _one(settings: Settings, name: str) -> Result:
    """A suite in a process of its own."""
    (_, result), *_ = _by_turns([name], settings)
    return result


def _by_turns(names: Sequence[str], settings: Settings) -> Iterator[tuple[str, Result]]:
    """The results of suites one by one, on one engine."""
    from skillc_compiler.families.interface import load_compiler

    base = find_base(settings.base)
    sft = find_base(settings.sft_base) if settings.sft_base else None
    with ExitStack() as stack:
        compiler = load_compiler(base)
        made = stack.enter_context(harness(base, threads=settings.threads))
        other = stack.enter_context(harness(sft, threads=settings.threads)) if sft else None
        notes = _Notes()
        bench = Bench(settings, made, compiler, notes, other)
        for name in names:
            notes.suite = name
            begun = time.monotonic()
            result = SUITES[name](bench)
            result.figures["seconds"] = round(time.monotonic() - begun, 1)
            yield name, result


def without_file(settings: Settings) -> dict[str, str]:
    """The suites that need a file and have none, and what to do."""
    files = {"handwritten": settings.handwritten, "real": settings.real}
    return {name: "no --file for it" for name, path in files.items() if path is None}


def wanted(name: str, settings: Settings) -> Mapping[str, Target]:
    """A suite's targets; of a quick run, its floors."""
    return FLOORS[name] if settings.quick else TARGETS[name]


def _object(name: str, result: Result, settings: Settings) -> dict[str, Any]:
    made = figures_object(f"eval {name}", result.figures, wanted(name, settings))
    return made | {"skipped": dict(result.skipped)}


def _together(
    names: Sequence[str], results: Mapping[str, Result], settings: Settings, seconds: float
) -> dict[str, Any]:
    """One object for several suites: keys are SUITE.FIGURE, `seconds` that of all together."""
    figures: dict[str, float] = {}
    targets: dict[str, Target] = {}
    skipped = {name: why for name, why in without_file(settings).items() if name in names}
    for name, result in results.items():
        figures |= {f"{name}.{key}": value for key, value in result.figures.items()}
        targets |= {f"{name}.{key}": value for key, value in wanted(name, settings).items()}
        skipped |= {f"{name}.{key}": why for key, why in result.skipped.items()}
    figures["seconds"] = round(seconds, 1)
    return figures_object("eval all", figures, targets) | {"skipped": skipped}


def _text(name: str, result: Result, settings: Settings, *, titled: bool) -> str:
    """The table, then what was left out and how each target stands."""
    found = figures_object(name, result.figures, wanted(name, settings))
    lines = [f"\n## {name}\n"] if titled else []
    lines += [result.table, ""]
    lines += [f"- {what}: left out ({why})" for what, why in result.skipped.items()]
    for key, (sign, bound) in wanted(name, settings).items():
        value = result.figures.get(key)
        shown = "no figure" if value is None else f"{value:.4g}"
        good = figures_object("", {} if value is None else {key: value}, {key: (sign, bound)})
        lines.append(f"- {key} {shown}: {sign} {bound:g} {'met' if good['met'] else 'NOT met'}")
    lines.append(f"- {result.figures['seconds']:.0f} s on {found['machine']['cores']} cores")
    return "\n".join(lines)


def _write(results: Mapping[str, Result], settings: Settings) -> None:
    if settings.answers:
        marks = [(name, mark) for name, result in results.items() for mark in result.marks]
        lines = [json.dumps({"suite": name} | asdict(m), ensure_ascii=False) for name, m in marks]
        settings.answers.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if settings.plot:
        from skillc.evaluate.plot import save_plot

        curves = [curve for result in results.values() for curve in result.curves]
        save_plot(curves, settings.plot)

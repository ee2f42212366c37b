"""How long until the first token, with a skill of 1,000 tokens as adapter or as text in context?

Cold: nothing of the prompt is in the cache, and the adapter is read from its file. Warm: what all
requests have in common is in the cache (with text: the skill too), and the adapter is loaded. Both
sides by turns in one engine; the ratio is of the medians, text over adapter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _engine import nano, random_refs, say, skill_text, spread, with_quartiles

from skillc.figures import print_figures
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import Sampling

SKILL, SYSTEM, QUESTION = 1000, 60, 30
TARGETS = {"cold": (">=", 5.0), "warm": (">=", 1.0)}


def first_token(engine: Engine, tokens: Sequence[int], refs: Sequence[AdapterRef]) -> float:
    """Seconds until the first token of an answer."""
    started = time.perf_counter()
    engine.answer(tokens, refs, Sampling(max_tokens=1))
    return time.perf_counter() - started


def question(number: int) -> list[int]:
    """Tokens that no other question begins with."""
    return [100 + number, *range(200, 199 + QUESTION)]


def measure(
    engine: Engine, refs: Sequence[AdapterRef], turns: int, *, cold: bool
) -> tuple[list[float], list[float]]:
    """Seconds to the first token: of the adapter, of the text."""
    text = engine.tokenize(skill_text(0, 200))[:SKILL]
    system = list(range(20, 20 + SYSTEM))
    if not cold:
        engine.answer(system, refs[:1], Sampling(max_tokens=1))
        engine.answer([*system, *text], (), Sampling(max_tokens=1))
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        own = refs[turn % len(refs) if cold else 0]
        if cold:
            engine.scheduler.forget()
        found[0].append(first_token(engine, [*system, *question(turn)], [own]))
        if cold:
            engine.scheduler.forget()
        found[1].append(first_token(engine, [*system, *text, *question(turn)], ()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    figures: dict[str, float] = {}
    # With one adapter in memory at most, each turn of another one reads it from its file.
    with tempfile.TemporaryDirectory() as scratch, nano(max_adapters=1) as engine:
        refs = random_refs(Path(scratch), engine.base, 4)
        for name in ("cold", "warm"):
            adapter, text = measure(engine, refs, args.turns, cold=name == "cold")
            say(f"{name}: adapter {spread(adapter)}, text {spread(text)}")
            figures[f"{name}_adapter_ms"] = statistics.median(adapter) * 1e3
            figures[f"{name}_text_ms"] = statistics.median(text) * 1e3
            figures |= with_quartiles(name, text, adapter)
    print_figures("ttft", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

"""What does turning on another skill cost in the middle of a session?

A session has 2,000 tokens of history in the cache and a last turn of 20. One side turns a skill on
for the last turn alone (tail activation: the history is the bare base's, shared by all skills), the
other reads the history again under the new skill. Both sides are timed by turns from asking to the
first token of the answer, every time with another skill; the ratio is of the medians. `full` skills
cannot be turned on this way: their compiler must have been trained for it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _engine import nano, random_refs, say, spread, with_quartiles

from skillc.figures import print_figures
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import Sampling

HISTORY, TURN = 2000, 20
TARGETS = {"tail_speedup": (">=", 20.0)}


def first_token(
    engine: Engine, tokens: Sequence[int], ref: AdapterRef, tail_from: int | None
) -> float:
    """Seconds until the first token of an answer."""
    started = time.perf_counter()
    for _ in engine.generate(tokens, [ref], Sampling(max_tokens=1), tail_from=tail_from):
        pass
    return time.perf_counter() - started


def measure(engine: Engine, refs: Sequence[AdapterRef], turns: int) -> tuple[list[float], ...]:
    """Seconds of each turn-on: with tail activation, and with the history read again."""
    history = [10 + i % 3000 for i in range(HISTORY)]
    for ref in refs:  # all are loaded: what loading costs is another question
        engine.answer([1, 2], [ref], Sampling(max_tokens=1))
    engine.answer(history, (), Sampling(max_tokens=1))
    tail, full = [], []
    for turn in range(turns):
        tokens = [*history, *range(100 + 3 * turn, 100 + 3 * turn + TURN)]
        tail.append(first_token(engine, tokens, refs[turn % len(refs)], HISTORY))
        full.append(first_token(engine, [9, *tokens[1:]], refs[-1 - turn % len(refs)], None))
        engine.scheduler.forget(lambda slot: slot.tokens[:1] == [9])
    return tail, full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=16, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, nano() as engine:
        refs = random_refs(Path(scratch), engine.base, 8)
        tail, full = measure(engine, refs, args.turns)
    say(f"tail {spread(tail)}, history read again {spread(full)}")
    figures = {
        "tail_ms": statistics.median(tail) * 1e3,
        "full_ms": statistics.median(full) * 1e3,
        **with_quartiles("tail_speedup", full, tail),
    }
    print_figures("switch", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

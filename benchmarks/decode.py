"""How fast does a base decode with one skill and with four, against none?

On two layers of Qwen3-4B's shape with random weights in q8_0, so that the layers and not the
vocabulary decide; adapters of rank 64 on every `down_proj`, as skillc compiles them. One thread,
all sides by turns in one engine; the ratios are of median tokens per second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _engine import random_refs, say, spread, with_quartiles, write_4b_shaped

from skillc.figures import print_figures
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.events import Piece
from skillc_runtime.sampling import Sampling

TARGETS = {"one": (">=", 0.95), "four": (">=", 0.90)}


def token_seconds(engine: Engine, refs: Sequence[AdapterRef], count: int) -> float:
    """Seconds a token once the first is there."""
    asked = Sampling(max_tokens=count)
    times = [
        time.perf_counter()
        for event in engine.generate(range(10, 42), refs, asked)
        if isinstance(event, Piece)
    ]
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9, metavar="N")
    parser.add_argument("--tokens", type=int, default=24, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = write_4b_shaped(Path(scratch, "base.gguf"))
        engine = Engine(base, n_threads=1, n_ctx=1024)
        refs = random_refs(Path(scratch), base, 4)
        sides = {"none": refs[:0], "one": refs[:1], "four": refs}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(args.turns + 1):
            for name, attached in sides.items():
                found = token_seconds(engine, attached, args.tokens)
                if turn:  # the first loads and stacks
                    seconds[name].append(found)
        engine.close()
    say(", ".join(f"{name} {spread(found)}" for name, found in seconds.items()))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    figures = {f"{name}_tokens_s": 1 / found for name, found in medians.items()}
    for name in ("one", "four"):
        figures |= with_quartiles(name, seconds["none"], seconds[name])
    print_figures("decode", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

"""What does the server add to the engine, per streamed token and to the first token?

`skillc serve` and its engine are processes of their own, and the client, which keeps its connection
open, is a third; the engine alone runs in the client's process. The same prompt by turns on both
sides; nothing else is asked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from _engine import connected, nano, say, served, spread, streamed, with_quartiles, write_project

from skillc.figures import print_figures
from skillc_runtime.engine import Engine
from skillc_runtime.events import Piece
from skillc_runtime.sampling import Sampling
from skillc_runtime.template import ChatTemplate

TOKENS = 64
TARGETS = {"token_ms": ("<", 0.2), "p50_ms": ("<", 2.0), "p99_ms": ("<", 10.0)}


def engine_times(engine: Engine, prompt: list[int], count: int) -> list[float]:
    """Seconds from the call until each token."""
    started = time.perf_counter()
    asked = Sampling(max_tokens=count)
    return [
        time.perf_counter() - started
        for event in engine.generate(prompt, (), asked)
        if isinstance(event, Piece) and event.text
    ]


def per_token(times: list[float]) -> float:
    """Seconds a token once the first is there."""
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def percentile(values: list[float], share: float) -> float:
    """By the nearest rank."""
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=100, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, nano() as engine:
        write_project(Path(scratch), engine.base, 1)
        template = ChatTemplate(engine.base.chat_template or "", engine.model.vocab)
        tokens, first = [], []
        alone_first = []
        with served(Path(scratch)) as (url, _), closing(connected(url)) as link:
            for turn in range(args.turns + 2):
                asked = [{"role": "user", "content": f"Tell me of number {turn}, at length."}]
                # A question of its own each time: of its prompt only the beginning is cached.
                body = {"model": "nano", "messages": asked, "max_tokens": TOKENS}
                alone = engine_times(engine, template.render(asked), TOKENS)
                through = streamed(url, body, link)
                if turn < 2 or min(len(alone), len(through)) < 3:
                    continue
                tokens.append(per_token(through) - per_token(alone))
                alone_first.append(alone[0])
                first.append(through[0])
    base_first = statistics.median(alone_first)
    say(f"first token: engine alone {spread(alone_first)}, through the server {spread(first)}")
    figures = {
        "turns": float(len(tokens)),
        **with_quartiles("token_ms", [one * 1e3 for one in tokens]),
        "p50_ms": (percentile(first, 0.5) - base_first) * 1e3,
        "p99_ms": (percentile(first, 0.99) - percentile(alone_first, 0.99)) * 1e3,
    }
    print_figures("overhead", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

"""Eight clients at once: eight skills against one skill, and against a server with the text.

`own_ratio`: total tokens per second of eight answers under eight skills, over those of eight under
one skill, by turns, with as many engines as `skillc serve --engines` would be given here: two, on
two cores or more. `own_ratio_one_engine` is the same with one. `peer_ratio`: our server and
`llama_cpp.server` on the same GGUF by turns; eight clients ask for eight skills of about 1,000
tokens, as adapters here and as text in the system message there. That needs
`pip install 'llama-cpp-python[server]'`; without it the figure is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from _engine import (
    nano,
    random_refs,
    say,
    served,
    skill_text,
    streamed,
    with_quartiles,
    write_project,
)

from skillc.figures import print_figures
from skillc_compiler.bases import DEFAULT_BASE, find_base
from skillc_compiler.gguf_base import read_base_info
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.events import Event, Failed, Finish, Piece
from skillc_runtime.sampling import Sampling
from skillc_runtime.server import make_worker
from skillc_runtime.settings import ServeSettings
from skillc_runtime.worker import Job, Worker

CLIENTS, RULES, TOKENS = 8, 45, 32
TARGETS = {"own_ratio": (">=", 0.8), "peer_ratio": (">=", 4.0)}


def tokens_per_second(worker: Worker, refs: Sequence[AdapterRef], turn: int, count: int) -> float:
    """Of CLIENTS answers asked for at once, the n-th under the n-th adapter (or the last)."""
    said: list[Event | Failed] = []
    ended = threading.Semaphore(0)

    def listen(event: Event | Failed, at: float) -> None:
        said.append(event)
        if isinstance(event, Finish | Failed):
            ended.release()

    started = time.perf_counter()
    for i in range(CLIENTS):
        prompt = (300 + turn, 400 + i, *range(20, 60))
        ref = refs[min(i, len(refs) - 1)]
        worker.submit(Job(prompt, (ref,), Sampling(max_tokens=count), listen))
    for _ in range(CLIENTS):
        ended.acquire()
    return sum(isinstance(event, Piece) for event in said) / (time.perf_counter() - started)


def own(engines: int, turns: int, count: int) -> tuple[list[float], list[float]]:
    """Tokens per second of one skill, and of eight, by turn."""
    one, eight = [], []
    with tempfile.TemporaryDirectory() as scratch:
        base = read_base_info(find_base(DEFAULT_BASE).gguf)
        refs = random_refs(Path(scratch), base, CLIENTS)
        worker = make_worker(base, ServeSettings(base.path, engines=engines))
        worker.start()
        try:
            worker.loaded.wait()
            for turn in range(turns + 1):
                found = [tokens_per_second(worker, r, turn, count) for r in (refs[:1], refs)]
                if turn:  # the first loads
                    one.append(found[0])
                    eight.append(found[1])
        finally:
            worker.close()
    return one, eight


@contextmanager
def peer(gguf: Path) -> Iterator[str]:
    """`llama_cpp.server` with that base: its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf)]
    command += ["--n_ctx", "4096", "--n_threads", "1", "--port", str(port)]
    command += ["--interrupt_requests", "false", "--verbose", "false"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "llama_cpp.server ended"
            try:
                urlopen(f"{url}/v1/models", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def clients_rate(url: str, turn: int, count: int, *, text: bool) -> float:
    """Tokens per second of CLIENTS clients that each ask one question of a skill of their own."""

    def ask(number: int) -> int:
        question = {"role": "user", "content": f"Question {turn}: what comes next?"}
        system = {"role": "system", "content": skill_text(number, RULES)}
        body = {
            "model": "nano" if text else f"nano:skill-{number}",
            "messages": [system, question] if text else [question],
            "max_tokens": count,
            "temperature": 0,
            "logit_bias": {},
        }
        return len(streamed(url, body))

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        tokens = sum(pool.map(ask, range(CLIENTS)))
    return tokens / (time.perf_counter() - started)


def against_peer(turns: int, count: int) -> tuple[list[float], list[float]]:
    """Tokens per second of our server, and of the other, by turn."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch, nano() as engine:
        write_project(Path(scratch), engine.base, CLIENTS, rules=RULES)
        with served(Path(scratch), "--threads", "1") as (url, _), peer(engine.base.path) as other:
            for turn in range(turns + 1):
                found = clients_rate(url, turn, count, text=False)
                beside = clients_rate(other, turn, count, text=True)
                if turn:
                    ours.append(found)
                    theirs.append(beside)
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, metavar="N")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    engines = 2 if len(os.sched_getaffinity(0)) > 1 else 1
    alone, apart = own(1, args.turns, args.tokens)
    one, eight = own(engines, args.turns, args.tokens)
    figures: dict[str, float] = {"engines": engines}
    rates = {"one_tokens_s": one, "eight_tokens_s": eight, "eight_tokens_s_one_engine": apart}
    figures |= with_quartiles("own_ratio", eight, one)
    figures |= with_quartiles("own_ratio_one_engine", apart, alone)
    if importlib.util.find_spec("fastapi") is None:
        say("llama_cpp.server cannot run here: pip install 'llama-cpp-python[server]'")
    else:
        ours, theirs = against_peer(args.turns, args.tokens)
        rates |= {"ours_tokens_s": ours, "peer_tokens_s": theirs}
        figures |= with_quartiles("peer_ratio", ours, theirs)
    figures |= {name: statistics.median(found) for name, found in rates.items()}
    print_figures("mixed", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

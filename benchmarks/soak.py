"""Does a server stay right and of one size under mixed load?

Clients ask `skillc serve` for different skills, sets and the base, streamed and not, of different
lengths; some go away in the middle. Every whole answer must be what the same request gave when it
was asked alone before. Memory is of both processes, after a tenth of the time and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _engine import say, served, write_project
from many_skills import resident_mb

from skillc.figures import print_figures
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import read_base_info

SKILLS, REQUESTS = 8, 60
TARGETS = {"errors": ("==", 0.0), "wrong": ("==", 0.0), "memory_growth": ("<=", 1.1)}


def make_requests(chance: random.Random) -> list[dict[str, Any]]:
    """Requests of every kind, each with one right answer."""
    bodies = []
    for number in range(REQUESTS):
        names = chance.sample(range(SKILLS), chance.choice([0, 1, 1, 1, 2]))
        model = "nano" + "".join((":", "+")[i > 0] + f"skill-{n}" for i, n in enumerate(names))
        words = " ".join(["and then"] * chance.choice([1, 5, 40, 150]))
        asked = [{"role": "user", "content": f"{words} what about {number}?"}]
        body = {"model": model, "messages": asked, "max_tokens": chance.choice([1, 8, 40])}
        if chance.random() < 0.3:
            body |= {"temperature": 1.0, "seed": number}
        bodies.append(body)
    return bodies


def ask(url: str, body: dict[str, Any], *, leave: bool = False) -> str | None:
    """The text of an answer; None when the client went away. RuntimeError for anything but 200."""
    place = urlsplit(url)
    link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)
    try:
        data = json.dumps({**body, "stream": leave})
        link.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
        answer = link.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read(300)!r}")
        if leave:
            answer.read(40)
            return None
        return str(json.load(answer)["choices"][0]["message"]["content"])
    finally:
        link.close()


def client(
    url: str,
    requests: Sequence[tuple[dict[str, Any], str | None]],
    seed: int,
    end: float,
    found: Counter[str],
) -> None:
    """Ask until the end, and count what came."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        body, expected = chance.choice(requests)
        leave = chance.random() < 0.1
        try:
            text = ask(url, body, leave=leave)
        except (OSError, RuntimeError, http.client.HTTPException, ValueError) as error:
            found["errors"] += 1
            say(f"{type(error).__name__}: {error}")
            continue
        found["answers"] += 1
        if not leave and text != expected:
            found["wrong"] += 1
            say(f"wrong: {body['model']}: {text!r} and not {expected!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N")
    parser.add_argument("--clients", type=int, default=16, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        write_project(Path(scratch), read_base_info(find_base().gguf), SKILLS)
        with served(Path(scratch)) as (url, pid):
            requests = [(body, ask(url, body)) for body in make_requests(random.Random(0))]
            seconds = args.minutes * 60
            end = time.monotonic() + seconds
            threads = [
                threading.Thread(target=client, args=(url, requests, seed, end, found))
                for seed in range(args.clients)
            ]
            for thread in threads:
                thread.start()
            time.sleep(seconds / 10)
            early = resident_mb(pid)
            for thread in threads:
                thread.join()
            late = resident_mb(pid)
    figures = {key: float(found[key]) for key in ("answers", "errors", "wrong")}
    figures |= {"memory_mb": late, "memory_growth": late / early}
    print_figures("soak", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()

"""Does the server stay correct and flat under mixed load?  Sixteen clients over loopback.

Every answer is compared with what the same request gave when it was alone.  Among the requests are
streams that are read to the end and streams that are not, several choices, plain completions, the
messages and responses APIs, tools, and requests that must be refused.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _bench import build_with_stand_ins, fill, say, skillc, use_base
from _process import memory_mb, open_files, own_memory_mb

from skillc.figures import Target, print_figures
from skillc.prometheus import Page
from skillc_compiler.bases import DEFAULT_BASE

TARGETS: dict[str, Target] = {
    "errors": ("==", 0),
    "wrong": ("==", 0),
    "refused": ("==", 0),
    "rss_growth_mb": ("<=", 32),
    "files_growth": ("<=", 0),
    "left_open": ("==", 0),
    "requests": (">", 0),
}
PATIENCE = 600
SKILLS = 6
LENGTHS = (1, 4, 12, 40)
_TOOL = {"name": "run", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and the status that it must get; `abort`: go away after that many bytes."""

    path: str
    body: dict[str, Any]
    status: int = 200
    abort: int | None = None


def cases() -> list[Case]:
    """The mix."""
    models = [DEFAULT_BASE, *(f"{DEFAULT_BASE}:skill-{i:05d}" for i in range(SKILLS))]
    models.append(f"{DEFAULT_BASE}:skill-00000+skill-00001@0.5")
    found = []
    for number, model in enumerate(models):
        turn = [
            {
                "role": "user",
                "content": f"Which command do I run for case {number}? " * LENGTHS[number % 4],
            }
        ]
        chat = {"model": model, "messages": turn, "max_tokens": 16}
        stream = {**chat, "stream": True}
        tools = [{"type": "function", "function": _TOOL}]
        found += [
            Case("/v1/chat/completions", chat),
            Case("/v1/chat/completions", stream),
            Case("/v1/chat/completions", {**stream, "max_tokens": 200}, abort=400),
            Case("/v1/chat/completions", {**chat, "n": 2, "temperature": 1.0, "seed": number}),
            Case("/v1/chat/completions", {**chat, "tools": tools, "tool_choice": "required"}),
            Case("/v1/completions", {"model": model, "prompt": "The", "max_tokens": 8}),
            Case("/v1/messages", stream),
            Case("/v1/responses", {"model": model, "input": "Which one?", "max_output_tokens": 8}),
            Case("/v1/chat/completions", {**chat, "model": f"{model}+nothing"}, status=404),
            Case("/v1/chat/completions", {**chat, "messages": []}, status=400),
        ]
    return found


@dataclass
class Load:
    """What the clients share."""

    url: str
    expected: dict[int, str]
    ends: float
    counts: Counter[str] = field(default_factory=Counter)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def count(self, key: str) -> None:
        with self.turn:
            self.counts[key] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        use_base(scratch)
        project = scratch / "project"
        project.mkdir()
        fill(project, SKILLS)
        build_with_stand_ins(project)
        with served(project) as (url, process):
            figures = soak(url, process.pid, 60 * options.minutes, options.clients)
    print_figures("soak", figures, TARGETS, as_json=options.json)


@contextmanager
def served(project: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`skillc serve` in a process of its own; its URL and process."""
    command = skillc(project, "serve", "--port", "0", "--ctx", "8192")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline().split()
            if not first:
                raise SystemExit("the server did not start")
            yield first[1].removesuffix("/v1"), process
        finally:
            process.terminate()
            process.stdout.close()


def soak(url: str, pid: int, seconds: float, clients: int) -> dict[str, float]:
    """Load the server for `seconds`, after each case has been asked alone."""
    mix = cases()
    say(f"asking {len(mix)} cases one by one")
    alone = {i: ask(url, case) for i, case in enumerate(mix) if case.abort is None}
    refused = [i for i, (status, _) in alone.items() if status != mix[i].status]
    if refused:
        raise SystemExit(f"case {mix[refused[0]]} is answered {alone[refused[0]]}")
    expected = {i: text for i, (_, text) in alone.items()}
    warm(url, mix, expected, clients, seconds / 3)
    before, own = memory_mb(pid), own_memory_mb(pid)
    files, copies = open_files(pid), copies_mb(url)
    say(
        f"{before:.0f} MB, {copies:.0f} of them copies of prompts, and {files} open files"
        f" once warm; {seconds:.0f} s of load"
    )
    load = Load(url, expected, time.monotonic() + seconds)
    run(load, mix, clients)
    left = wait_until_idle(url)
    return {
        "requests": load.counts["requests"],
        "errors": load.counts["errors"],
        "wrong": load.counts["wrong"],
        "refused": load.counts["refused"],
        "aborted": load.counts["aborted"],
        "rss_growth_mb": round(memory_mb(pid) - before, 1),
        "server_growth_mb": round(own_memory_mb(pid) - own, 1),
        "copies_growth_mb": round(copies_mb(url) - copies, 1),
        "files_growth": open_files(pid) - files,
        "left_open": left,
    }


def warm(url: str, mix: list[Case], expected: dict[int, str], clients: int, seconds: float) -> None:
    """Load the server until it keeps no more copies of prompts than before, or time is over."""
    deadline = time.monotonic() + seconds
    kept = 0.0  # MB; what is still added now and then is not waited for
    while (copies := copies_mb(url)) >= kept and time.monotonic() < deadline:
        kept = copies + 0.5
        run(Load(url, expected, time.monotonic() + max(5.0, seconds / 4)), mix, clients)
        wait_until_idle(url)


def run(load: Load, mix: list[Case], clients: int) -> None:
    threads = [
        threading.Thread(target=client, args=(load, mix, number)) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def client(load: Load, mix: list[Case], number: int) -> None:
    """Ask one case after the other until the time is over."""
    chosen = random.Random(number)
    while time.monotonic() < load.ends:
        index = chosen.randrange(len(mix))
        try:
            status, text = ask(load.url, mix[index])
        except (OSError, http.client.HTTPException, ValueError) as error:
            say(f"{mix[index].path}: {error!r}")
            load.count("errors")
            continue
        load.count("requests")
        if status == 429:
            load.count("refused")
            time.sleep(1)
        elif mix[index].abort is not None:
            load.count("aborted" if status == 200 else "errors")
        elif status != mix[index].status:
            say(f"{mix[index].path}: {status} {text[:200]}")
            load.count("errors")
        elif text != load.expected[index]:
            say(f"wrong: {mix[index].body}: {text} and not {load.expected[index]}")
            load.count("wrong")


def ask(url: str, case: Case) -> tuple[int, str]:
    """Status and what was said; of a case that goes away, what came before."""
    place = urlsplit(url)
    link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
    try:
        link.request("POST", case.path, json.dumps(case.body))
        answer = link.getresponse()
        if case.abort is not None:
            return answer.status, answer.read(case.abort).decode("utf-8", "replace")
        data = answer.read().decode()
        if answer.status != 200:
            return answer.status, ""
        return answer.status, said(data, streamed=bool(case.body.get("stream")))
    finally:
        link.close()


def said(data: str, *, streamed: bool) -> str:
    """What an answer says, without ids and times."""
    if not streamed:
        return json.dumps(_plain(json.loads(data)), sort_keys=True)
    lines = [line for line in data.splitlines() if line.startswith("data: {")]
    deltas = [_plain(json.loads(line.removeprefix("data: "))) for line in lines]
    texts: Counter[str] = Counter()
    text = ""
    for delta in deltas:
        if "error" in delta:
            return json.dumps(delta)
        for choice in delta.get("choices", []):
            text += choice["delta"].get("content") or ""
            texts[str(choice["finish_reason"])] += choice["finish_reason"] is not None
        part = delta.get("delta", {})
        text += part.get("text", "")
        texts[str(part.get("stop_reason"))] += "stop_reason" in part
    return json.dumps([text, sorted(key for key, count in texts.items() if count)])


def _plain(value: Any) -> Any:
    """`value` without what differs each time: ids, times, and how much was cached."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    changing = ("id", "created", "created_at", "call_id", "usage", "skillc")
    return {key: _plain(inner) for key, inner in value.items() if key not in changing}


def wait_until_idle(url: str) -> float:
    """Requests that the server still has, after they had time to end."""
    left = 0.0
    for _ in range(200):
        page = metrics(url)
        left = page.total("skillc_requests_running") + page.total("skillc_requests_waiting")
        if not left:
            break
        time.sleep(0.2)
    return left


def metrics(url: str) -> Page:
    place = urlsplit(url)
    link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
    link.request("GET", "/metrics")
    page = Page(link.getresponse().read().decode())
    link.close()
    return page


def copies_mb(url: str) -> float:
    """What the server keeps of prompts for later ones, in MB; the server bounds it."""
    return metrics(url).total("skillc_prompt_copies_bytes") / 1e6


if __name__ == "__main__":
    main()

"""`skillc stats` adds up what `skillc serve --log` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.plugin.project import Run

from skillc.usage import read_usage


def line(**more: Any) -> str:
    facts = {
        "status": 200,
        "session": "one",
        "parent": None,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "tokens_elided": 0,
        "text_tokens": {"deploy": 200, "style": 100},
    }
    return json.dumps(facts | more) + "\n"


LOG = [
    "serving http://127.0.0.1:8191/v1\n",
    line(),
    line(text_tokens={"deploy": 200}, tokens_elided=150),
    line(session="child", parent="one", text_tokens={}),
    line(session=None, text_tokens={"style": 100}, prompt_tokens=300),
    line(status=404),
    '{"status": 200, "path": "/health"}\n',
    "{broken\n",
    "\n",
]


def test_sums() -> None:
    usage = read_usage(LOG)
    total = usage.total
    assert (total.requests, total.spent, total.cached) == (4, 600, 160)
    assert (total.text, total.elided) == (600, 150)
    assert total.cut == 0.5
    assert {name: tally.requests for name, tally in usage.sessions.items()} == {"one": 3, "-": 1}
    assert {name: tally.text for name, tally in usage.skills.items()} == {
        "deploy": 400,
        "style": 200,
    }
    assert usage.skills["style"].spent == 400
    assert usage.skipped == 4


def test_counts_that_are_none_do_no_harm() -> None:
    odd = line(prompt_tokens=None, text_tokens={"a": "b", "c": 5}, tokens_elided=-1)
    total = read_usage([odd, line(text_tokens=[])]).total
    assert (total.requests, total.spent, total.text, total.elided) == (2, 100, 5, 0)


def test_the_verb(root: Path, run: Run) -> None:
    log = root / "serve.log"
    log.write_text("".join(LOG), "utf-8")
    done = run("stats", log)
    assert (done.code, done.err) == (0, "")
    rows = [row.split() for row in done.out.splitlines()]
    assert ["one", "3", "300", "120", "500", "150", "62%"] in rows
    assert ["deploy", "2", "200", "80", "400", "150", "67%"] in rows
    assert ["all", "4", "600", "160", "600", "150", "50%"] in rows
    assert json.loads(run("stats", log, "--json").out)["total"]["cut"] == 0.5
    log.write_text("nothing\n", "utf-8")
    empty = run("stats", log)
    assert empty.code == 2 and "no answers in it" in empty.err
    assert run("stats", root / "missing").code == 2

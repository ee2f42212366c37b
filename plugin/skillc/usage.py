"""A server's log, added up: what its prompts cost, and what skills as text would have added."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """Sums over requests, in tokens.

    `spent` is what the prompts had, `cached` the part of it that was not read again, `text` what
    the texts of the attached adapters would have added, `elided` the part of these that a client
    had sent and the server took out.
    """

    requests: int = 0
    spent: int = 0
    cached: int = 0
    text: int = 0
    elided: int = 0

    def add(self, record: Mapping[str, Any], text: int) -> None:
        self.requests += 1
        self.spent += _count(record, "prompt_tokens")
        self.cached += _count(record, "cached_tokens")
        self.elided += _count(record, "tokens_elided")
        self.text += text

    @property
    def cut(self) -> float:
        """The share of the prompts, had they held the texts, that was saved; 0 to 1."""
        return self.text / (self.spent + self.text) if self.text else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "prompt_tokens": self.spent,
            "cached_tokens": self.cached,
            "text_tokens": self.text,
            "elided_tokens": self.elided,
            "cut": round(self.cut, 4),
        }


@dataclass(slots=True)
class Usage:
    """A log's answers: all of them, by session and by skill; `skipped` lines were none."""

    total: Tally = field(default_factory=Tally)
    sessions: dict[str, Tally] = field(default_factory=dict)
    skills: dict[str, Tally] = field(default_factory=dict)
    skipped: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "total": self.total.to_dict(),
            "sessions": {name: tally.to_dict() for name, tally in self.sessions.items()},
            "skills": {name: tally.to_dict() for name, tally in sorted(self.skills.items())},
            "skipped": self.skipped,
        }


def read_usage(lines: Iterable[str]) -> Usage:
    """Add up what `skillc serve --log` wrote; other lines and failed requests are skipped."""
    usage = Usage()
    for line in lines:
        record = _answer(line)
        if record is None:
            usage.skipped += bool(line.strip())
            continue
        texts = record.get("text_tokens")
        sizes = {
            str(name): size
            for name, size in (texts if isinstance(texts, dict) else {}).items()
            if isinstance(size, int)
        }
        usage.total.add(record, sum(sizes.values()))
        # A subagent's work is part of the session that asked for it.
        session = str(record.get("parent") or record.get("session") or "-")
        usage.sessions.setdefault(session, Tally()).add(record, sum(sizes.values()))
        for name, size in sizes.items():
            usage.skills.setdefault(name, Tally()).add(record, size)
    return usage


def _answer(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    done = isinstance(record, dict) and record.get("status") == 200 and "prompt_tokens" in record
    return record if done else None


def _count(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) and value > 0 else 0

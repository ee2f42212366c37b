"""The questions of a suite: generated skills of one split, or a JSONL file of handwritten ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skillc_compiler.data.generate import UNKNOWN, Generator, Question, Shape
from skillc_compiler.errors import ProjectError
from skillc_compiler.skill import Skill, parse_skill

FACT_KINDS = ("command", "literal", "apply", "never")


@dataclass(frozen=True)
class Ask:
    """A question, the assistant's expected text, and how an answer is held against it."""

    question: Question
    match: str = "exact"  # exact, contains or regex

    @property
    def kind(self) -> str:
        """The question's kind."""
        return self.question.kind


@dataclass(frozen=True)
class Case:
    """One skill and its questions."""

    skill: Skill
    asks: tuple[Ask, ...]


def generated_cases(split: str, count: int, seed: int, shape: Shape | None = None) -> list[Case]:
    """`count` fresh skills of a split; the test split's wording never occurs in training."""
    generator = Generator(split, seed, shape)
    cases: list[Case] = []
    for number in range(count):
        sample = generator.sample()
        skill = parse_skill(sample.text.encode(), folder=sample.name)
        if any(case.skill.name == skill.name for case in cases):
            # What is counted is by name; the text, which is what is compiled, stays.
            skill = replace(skill, name=f"{skill.name}-{number}")
        cases.append(Case(skill, tuple(Ask(q) for q in sample.questions if q.kind != "chat")))
    return cases


def has_queries(path: Path) -> bool:
    """Is this JSONL file one of skills with questions? Raises ProjectError when it cannot be read.

    Compressed files never are.
    """
    if path.suffix == ".xz":
        return False
    try:
        with path.open(encoding="utf-8") as lines:
            return "queries" in json.loads(next(lines, "{}"))
    except (OSError, ValueError, TypeError) as error:
        raise ProjectError(f"{path}: cannot be read as JSON lines ({error})") from error


def handwritten_cases(path: Path) -> list[Case]:
    """Skills with questions from a JSONL file: id, text, queries (kind, ask, expect, match).

    Raises ProjectError naming the line that does not fit.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path}: cannot be read ({error})") from error
    cases = list(_handwritten(path, lines))
    if not cases:
        raise ProjectError(f"{path}: no skills in it; one JSON object a line is expected")
    return cases


def _handwritten(path: Path, lines: list[str]) -> Iterator[Case]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            skill = parse_skill(row["text"].encode(), folder=row["id"])
            asks = tuple(_ask(query) for query in row["queries"])
        except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            raise ProjectError(
                f"{path}:{number}: not a skill with queries ({error}); keys id, text and queries"
                " with kind, ask, expect, match are expected"
            ) from error
        yield Case(skill, asks)


def _ask(query: dict[str, Any]) -> Ask:
    if query["match"] not in ("exact", "contains", "regex"):
        raise ValueError(f"match {query['match']!r} is not exact, contains or regex")
    if query["match"] == "regex":
        re.compile(query["expect"])
    expected = query["expect"] or UNKNOWN
    return Ask(Question(query["kind"], query["ask"], expected), query["match"])

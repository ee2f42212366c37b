"""Holds one answer against what was expected: the literal text, and token by token."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from skillc.evaluate.cases import Ask, Case
from skillc_compiler.data.generate import UNKNOWN

_CALL = re.compile(r"<tool_call>\s*(?P<json>\{.*?\})\s*</tool_call>", re.DOTALL)
_CODE = re.compile(r"```[^\n]*\n(?P<fence>.*?)```|`(?P<span>[^`\n]+)`", re.DOTALL)


@dataclass(frozen=True)
class Mark:
    """How one question went in one arm.

    right: the answer matches. entry: the first token of the expected literal is the greedy choice.
    later_right of later_all: the tokens after it, each predicted from the expected ones before it.
    leak: an uncovered question was answered with a literal of the skill.
    chosen: of the skill's literals the answer begins like the expected one, and like no other.
    scored: entry and the later tokens mean something; not so where a pattern is expected.
    """

    arm: str
    skill: str
    kind: str
    right: bool
    entry: bool
    later_right: int
    later_all: int
    leak: bool
    answer: str
    chosen: bool = False
    scored: bool = True


def mark_of(
    arm: str, case: Case, ask: Ask, answer: str, hits: Sequence[bool], literal: int
) -> Mark:
    """The mark of `answer`; `hits` says of every expected token whether it was the greedy choice.

    `literal` is the index of the token with which the expected literal begins.
    """
    later = list(hits[literal + 1 :])
    return Mark(
        arm,
        case.skill.name,
        ask.kind,
        is_right(ask, answer),
        bool(hits[literal]),
        sum(map(bool, later)),
        len(later),
        is_leak(ask, answer, case.skill.text),
        answer,
        is_chosen(ask, answer, case.skill.text),
        ask.match != "regex",
    )


def answered(text: str) -> str:
    """What an answer says: the one argument of its tool call, or the text without backticks."""
    found = _CALL.search(text)
    if found:
        try:
            arguments = json.loads(found["json"])["arguments"]
            return str(next(iter(arguments.values())))
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return text
    return text.strip().strip("`").strip()


def is_right(ask: Ask, text: str) -> bool:
    """Does the answer match? Uncovered questions want UNKNOWN, commands with tools a call."""
    expected = ask.question.answer
    said = answered(text)
    if ask.match == "contains":
        return expected.lower() in said.lower()
    if ask.match == "regex":
        return re.search(expected, said) is not None
    wants_call = ask.kind == "command" and bool(ask.question.tools)
    return said == expected and bool(_CALL.search(text)) == wants_call


def is_leak(ask: Ask, text: str, skill_text: str) -> bool:
    """Was an uncovered question answered with a literal that stands in the skill?"""
    if ask.kind != "outside":
        return False
    said = answered(text)
    if said == UNKNOWN:
        return False
    spans = {m["span"] or m["fence"].strip() for m in _CODE.finditer(skill_text)}
    return bool(said) and (said in skill_text or any(span and span in said for span in spans))


def is_chosen(ask: Ask, text: str, skill_text: str) -> bool:
    """Does the answer begin like the expected literal, further than like any other of the skill?"""
    said, expected = answered(text), ask.question.answer
    own = _shared(said, expected)
    others = (lit for lit in literals(skill_text) if lit != expected)
    return said == expected or own > max((_shared(said, other) for other in others), default=0)


def literals(skill_text: str) -> set[str]:
    """What a text holds in code spans, and every line of its fenced blocks."""
    found = set()
    for match in _CODE.finditer(skill_text):
        lines = [match["span"]] if match["span"] else match["fence"].splitlines()
        found |= {line.strip() for line in lines if line.strip()}
    return found


def _shared(one: str, other: str) -> int:
    """How many leading characters two texts have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))

"""Holds one answer against what was expected: the literal text, and token by token."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from skillc.evaluate.cases import Ask
from skillc_compiler.data.generate import UNKNOWN

_CALL = re.compile(r"<tool_call>\s*(?P<json>\{.*?\})\s*</tool_call>", re.DOTALL)
_CODE = re.compile(r"```[^\n]*\n(?P<fence>.*?)```|`(?P<span>[^`\n]+)`", re.DOTALL)


@dataclass(frozen=True)
class Mark:
    """How one question went in one arm.

    right: the answer matches. entry: the first token of the expected literal is the greedy choice.
    later_right of later_all: the tokens after it, each predicted from the expected ones before it.
    leak: an uncovered question was answered with a literal of the skill.
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
    literals = {m["span"] or m["fence"].strip() for m in _CODE.finditer(skill_text)}
    return bool(said) and (said in skill_text or any(lit and lit in said for lit in literals))

"""How a base writes tool calls (Hermes, Llama 3, Mistral), told from its chat template."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_runtime.call_parser import CallParser
from skillc_runtime.listed_calls import ARGS_MARK, MARK, ListedCallParser
from skillc_runtime.toolcalls import ToolCallParser

_NAME = "NAME"
_LETTERS = string.ascii_letters + string.digits
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_ONE_CALL = "single tool-call"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The text of a call: `start`, `head` with its name, arguments, `close`; then `more` and the
    next one's head, or `end`."""

    name: str
    start: str
    head: str
    close: str
    more: str
    end: str = ""
    short_ids: bool = False
    single: bool = False  # the template refuses a turn with several calls

    def called(self, name: str) -> str:
        """What follows `start` or `more` in a call of the tool `name`, up to its arguments."""
        return self.head.replace(_NAME, name)

    def prefix(self, name: str | None) -> str:
        """What an answer that must be a call begins with; `name` as from `read_tool_choice`."""
        if name is None:
            return ""
        return self.start + self.called(name) if name else self.start

    def parser(self, names: Collection[str]) -> CallParser:
        """What finds the calls of one answer; `names` are the tools that were offered."""
        if self.name == "hermes":
            return ToolCallParser(self.new_id)
        mark = MARK if self.name.startswith("mistral") else ""
        return ListedCallParser(self.new_id, mark=mark, names=names)

    def new_id(self) -> str:
        """An id for a call."""
        if self.short_ids:
            return "".join(secrets.choice(_LETTERS) for _ in range(9))
        return f"call_{secrets.token_hex(12)}"

    def fit(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """`messages` as the template takes them: ids it accepts, one call a turn where it must."""
        fitted = list(map(self._with_ids, messages)) if self.short_ids else list(messages)
        return one_call_a_turn(fitted) if self.single else fitted

    def _with_ids(self, message: dict[str, Any]) -> dict[str, Any]:
        if "tool_call_id" in message:
            message = {**message, "tool_call_id": short_id(message["tool_call_id"])}
        if "tool_calls" in message:
            calls = [{**call, "id": short_id(call["id"])} for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        return message


HERMES = Dialect(
    "hermes",
    start=f'{TOOL_CALL_OPEN}\n{{"name":',
    head=f' "{_NAME}", "arguments":',
    close="}\n" + TOOL_CALL_CLOSE,
    more=f'\n{TOOL_CALL_OPEN}\n{{"name":',
)
LLAMA3 = Dialect(
    "llama3",
    start='{"name":',
    head=f' "{_NAME}", "parameters":',
    close="}",
    more='; {"name":',
)
MISTRAL = Dialect(
    "mistral",
    start=f'{MARK}[{{"name":',
    head=f' "{_NAME}", "arguments":',
    close="}",
    more=', {"name":',
    end="]",
    short_ids=True,
)
MISTRAL_ARGS = Dialect(
    "mistral-args",
    start=MARK,
    head=_NAME + ARGS_MARK,
    close="",
    more=MARK,
    short_ids=True,
)


def dialect_of(template: str | None) -> Dialect:
    """The dialect that a chat template writes; Hermes when it does not say."""
    template = template or ""
    if MARK in template:
        return MISTRAL_ARGS if ARGS_MARK in template else MISTRAL
    if TOOL_CALL_OPEN not in template and ("<|python_tag|>" in template or "ipython" in template):
        return replace(LLAMA3, single=_ONE_CALL in template)
    return HERMES


def short_id(given: str) -> str:
    """`given` where it is nine letters and digits, as Mistral's templates demand; else its hash."""
    if _SHORT_ID.fullmatch(given):
        return given
    return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:9]


def one_call_a_turn(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns with several calls as several turns, each followed by its own call's result."""
    found: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    for message in messages:
        calls = message.get("tool_calls") or []
        if message["role"] == "tool" and waiting:
            at = _place(waiting, message.get("tool_call_id"))
            found.append(waiting.pop(at))
        else:
            found += waiting
            waiting = []
        if len(calls) > 1:
            waiting = [{**message, "content": "", "tool_calls": [call]} for call in calls]
            waiting[0]["content"] = message["content"]
        else:
            found.append(message)
    return found + waiting


def _place(turns: Sequence[dict[str, Any]], call_id: str | None) -> int:
    ids = [turn["tool_calls"][0]["id"] for turn in turns]
    return ids.index(call_id) if call_id in ids else 0

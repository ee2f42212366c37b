"""What is found in an answer that may hold tool calls: content, and calls as they are written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

# Once this much of a call is there its arguments can be passed on while they are written.
_HEADER = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*\{'
)


@dataclass(frozen=True, slots=True)
class Content:
    """Text of the answer outside of calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Call number `index` begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of the JSON text of a call's arguments."""

    index: int
    fragment: str


Part = Content | CallStart | CallArguments


class Json:
    """Follows a JSON object character by character: is it inside a string, how deep is it."""

    def __init__(self) -> None:
        self.depth = 0
        self.begun = False
        self._in_string = False
        self._escaped = False

    @property
    def in_string(self) -> bool:
        return self._in_string

    @property
    def done(self) -> bool:
        return self.begun and self.depth == 0

    def step(self, char: str) -> None:
        if self._in_string:
            if char < " ":  # never raw inside a JSON string: the quote was not closed
                self._in_string = False
            elif self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self.begun = True
            self.depth += 1
        elif char in "}]":
            self.depth -= 1


class CallReader:
    """One call, `{"name": ..., "arguments": {...}}`, while it is read."""

    def __init__(self, lead: str = "") -> None:
        self.lead = lead  # what stood before it: layout, unless it turns out to be no call
        self.raw = ""
        self.json = Json()
        self.name: str | None = None
        self.fragment = ""
        self._ended = False

    @property
    def started(self) -> bool:
        return self.name is not None

    def ends_before(self, char: str) -> bool:
        """Whether `char` shows that the block is over, or was none, without its closing mark."""
        if char.isspace():
            return False
        return self.json.done or (not self.json.begun and char != "{")

    def step(self, char: str) -> bool:
        """Take one character; True when the call's name has just become known."""
        self.raw += char
        before = self.json.depth
        self.json.step(char)
        if self.started:
            self._pass_on(char, before)
            return False
        if char == "{" and before == 1 and (header := _HEADER.fullmatch(self.raw)):
            name = parse(header[1])
            if isinstance(name, str):
                self.name, self.fragment = name, char
                return True
        return False

    def _pass_on(self, char: str, before: int) -> None:
        if not self._ended:
            self.fragment += char
            self._ended = before == 2 and self.json.depth == 1

    def take_fragment(self) -> str:
        fragment, self.fragment = self.fragment, ""
        return fragment

    def whole(self) -> tuple[str, str] | None:
        """Name and arguments of a call that could not be passed on early; None: it is no call."""
        value = parse(self.raw)
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not name:
            return None
        arguments = value.get("arguments", value.get("parameters"))
        if isinstance(arguments, str) and isinstance(parse(arguments), dict):
            return name, arguments
        return name, json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def parse(text: str) -> Any:
    """The JSON value of `text`, or None when it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

"""Finds Hermes tool calls, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, in a stream.

The result does not depend on how the text was cut into pieces; a block that holds no call stays
content.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_runtime.pieces import overlap

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


class _Json:
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


class _Call:
    """The inside of one `<tool_call>` block while it is read."""

    def __init__(self, lead: str) -> None:
        self.lead = lead  # white space before the block: layout, unless it turns out to be no call
        self.raw = ""
        self.json = _Json()
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


class ToolCallParser:
    """Feed it the answer's text; it gives content and calls as soon as they are certain."""

    def __init__(self) -> None:
        self._text = ""
        self._call: _Call | None = None
        self._after_call = False
        self._spoke = False
        self.count = 0

    def feed(self, text: str) -> list[Part]:
        """What became certain with `text`."""
        self._text += text
        return merged(self._read(last=False))

    def finish(self) -> list[Part]:
        """What is left when the answer has ended."""
        return merged(self._read(last=True))

    def _read(self, *, last: bool) -> Iterator[Part]:
        while self._text:
            before = len(self._text), self._call
            yield from self._read_content(last) if self._call is None else self._read_call()
            if before == (len(self._text), self._call):
                break
        if last and self._call is not None:
            end, self._text = self._text, ""
            yield from self._close(self._call, end)

    def _read_content(self, last: bool) -> Iterator[Part]:
        at = self._text.find(TOOL_CALL_OPEN)
        cut = len(self._text)
        if at >= 0 or not last:
            cut = at if at >= 0 else cut - overlap(self._text, TOOL_CALL_OPEN)
            cut = len(self._text[:cut].rstrip())
        content, self._text = self._text[:cut], self._text[cut:]
        if at >= 0:
            self._call = _Call(self._text[: at - cut])
            self._text = self._text[at - cut + len(TOOL_CALL_OPEN) :]
        if self._after_call and (content := content.lstrip()) and self._spoke:
            content = "\n" + content
        if content:
            self._after_call, self._spoke = False, True
            yield Content(content)

    def _read_call(self) -> Iterator[Part]:
        call = self._call
        assert call is not None
        for at, char in enumerate(self._text):
            if not call.json.in_string and char == "<":
                rest = self._text[at:]
                if rest.startswith(TOOL_CALL_CLOSE):
                    self._text = rest[len(TOOL_CALL_CLOSE) :]
                    yield from self._close(call, TOOL_CALL_CLOSE)
                    return
                if TOOL_CALL_CLOSE.startswith(rest):  # its rest may still come
                    self._text = rest
                    yield from self._fragment(call)
                    return
            if call.ends_before(char):
                self._text = self._text[at:]
                yield from self._close(call, "")
                return
            if call.step(char):
                assert call.name is not None
                yield self._start(call.name)
        self._text = ""
        yield from self._fragment(call)

    def _fragment(self, call: _Call) -> Iterator[Part]:
        if fragment := call.take_fragment():
            yield CallArguments(self.count - 1, fragment)

    def _start(self, name: str) -> CallStart:
        self.count += 1
        return CallStart(self.count - 1, f"call_{secrets.token_hex(12)}", name)

    def _close(self, call: _Call, end: str) -> Iterator[Part]:
        """The block is over; what holds no call is given back as content, `end` included."""
        self._call = None
        if call.started:
            yield from self._fragment(call)
        elif whole := call.whole():
            yield self._start(whole[0])
            yield CallArguments(self.count - 1, whole[1])
        else:
            lead = "" if self._after_call else call.lead
            self._after_call = False
            yield Content(lead + TOOL_CALL_OPEN + call.raw + end)
            return
        self._after_call = True


def merged(parts: Iterator[Part]) -> list[Part]:
    """Neighbouring parts of the same kind as one."""
    result: list[Part] = []
    for part in parts:
        last = result[-1] if result else None
        if isinstance(part, Content) and isinstance(last, Content):
            result[-1] = Content(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            result[-1] = CallArguments(part.index, last.fragment + part.fragment)
        else:
            result.append(part)
    return result

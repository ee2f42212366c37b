"""Finds Hermes tool calls, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, in a stream.

The result does not depend on how the text was cut into pieces; a block that holds no call stays
content.
"""

from __future__ import annotations

from collections.abc import Iterator

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_runtime.call_parts import (
    CallArguments,
    CallReader,
    CallStart,
    Content,
    MakeId,
    Part,
    merged,
)
from skillc_runtime.pieces import overlap


class ToolCallParser:
    """Feed it the answer's text; it gives content and calls as soon as they are certain."""

    def __init__(self, make_id: MakeId) -> None:
        self._make_id = make_id
        self._text = ""
        self._call: CallReader | None = None
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
            self._call = CallReader(self._text[: at - cut])
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

    def _fragment(self, call: CallReader) -> Iterator[Part]:
        if fragment := call.take_fragment():
            yield CallArguments(self.count - 1, fragment)

    def _start(self, name: str) -> CallStart:
        self.count += 1
        return CallStart(self.count - 1, self._make_id(), name)

    def _close(self, call: CallReader, end: str) -> Iterator[Part]:
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

"""Finds Hermes tool calls, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, in a stream.

The result does not depend on how the text was cut into pieces; a block that holds no call stays
content.
"""

from __future__ import annotations

from collections.abc import Iterator

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_runtime.call_parser import CallParser, MakeId
from skillc_runtime.call_parts import CallArguments, CallReader, Content, Part


class ToolCallParser(CallParser):
    """Calls stand between marks."""

    def __init__(self, make_id: MakeId) -> None:
        super().__init__(make_id)
        self._call: CallReader | None = None
        self._after_call = False

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
        content, lead = self._take_content(TOOL_CALL_OPEN, last)
        if lead is not None:
            self._call = CallReader(lead)
            self._text = self._text[len(TOOL_CALL_OPEN) :]
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

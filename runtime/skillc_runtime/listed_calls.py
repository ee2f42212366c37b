"""Finds tool calls that are plain JSON in a stream: Mistral's after a mark, Llama 3's bare.

Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`, or for newer bases
`[TOOL_CALLS]NAME[ARGS]{...}` once a call.  Llama 3: the answer is `{"name": ..., "parameters":
{...}}`, or several of them with `;` between.  As in `toolcalls`, the result does not depend on how
the text was cut, and what holds no call stays content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from skillc_runtime.call_parser import CallParser, MakeId
from skillc_runtime.call_parts import CallArguments, CallReader, Content, Json, Part

MARK, ARGS_MARK, ID_MARK = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"

_BETWEEN = " \t\r\n,;[]"
_HEAD = re.compile(
    r"\s{0,8}([A-Za-z0-9_.:/-]{1,128})\s{0,8}"
    rf"(?:{re.escape(ID_MARK)}[A-Za-z0-9_-]{{0,64}})?(?:{re.escape(ARGS_MARK)}|(?=\{{))"
)
_HEAD_ROOM = 256


class ListedCallParser(CallParser):
    """Calls stand after `mark`.

    Without one only an answer that begins with a call of one of `names` holds calls.
    """

    def __init__(self, make_id: MakeId, *, mark: str = "", names: Collection[str] = ()) -> None:
        super().__init__(make_id)
        self._mark = mark
        self._names = names
        self._lead = ""  # what stands between the mark or the last call and the next one
        self._named = False  # whether a bare name may follow: right after a mark only
        self._before = 0  # calls before the mark
        self._reader = CallReader()
        self._json = Json()
        self._state: Callable[[bool], Iterator[Part]] = (
            self._before_mark if mark else self._at_start
        )

    def _read(self, *, last: bool) -> Iterator[Part]:
        while self._text:
            before = self._text, self._state
            yield from self._state(last)
            if before == (self._text, self._state):
                break
        if last:
            yield from self._end()

    def _at_start(self, last: bool) -> Iterator[Part]:
        rest = self._text.lstrip()
        if not rest:
            return
        if rest[0] == "{":
            self._lead, self._text = self._text[: -len(rest)], rest
            self._state = self._between
        else:
            self._state = self._plain
        yield from ()

    def _plain(self, last: bool) -> Iterator[Part]:
        text, self._text = self._text, ""
        yield from self._speak(text)

    def _before_mark(self, last: bool) -> Iterator[Part]:
        content, lead = self._take_content(self._mark, last)
        yield from self._speak(content)
        if lead is not None:
            self._lead, self._before = lead, self.count
            self._state = self._between

    def _between(self, last: bool) -> Iterator[Part]:
        while self._text:
            if self._mark and self._text.startswith(self._mark):
                self._skip(len(self._mark))
                self._named = True
            elif self._mark and self._mark.startswith(self._text) and not last:
                return
            elif self._text[0] in _BETWEEN:
                self._named = self._named and self._text[0].isspace()
                self._skip(1)
            else:
                break
        else:
            return
        if self._text[0] == "{":
            self._reader, self._lead = CallReader(self._lead), ""
            self._state = self._in_call
        elif self._named:
            self._state = self._in_name
        else:
            yield from self._no_call("")

    def _skip(self, size: int) -> None:
        self._lead, self._text = self._lead + self._text[:size], self._text[size:]

    def _in_name(self, last: bool) -> Iterator[Part]:
        if head := _HEAD.match(self._text):
            self._text = self._text[head.end() :]
            self._json, self._lead, self._named = Json(), "", False
            self._state = self._in_arguments
            yield self._start(head[1])
        elif last or len(self._text) >= _HEAD_ROOM:
            yield from self._no_call("")

    def _in_arguments(self, last: bool) -> Iterator[Part]:
        fragment = ""
        for at, char in enumerate(self._text):
            if not self._json.begun and char.isspace():
                continue
            if not self._json.begun and char != "{":
                self._text = self._text[at:]
                yield self._end_arguments(fragment)
                return
            self._json.step(char)
            fragment += char
            if self._json.done:
                self._text = self._text[at + 1 :]
                yield self._end_arguments(fragment)
                return
        self._text = ""
        if fragment:
            yield CallArguments(self.count - 1, fragment)

    def _end_arguments(self, fragment: str) -> CallArguments:
        self._state = self._between
        return CallArguments(self.count - 1, fragment if self._json.begun else "{}")

    def _in_call(self, last: bool) -> Iterator[Part]:
        reader = self._reader
        for at, char in enumerate(self._text):
            if reader.step(char):
                assert reader.name is not None
                if not self._is_call(reader.name):
                    self._text = self._text[at + 1 :]
                    yield from self._no_call(reader.lead + reader.raw)
                    return
                yield self._start(reader.name)
            if reader.json.done:
                self._text = self._text[at + 1 :]
                yield from self._close()
                return
        self._text = ""
        yield from self._fragment(reader)

    def _is_call(self, name: str) -> bool:
        return bool(self._mark) or name in self._names

    def _close(self) -> Iterator[Part]:
        reader = self._reader
        self._state = self._between
        if reader.started:
            yield from self._fragment(reader)
        elif (whole := reader.whole()) and self._is_call(whole[0]):
            yield self._start(whole[0])
            yield CallArguments(self.count - 1, whole[1])
        else:
            yield from self._no_call(reader.lead + reader.raw)

    def _no_call(self, text: str) -> Iterator[Part]:
        """What was held back for a call is content; layout after a call is not."""
        lead, self._lead = self._lead, ""
        self._named = False
        self._state = self._before_mark if self._mark else self._plain
        if self.count == self._before:
            text = lead + text
        elif self._spoke:
            text = "\n" + text
        yield from self._speak(text)

    def _end(self) -> Iterator[Part]:
        if self._state == self._in_call:
            yield from self._close()
        elif self._state == self._in_arguments and not self._json.begun:
            yield CallArguments(self.count - 1, "{}")
        rest, self._text = self._lead + self._text, ""
        if self.count == self._before or rest.strip(_BETWEEN):
            yield from self._speak(rest)

    def _speak(self, text: str) -> Iterator[Part]:
        if text:
            self._spoke = True
            yield Content(text)

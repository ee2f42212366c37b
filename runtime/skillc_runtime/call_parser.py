"""What the parsers of tool calls in an answer share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from skillc_runtime.call_parts import CallArguments, CallReader, CallStart, Content, Part
from skillc_runtime.pieces import overlap

MakeId = Callable[[], str]


class CallParser(ABC):
    """Feed it the answer's text; it gives content and calls as soon as they are certain."""

    def __init__(self, make_id: MakeId) -> None:
        self._make_id = make_id
        self._text = ""  # what is not certain yet
        self._spoke = False
        self.count = 0

    def feed(self, text: str) -> list[Part]:
        """What became certain with `text`."""
        self._text += text
        return merged(self._read(last=False))

    def finish(self) -> list[Part]:
        """What is left when the answer has ended."""
        return merged(self._read(last=True))

    @abstractmethod
    def _read(self, *, last: bool) -> Iterator[Part]:
        """What is certain of the text; with `last`, all of it."""

    def _take_content(self, mark: str, last: bool) -> tuple[str, str | None]:
        """Content in front of `mark`; and once that is what the text goes on with, the layout
        between the two."""
        at = self._text.find(mark)
        cut = len(self._text)
        if at >= 0 or not last:
            cut = at if at >= 0 else cut - overlap(self._text, mark)
            cut = len(self._text[:cut].rstrip())
        content, lead = self._text[:cut], self._text[cut:at] if at >= 0 else None
        self._text = self._text[max(at, cut) :]
        return content, lead

    def _start(self, name: str) -> CallStart:
        self.count += 1
        return CallStart(self.count - 1, self._make_id(), name)

    def _fragment(self, call: CallReader) -> Iterator[Part]:
        if fragment := call.take_fragment():
            yield CallArguments(self.count - 1, fragment)


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

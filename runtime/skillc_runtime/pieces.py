"""From token bytes to text that may be sent: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Joins the bytes of tokens into text and ends it before the first stop string."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.stopped_by: str | None = None

    def feed(self, data: bytes, *, last: bool = False) -> str:
        """The text that is certain after `data`; with `last`, all that is left."""
        if self.stopped_by is not None:
            return ""
        self._held += self._decode(data, last)
        hits = [(at, text) for text in self._stop if (at := self._held.find(text)) >= 0]
        if hits:
            at, self.stopped_by = min(hits)
            certain, self._held = self._held[:at], ""
            return certain
        keep = 0 if last else max((overlap(self._held, text) for text in self._stop), default=0)
        cut = len(self._held) - keep
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0

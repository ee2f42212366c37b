"""The tokens of texts that were tokenized before: all of a history but its end comes again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

CHARACTERS = 1 << 20
"""What is remembered at the most: about twelve megabytes with the tokens."""


class Encodings:
    """Tokenizes, or remembers; the least recently used go first.  Any thread may call it."""

    def __init__(
        self, tokenize: Callable[[str], Sequence[int]], characters: int = CHARACTERS
    ) -> None:
        self._tokenize = tokenize
        self._room = characters
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._used = 0
        self._turn = threading.Lock()

    def __call__(self, text: str) -> Sequence[int]:
        """The tokens of `text`."""
        with self._turn:
            if (known := self._known.get(text)) is not None:
                self._known.move_to_end(text)
                return known
        found = tuple(self._tokenize(text))
        with self._turn:
            self._keep(text, found)
        return found

    def _keep(self, text: str, found: tuple[int, ...]) -> None:
        if text in self._known or len(text) > self._room // 4:
            return
        self._known[text] = found
        self._used += len(text)
        while self._used > self._room:
            gone, _ = self._known.popitem(last=False)
            self._used -= len(gone)

"""What the sequences of the context hold, and how much of it a prompt may take over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skillc_runtime.adapters import SetKey

if TYPE_CHECKING:
    from skillc_runtime.task import Task

CHUNK = 64
"""The tokens of a prompt that an engine which is not repeatable decodes at once, and takes over."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What decoded a sequence's tokens: the bare base before position `switch`, then a set."""

    key: SetKey = ()
    switch: int = 0

    def agrees(self, other: Origin) -> int | None:
        """How many tokens both would decode alike; None: all."""
        if self.key == other.key and (self.switch == other.switch or not self.key):
            return None
        # The base decodes all of its own sequences.
        return min(origin.switch for origin in (self, other) if origin.key)


@dataclass(slots=True)
class Slot:
    """A sequence of the context: its tokens, what decoded them, and whose answer it is now."""

    number: int
    tokens: list[int] = field(default_factory=list)
    origin: Origin = Origin()
    task: Task | None = None
    used: int = 0

    def shared(self, origin: Origin, tokens: Sequence[int], step: int) -> int:
        """How many leading tokens need no decoding: a multiple of `step`, fewer than all."""
        most = min(len(self.tokens), len(tokens) - 1)
        agree = self.origin.agrees(origin)
        if agree is not None:
            most = min(most, agree)
        return common(self.tokens, tokens, most) // step * step

    def cut(self, size: int) -> None:
        """Keep the first `size` tokens."""
        del self.tokens[size:]


def common(left: Sequence[int], right: Sequence[int], most: int) -> int:
    """Length, `most` or less, of what both begin with."""
    for at in range(0, most, CHUNK):
        end = min(at + CHUNK, most)
        if list(left[at:end]) != list(right[at:end]):
            return next(i for i in range(at, end) if left[i] != right[i])
    return most

"""Copies in memory of what sequences held, for prompts that begin alike and come back later.

A base whose memory cannot be cut (recurrent layers) can go on from a copy only where it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skillc_runtime.context import State
from skillc_runtime.resident import Origin, Slot


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A copy, and what it is a copy of."""

    slot: Slot
    state: State

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.state)


class Snapshots:
    """At most `budget` bytes of copies; the least recently used go first."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all copies."""
        return sum(one.size for one in self._kept)

    def has_room(self, size: int) -> bool:
        """Whether a copy of so many bytes is worth making: one must not push out all others."""
        return 0 < 2 * size <= self._budget

    def keep(self, slot: Slot, state: State) -> None:
        """Keep a copy, in place of an older one of the same."""
        own = Slot(-1, list(slot.tokens), slot.origin)
        self._kept = [one for one in self._kept if not _same(one.slot, own)]
        self._kept.append(Snapshot(own, state))
        while self.size > self._budget:
            del self._kept[0]

    def nearest(
        self, origin: Origin, tokens: Sequence[int], step: int, *, whole: bool
    ) -> tuple[int, Snapshot | None]:
        """The copy that spares most, and how many tokens: all of its own if `whole`."""
        best: tuple[int, Snapshot | None] = (0, None)
        for one in self._kept:
            size = one.slot.shared(origin, tokens, step)
            if size > best[0] and (not whole or size == len(one.slot.tokens)):
                best = (size, one)
        if best[1] is not None:
            self._kept = [one for one in self._kept if one is not best[1]]
            self._kept.append(best[1])
        return best


def _same(left: Slot, right: Slot) -> bool:
    return left.tokens == right.tokens and left.origin.agrees(right.origin) is None

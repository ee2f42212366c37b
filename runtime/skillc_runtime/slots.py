"""Which sequence an answer gets, and with how much of its prompt already in it."""

from __future__ import annotations

from collections.abc import Iterator

from skillc_runtime.cells import Cells
from skillc_runtime.context import Context
from skillc_runtime.resident import CHUNK, Slot
from skillc_runtime.task import Task

_MARGIN = 64
"""Cells kept back for one batch beside what is promised."""
_LITTLE = 16
"""So many tokens a sequence may lose when another answer goes on with it; else it stays."""


class Slots:
    """The sequences of a context: in use, or left by an earlier answer for prompts like its own.

    Those left over go, the least recently used first, when their cells are needed.
    """

    def __init__(self, context: Context, cells: Cells) -> None:
        self._context = context
        self._cells = cells
        self._room = context.cells - (_MARGIN if cells.ordered else 0)
        self._all = [Slot(number) for number in range(context.sequences)]
        self._clock = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._all)

    @property
    def used(self) -> int:
        """Cells in use, those shared by sequences counted for each."""
        return sum(len(slot.tokens) for slot in self._all)

    def place(self, task: Task) -> bool:
        """Give `task` a sequence; False when it has to wait for one, or for cells."""
        idle = sorted((s for s in self._all if s.task is None), key=lambda slot: slot.used)
        promised = sum(slot.task.most for slot in self._all if slot.task is not None)
        if not idle or (promised and promised + task.most > self._room):
            return False
        source, start = self._nearest(task)
        continued = len(source.tokens) - start <= _LITTLE or self._context.recurrent
        if start and source.task is None and (continued or len(idle) == 1):
            start = self._cut(source, start)
            target = source
        else:
            others = [slot for slot in idle if slot is not source]
            target = min(others or idle, key=lambda slot: bool(slot.tokens))
            self._cut(target, 0)
            start = self._share(source, target, start) if start and target is not source else 0
        self._clock += 1
        target.task, target.used, target.origin = task, self._clock, task.origin
        task.slot = target
        self._make_room(promised + task.most)
        return True

    def leave(self, task: Task) -> None:
        """Take the sequence back; what it holds stays for the next."""
        if (slot := task.slot) is None:
            return
        self._clock += 1
        slot.task, slot.used, task.slot = None, self._clock, None
        if not slot.solid:
            self._cut(slot, 0)

    def forget(self, slot: Slot) -> None:
        """Drop what a sequence holds."""
        self._cut(slot, 0)

    def lose(self) -> None:
        """All sequences are empty: something else used, or broke, the context."""
        for slot in self._all:
            slot.cut(0)
        self._cells.empty()

    def compact(self, *, data: bool = False) -> None:
        """See `Cells.compact`."""
        lengths = {slot.number: len(slot.tokens) for slot in self._all if slot.tokens}
        for number in self._cells.compact(lengths, data=data):
            self._all[number].cut(0)

    def _nearest(self, task: Task) -> tuple[Slot, int]:
        def rank(slot: Slot) -> tuple[int, bool, int]:
            return shared[slot.number], slot.task is None, slot.used

        step = 1 if self._cells.ordered else CHUNK
        shared = {slot.number: slot.shared(task.origin, task.tokens, step) for slot in self._all}
        best = max(self._all, key=rank)
        return best, shared[best.number]

    def _cut(self, slot: Slot, start: int) -> int:
        """Drop what lies behind `start`, or all where that cannot be; returns what is left."""
        if start < len(slot.tokens) and not self._cells.drop(slot.number, start):
            self._cells.drop(slot.number)
            start = 0
        slot.cut(start)
        return start

    def _share(self, source: Slot, target: Slot, size: int) -> int:
        if self._context.recurrent:
            return 0
        self._context.share(source.number, target.number, 0, size)
        target.tokens, target.solid = source.tokens[:size], size
        return size

    def _make_room(self, promised: int) -> None:
        idle = sorted((s for s in self._all if s.task is None), key=lambda slot: slot.used)
        left = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if promised + left <= self._room:
                return
            left -= len(slot.tokens)
            self._cut(slot, 0)

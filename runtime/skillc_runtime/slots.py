"""Which sequence an answer gets, and with how much of its prompt already in it."""

from __future__ import annotations

from collections.abc import Iterator

from skillc_runtime.cells import Cells
from skillc_runtime.context import Context
from skillc_runtime.resident import CHUNK, Slot
from skillc_runtime.snapshots import Snapshot, Snapshots
from skillc_runtime.task import Task

_MARGIN = 64
"""Cells kept back for one batch beside what is promised."""
_LITTLE = 16
"""So many tokens a sequence may lose when another answer goes on with it; else it stays."""
_WORTH = 256
"""So many tokens make a copy worth its time."""
_AHEAD = 256
"""So many tokens of an answer are promised room at a time: most end long before they must."""


class Slots:
    """The sequences of a context: in use, or left by an earlier answer for prompts like its own.

    Those left over go, the least recently used first, when their place is needed; a copy of what
    was long to decode is kept.
    """

    def __init__(self, context: Context, cells: Cells, snapshots: Snapshots) -> None:
        self._context = context
        self._cells = cells
        self._room = context.cells - (_MARGIN if cells.ordered else 0)
        self._step = 1 if cells.ordered or context.recurrent else CHUNK
        self._all = [Slot(number) for number in range(context.sequences)]
        self._clock = 0
        self.snapshots = snapshots

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._all)

    @property
    def used(self) -> int:
        """Cells in use, those shared by sequences counted for each."""
        return sum(len(slot.tokens) for slot in self._all)

    def place(self, task: Task) -> bool:
        """Give `task` a sequence; False when it has to wait for one, or for cells."""
        promised = sum(_promise(slot.task) for slot in self._all if slot.task is not None)
        if not self._idle() or (promised and promised + _promise(task) > self._room):
            return False
        promised += _promise(task)
        slot = self._filled(task, promised)
        self._clock += 1
        slot.task, slot.used, slot.origin = task, self._clock, task.origin
        task.slot = slot
        self._make_room(promised)
        return True

    def reserve(self, count: int) -> bool:
        """Make room for `count` more tokens; False when answers on their way need all there is."""
        active = sum(len(slot.tokens) for slot in self._all if slot.task is not None)
        self._make_room(active + count)
        return active + count <= self._room

    def remember(self, slot: Slot) -> None:
        """Keep a copy of a sequence of a base that cannot go back to here later."""
        if self._context.recurrent and slot.tokens:
            self._copy(slot)

    def _filled(self, task: Task, promised: int) -> Slot:
        """An idle sequence with as much of the prompt in it as can be had, and nothing else."""
        recurrent, idle = self._context.recurrent, self._idle()
        source, start = self._nearest(task)
        size, snapshot = self.snapshots.nearest(
            task.origin, task.tokens, self._step, whole=recurrent
        )
        if start >= size and start and source.task is None:
            continued = len(source.tokens) - start <= _LITTLE
            if recurrent or continued or len(idle) == 1:
                self._cut(source, start)
                return source
        others = [slot for slot in idle if slot is not source or size > start]
        target = min(others or idle, key=lambda slot: bool(slot.tokens))
        self._evict(target)
        if snapshot is not None and size > start:
            self._make_room(promised)
            self._restore(target, snapshot, size)
        elif start and target is not source:
            self._context.share(source.number, target.number, 0, start)
            target.tokens = source.tokens[:start]
        return target

    def leave(self, task: Task) -> None:
        """Take the sequence back; what it holds stays for the next."""
        if (slot := task.slot) is None:
            return
        self._clock += 1
        slot.task, slot.used, task.slot = None, self._clock, None

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

    def _idle(self) -> list[Slot]:
        """Sequences that nobody needs, the least recently used first."""
        return sorted((s for s in self._all if s.task is None), key=lambda slot: slot.used)

    def _nearest(self, task: Task) -> tuple[Slot, int]:
        """The sequence that spares most, and how many tokens."""

        def rank(slot: Slot) -> tuple[int, bool, int]:
            return shared[slot.number], slot.task is None, slot.used

        shared = {
            slot.number: slot.shared(task.origin, task.tokens, self._step) for slot in self._all
        }
        if self._context.recurrent:  # goes on only where it stands, and shares nothing
            for slot in self._all:
                if slot.task is not None or shared[slot.number] < len(slot.tokens):
                    shared[slot.number] = 0
        best = max(self._all, key=rank)
        return best, shared[best.number]

    def _cut(self, slot: Slot, start: int) -> None:
        """Drop what lies behind `start`, or all where that cannot be."""
        if start < len(slot.tokens) and not self._cells.drop(slot.number, start):
            self._cells.drop(slot.number)
            start = 0
        slot.cut(start)

    def _evict(self, slot: Slot) -> None:
        """Drop all, and keep a copy of what was long to decode."""
        if len(slot.tokens) >= _WORTH and not self._context.recurrent:
            self._copy(slot)
        self._cut(slot, 0)

    def _copy(self, slot: Slot) -> None:
        if self.snapshots.has_room(self._context.state_size(slot.number)):
            self.snapshots.keep(slot, self._context.save(slot.number))

    def _restore(self, slot: Slot, snapshot: Snapshot, size: int) -> None:
        """Fill an empty sequence from a copy, as far as `size`."""
        tokens = snapshot.slot.tokens
        if self._cells.crowded(self.used, len(tokens)):
            self.compact()
        if self._context.restore(slot.number, snapshot.state):
            self._cells.added(len(tokens))
            slot.tokens = list(tokens)
            self._cut(slot, size)

    def _make_room(self, promised: int) -> None:
        idle = self._idle()
        left = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if promised + left <= self._room:
                return
            left -= len(slot.tokens)
            self._evict(slot)


def _promise(task: Task) -> int:
    return min(task.most, len(task.tokens) + _AHEAD)

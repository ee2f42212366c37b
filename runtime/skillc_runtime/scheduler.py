"""Many answers at once in one context, whose decodes each run under one skill set.

Answers of the set that is attached are decoded together, prompts in pieces beside them. Another
set has its turn after `quantum` decodes, the one that waited longest first.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime.adapters import AdapterCache, SetKey, not_finite
from skillc_runtime.cells import Cells
from skillc_runtime.context import BATCH, Context, Entry
from skillc_runtime.counts import Counts
from skillc_runtime.events import Failed
from skillc_runtime.llama import LoadedAdapter, Vocab
from skillc_runtime.resident import CHUNK, Slot
from skillc_runtime.slots import Slots
from skillc_runtime.snapshots import Snapshots
from skillc_runtime.task import Task

log = logging.getLogger("skillc")

QUANTUM = 16
# From 64 tokens on attention goes through the cache in tiles, which rounds otherwise.
_UNTILED = 63


@dataclass(frozen=True, slots=True)
class _Share:
    """What of a task is in the next batch: `count` tokens, the last one's entry at `last`."""

    task: Task
    count: int
    last: int


class Scheduler:
    """Decodes what is submitted, a step at a time; one thread at a time may call it."""

    def __init__(
        self,
        context: Context,
        adapters: AdapterCache,
        vocab: Vocab,
        *,
        n_ctx: int,
        repeatable: bool,
        snapshot_bytes: int = 0,
        quantum: int = QUANTUM,
    ) -> None:
        """`repeatable`: what an answer is does not depend, to the last bit, on other answers."""
        self._context = context
        self._adapters = adapters
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._repeatable = repeatable
        self.quantum = quantum
        self._cells = Cells(context, context.sequences, ordered=repeatable)
        self.slots = Slots(context, self._cells, Snapshots(snapshot_bytes))
        self._waiting: deque[Task] = deque()
        self._running: list[Task] = []
        self.attached: SetKey | None = None
        self._turn_ends = 0
        self._served: dict[SetKey, int] = {}  # the decode at which a set last had its turn
        self.counts = Counts()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._waiting

    @property
    def running(self) -> int:
        """Answers on their way."""
        return len(self._running)

    @property
    def in_use(self) -> set[LoadedAdapter]:
        """What answers on their way have attached, or will have again."""
        return {task.attachment[0] for task in self._running if task.attachment}

    @property
    def waiting(self) -> int:
        """Answers that have not begun."""
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        """Take a task; its prompt must fit."""
        task.bound(self._n_ctx)
        self._waiting.append(task)

    def drop(self, task: Task) -> None:
        """End a task of which nothing more is to be said."""
        task.free()
        self._clean()

    def fail_all(self, failure: Failed) -> None:
        """End all tasks by an error, and start anew."""
        for task in [*self._running, *self._waiting]:
            task.fail(failure)
        self._clean()
        self.lose()

    def step(self) -> None:
        """End what is cancelled, begin what has waited, decode once."""
        for task in [*self._running, *self._waiting]:
            if task.cancel.is_set():
                task.cancelled()
        self._clean()
        self.admit()
        self._clean()
        self.advance()
        self._clean()

    def lose(self) -> None:
        """Something else has the context: answers on their way start over when it is back."""
        self.attached = None
        self.slots.lose()

    def forget(self, which: Callable[[Slot], bool] = lambda slot: True) -> None:
        """Drop what earlier answers left in the cache, as far as `which` says so."""
        for slot in self.slots:
            if slot.task is None and which(slot):
                self.slots.forget(slot)

    def admit(self) -> None:
        """Begin waiting tasks, in order, as long as there is room for them."""
        for task in self._running:
            if task.slot is None and not self.slots.place(task):
                return
        while self._waiting and self._begin(self._waiting[0]):
            self._waiting.popleft()

    def advance(self) -> None:
        """Decode one batch of the set whose turn it is."""
        tasks = self._next_group()
        entries, shares = self._batch(tasks)
        while not self.slots.reserve(len(entries)) and self._set_back():
            entries, shares = self._batch(tasks)
        if not shares:
            return
        try:
            self._decode(shares[0].task, entries)
        except SkillcError as error:
            # All sequences are gone. Whose fault it was nobody knows.
            self.lose()
            for share in shares:
                share.task.fail(Failed(error))
            return
        self._note(shares)
        self._choose(shares, [entry.output for entry in entries])

    def _set_back(self) -> bool:
        """Let the newest answer wait again; it goes on where it was. False: there is but one."""
        placed = [task for task in self._running if task.slot is not None]
        if len(placed) > 1:
            self.slots.leave(placed[-1])
        return len(placed) > 1

    def _begin(self, task: Task) -> bool:
        if not self.slots.place(task):
            return False
        task.served = self.counts.decodes
        self._running.append(task)
        with self._guard(task):
            task.attachment = self._adapters.get(task.adapters)
            task.begin(self._vocab)
            task.started(task.done)
        return True

    def _next_group(self) -> list[Task]:
        """The tasks of one set, those first whose prompt is in."""
        groups: dict[SetKey, list[Task]] = {}
        for task in self._running:
            if task.slot is not None:
                groups.setdefault(task.turn, []).append(task)
        if not groups:
            return []
        first = {key: min(task.served for task in tasks) for key, tasks in groups.items()}
        self._served = {key: self._served.get(key, first[key]) for key in groups}
        key = self.attached
        if key is None or key not in groups or self.counts.decodes >= self._turn_ends:
            key = min(groups, key=self._served.__getitem__)
            self._turn_ends = self.counts.decodes + self.quantum
        self._served[key] = self.counts.decodes + 1
        return sorted(groups[key], key=lambda task: task.pending > 1)

    def _batch(self, tasks: Sequence[Task]) -> tuple[list[Entry], list[_Share]]:
        entries: list[Entry] = []
        shares: list[_Share] = []
        room = _UNTILED - 1 if self._repeatable else BATCH
        for task in tasks:
            if task.slot is None or not (count := self._piece(task, room - len(entries))):
                continue
            at, end = task.done, len(task.tokens) - 1
            entries += [
                Entry(task.tokens[i], i, task.slot.number, output=i == end)
                for i in range(at, at + count)
            ]
            shares.append(_Share(task, count, len(entries) - 1))
        return entries, shares

    def _piece(self, task: Task, room: int) -> int:
        """How many tokens of a task to decode next, at most `room`."""
        count = task.pending
        if not task.acting and task.origin.key:
            count = min(count, task.origin.switch - task.done)
        if self._repeatable:
            return min(count, room)
        count = min(count, CHUNK - task.done % CHUNK)
        return count if count <= room else 0

    def _decode(self, task: Task, entries: list[Entry]) -> None:
        if self._cells.crowded(self.slots.used, len(entries)):
            self.slots.compact()
        self._attach(task)
        self._context.decode(self._padded(entries) if self._repeatable else entries)
        self._cells.added(len(entries))
        if len(entries) == 1 and self._repeatable:
            self._cells.drop_padding()
        self.counts.decodes += 1
        self.counts.tokens += len(entries)

    def _padded(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """With a token, or an output, only one of its kind kernels round otherwise than for two."""
        entries = list(entries)
        if len(entries) == 1:
            entries.append(replace(entries[0], position=0, sequence=self._cells.padding))
        outputs = [i for i, entry in enumerate(entries) if entry.output]
        if len(outputs) == 1:
            other = int(outputs[0] == 0)
            entries[other] = replace(entries[other], output=True)
        return entries

    def _attach(self, task: Task) -> None:
        if task.turn == self.attached:
            return
        self.attached = None
        self._context.attach(task.attachment if task.acting else None)
        self.attached = task.turn
        self.counts.switches += 1
        self._adapters.trim(self.in_use)

    def _note(self, shares: Sequence[_Share]) -> None:
        for share in shares:
            task, slot = share.task, share.task.slot
            assert slot is not None
            slot.tokens += task.tokens[task.done : task.done + share.count]
            if len(slot.tokens) in (task.origin.switch, (task.prompt_tokens - 1) // CHUNK * CHUNK):
                self.slots.remember(slot)

    def _choose(self, shares: Sequence[_Share], outputs: Sequence[bool]) -> None:
        poisoned: list[Task] = []
        for share in shares:
            if not outputs[share.last]:
                continue
            row = self._context.row(share.last)
            if np.isfinite(row).all():
                with self._guard(share.task):
                    share.task.take(row, self._vocab)
            else:
                poisoned.append(share.task)
        if poisoned:
            self._set_aside(poisoned)

    def _set_aside(self, tasks: Sequence[Task]) -> None:
        """NaN stays in the cells of a sequence, from where it may reach others: overwrite them."""
        for task in tasks:
            assert task.slot is not None
            self.slots.forget(task.slot)
        self.slots.compact(data=True)
        for task in tasks:
            if task.adapters:
                self._adapters.quarantine(task.adapters)
                task.fail(Failed(not_finite(task.origin.key)))
            else:
                task.fail(Failed(ServeError("the base computes NaN or infinity")))

    @contextmanager
    def _guard(self, task: Task) -> Iterator[None]:
        """What goes wrong with a task in the block ends that task only."""
        try:
            yield
        except SkillcError as error:
            task.fail(Failed(error))
        except Exception as error:
            log.exception("a request failed")
            task.fail(Failed(ServeError(f"internal error: {type(error).__name__}")))

    def _clean(self) -> None:
        for task in [task for task in self._running if task.ended]:
            self._running.remove(task)
            self.slots.leave(task)
        if any(task.ended for task in self._waiting):
            self._waiting = deque(task for task in self._waiting if not task.ended)

"""Many sequences of one skill set in each decode: what evaluation and parity checks use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from skillc_compiler.errors import ServeError
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.context import BATCH, Context, Entry
from skillc_runtime.events import Answer, FinishReason
from skillc_runtime.pieces import TextStream
from skillc_runtime.sampling import Row, Sampler, Sampling, log_softmax

if TYPE_CHECKING:
    from skillc_runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class Score:
    """Of each target token: its log probability and the token greedy choice would have taken."""

    logprobs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.int64]


def decode_rows(context: Context, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Row]]:
    """Decode any number of entries; yields those whose logits were asked for, with them."""
    batch: list[Entry] = []
    outputs = 0
    for number, entry in enumerate(entries):
        batch.append(entry)
        outputs += entry.output
        full = len(batch) == BATCH or outputs == context.outputs
        if full or number == len(entries) - 1:
            context.decode(batch)
            for index, decoded in enumerate(batch):
                if decoded.output:
                    yield decoded, context.row(index)
            batch, outputs = [], 0


def logits(
    engine: Engine, tokens: Sequence[int], adapters: Sequence[AdapterRef], start: int
) -> Row:
    """See Engine.logits."""
    entries = [Entry(token, at, output=at >= start) for at, token in enumerate(tokens)]
    rows = np.stack([row for _, row in decode_rows(engine.context, entries)])
    engine.check_finite(rows, adapters)
    return rows


def score_many(
    engine: Engine,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    adapters: Sequence[AdapterRef],
) -> list[Score]:
    """See Engine.score_many."""
    scores: list[Score] = []
    for group in packed(engine, pairs):
        entries = [entry for seq, pair in enumerate(group) for entry in target_entries(seq, *pair)]
        rows: list[list[Row]] = [[] for _ in group]
        for entry, row in decode_rows(engine.context, entries):
            rows[entry.sequence].append(row)
        for (_, target), its_rows in zip(group, rows, strict=True):
            stacked = np.stack(its_rows)
            engine.check_finite(stacked, adapters)
            logs = log_softmax(stacked)
            picked = logs[np.arange(len(target)), np.asarray(target)]
            scores.append(Score(picked, stacked.argmax(-1).astype(np.int64)))
        engine.context.forget()
    return scores


def packed(
    engine: Engine, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[list[tuple[Sequence[int], Sequence[int]]]]:
    """`pairs` in order, in groups that the context's sequences and cells can hold."""
    group: list[tuple[Sequence[int], Sequence[int]]] = []
    used = 0
    for prompt, target in pairs:
        size = len(prompt) + len(target)
        if not prompt or not target or size > engine.n_ctx:
            raise ServeError(
                f"cannot score {len(target)} tokens after {len(prompt)}: both must have a token, "
                f"and the context has {engine.n_ctx}"
            )
        if len(group) == engine.context.sequences or used + size > engine.n_ctx:
            yield group
            group, used = [], 0
        group.append((prompt, target))
        used += size
    if group:
        yield group


def target_entries(sequence: int, prompt: Sequence[int], target: Sequence[int]) -> list[Entry]:
    """Entries of prompt and target whose rows predict the target's tokens."""
    tokens = [*prompt, *target[:-1]]
    first = len(prompt) - 1
    return [Entry(token, at, sequence, at >= first) for at, token in enumerate(tokens)]


class _Slot:
    """One answer on its way, in one sequence."""

    def __init__(self, index: int, prompt: Sequence[int], limit: int, sampling: Sampling) -> None:
        self.index = index
        self.prompt = prompt
        self.limit = limit
        self.tokens: list[int] = []
        self.text = ""
        self.reason: FinishReason | None = None
        self._sampler = Sampler(sampling)
        self._stream = TextStream(sampling.stop)

    @property
    def cells(self) -> int:
        return len(self.prompt) + self.limit

    def entries(self, sequence: int) -> list[Entry]:
        """What to decode next: the whole prompt at first, then the newest token."""
        if not self.tokens:
            last = len(self.prompt) - 1
            return [Entry(t, at, sequence, at == last) for at, t in enumerate(self.prompt)]
        position = len(self.prompt) + len(self.tokens) - 1
        return [Entry(self.tokens[-1], position, sequence, True)]

    def take(self, row: Row, engine: Engine) -> None:
        """Choose the next token from `row` and see whether the answer ends."""
        token = self._sampler.choose(row).token
        if engine.model.vocab.is_end(token):
            self.reason = "stop"
        else:
            self.tokens.append(token)
            self.text += self._stream.feed(engine.model.vocab.piece(token))
            if self._stream.stopped_by is not None:
                self.reason = "stop"
            elif len(self.tokens) == self.limit:
                self.reason = "length"
        if self.reason:
            self.text += self._stream.feed(b"", last=True)

    def answer(self) -> Answer:
        return Answer(self.text, tuple(self.tokens), self.reason or "stop", len(self.prompt))


def generate_many(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    adapters: Sequence[AdapterRef],
    sampling: Sampling,
    on_done: Callable[[int, Answer], None] | None,
) -> list[Answer]:
    """See Engine.generate_many."""
    for prompt in prompts:
        engine.check_fits(prompt)
    waiting = deque(
        _Slot(index, prompt, min(sampling.max_tokens, engine.n_ctx - len(prompt)), sampling)
        for index, prompt in enumerate(prompts)
    )
    active: dict[int, _Slot] = {}
    answers: dict[int, Answer] = {}
    while waiting or active:
        admit(engine, waiting, active)
        entries = [entry for seq, slot in active.items() for entry in slot.entries(seq)]
        for entry, row in decode_rows(engine.context, entries):
            engine.check_finite(row, adapters)
            active[entry.sequence].take(row, engine)
        for sequence in [sequence for sequence, slot in active.items() if slot.reason]:
            slot = active.pop(sequence)
            engine.context.forget(sequence)
            answers[slot.index] = slot.answer()
            if on_done:
                on_done(slot.index, answers[slot.index])
    return [answers[index] for index in range(len(prompts))]


def admit(engine: Engine, waiting: deque[_Slot], active: dict[int, _Slot]) -> None:
    """Move waiting answers into free sequences as long as the cache can hold them to the end."""
    free = [seq for seq in range(engine.context.sequences) if seq not in active]
    used = sum(slot.cells for slot in active.values())
    while waiting and free and used + waiting[0].cells <= engine.n_ctx:
        slot = waiting.popleft()
        active[free.pop(0)] = slot
        used += slot.cells

"""One answer on its way: what is decoded of it, and what is said of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from skillc_runtime.adapters import AdapterRef, SetKey, set_key
from skillc_runtime.events import Event, Failed, Finish, Piece, Started
from skillc_runtime.grammar import Grammar
from skillc_runtime.llama import LoadedAdapter
from skillc_runtime.pieces import TextStream
from skillc_runtime.resident import Origin, Slot
from skillc_runtime.sampling import Row, Sampler, Sampling

if TYPE_CHECKING:
    from skillc_runtime.llama import Vocab

Sink = Callable[[Event | Failed], None]


class Task:
    """A prompt and, as they are chosen, the tokens of its answer; `sink` gets the events."""

    def __init__(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef],
        sampling: Sampling,
        sink: Sink,
        cancel: threading.Event | None = None,
        *,
        tail_from: int | None = None,
    ) -> None:
        """The adapters act from token `tail_from` on (None: on all), at the latest on the last."""
        self.tokens = list(prompt)
        self.prompt_tokens = len(self.tokens)
        self.adapters = tuple(adapters)
        self.sampling = sampling
        self.cancel = cancel or threading.Event()
        switch = 0 if tail_from is None else max(0, min(tail_from, len(self.tokens) - 1))
        self.origin = Origin(set_key(adapters), switch)
        self.attachment: tuple[LoadedAdapter, float] | None = None
        self.slot: Slot | None = None
        self.served = 0
        self.ended = False
        self._limit = sampling.max_tokens
        self._sink = sink
        self._stream = TextStream(sampling.stop)
        self._sampler: Sampler | None = None
        self._grammar: Grammar | None = None

    @property
    def done(self) -> int:
        """Tokens that are in the cache."""
        return len(self.slot.tokens) if self.slot is not None else 0

    @property
    def pending(self) -> int:
        """Tokens to decode before the next one can be chosen; 1 once the prompt is in."""
        return len(self.tokens) - self.done

    @property
    def acting(self) -> bool:
        """Whether the adapters act on the next token to decode."""
        return bool(self.origin.key) and self.done >= self.origin.switch

    @property
    def turn(self) -> SetKey:
        """The set under which the next tokens are decoded."""
        return self.origin.key if self.acting else ()

    @property
    def most(self) -> int:
        """The most cells that it will ever need."""
        return self.prompt_tokens + self._limit

    def bound(self, n_ctx: int) -> None:
        """End the answer, at the latest, where the context ends."""
        self._limit = min(self._limit, n_ctx - self.prompt_tokens)

    def begin(self, vocab: Vocab) -> None:
        """Prepare for choosing; ServeError when the grammar is refused."""
        text = self.sampling.grammar
        self._grammar = None if text is None else Grammar(vocab, text)
        self._sampler = Sampler(self.sampling, self._grammar)

    def started(self, cached: int) -> None:
        """Say that the set is attached and `cached` tokens need no decoding."""
        self._sink(Started(self.prompt_tokens, cached))

    def take(self, row: Row, vocab: Vocab) -> None:
        """Choose the next token from `row`, which is finite, and say so."""
        assert self._sampler is not None
        choice = self._sampler.choose(row)
        if vocab.is_end(choice.token):
            self._end(Finish("stop", self._rest()))
            return
        self.tokens.append(choice.token)
        self._sink(Piece(self._stream.feed(vocab.piece(choice.token)), choice))
        if self._stream.stopped_by is not None:
            self._end(Finish("stop", stopped_by=self._stream.stopped_by))
        elif len(self.tokens) - self.prompt_tokens >= self._limit:
            self._end(Finish("length", self._rest()))

    def cancelled(self) -> None:
        """End it because nobody waits for it."""
        self._end(Finish("cancelled", self._rest()))

    def fail(self, failure: Failed) -> None:
        """End it by an error."""
        self._end(failure)

    def free(self) -> None:
        """Give the grammar back, and choose no more."""
        self.ended = True
        if self._grammar is not None:
            self._grammar.free()
            self._grammar = None

    def _rest(self) -> str:
        return self._stream.feed(b"", last=True)

    def _end(self, event: Finish | Failed) -> None:
        self.free()
        self._sink(event)

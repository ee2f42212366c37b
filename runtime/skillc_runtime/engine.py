"""The engine: one base, one context, skill sets attached per request; knows nothing of HTTP.

Every call takes and returns plain data, so that a child process can host the engine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skillc_compiler.errors import ServeError
from skillc_runtime import batched
from skillc_runtime.adapters import AdapterCache, AdapterRef, SetKey, not_finite, set_key
from skillc_runtime.context import Context, Entry
from skillc_runtime.events import Answer, Event, Finish, Piece, Started
from skillc_runtime.grammar import Grammar
from skillc_runtime.llama import Model
from skillc_runtime.pieces import TextStream
from skillc_runtime.resident import CHUNK, Resident
from skillc_runtime.sampling import Row, Sampler, Sampling

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

DEFAULT_CONTEXT = 8192


class Engine:
    """Runs a base with any set of its adapters; callers take turns (one lock)."""

    def __init__(
        self,
        base: BaseInfo | Path,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        sequences: int = 16,
        max_adapters: int = 16,
        exact: bool = False,
    ) -> None:
        """Load the base; `exact` trades speed for a float32 cache, for parity checks.

        BaseModelError when the base cannot be read, ServeError when it leaves no context.
        """
        from skillc_compiler.gguf_base import read_base_info

        self.base = read_base_info(base) if isinstance(base, Path) else base
        self.model = Model(self.base.path)
        self.context = Context(
            self.model,
            n_ctx=n_ctx or min(self.base.context_length, DEFAULT_CONTEXT),
            n_threads=n_threads or default_threads(self.model.size),
            sequences=sequences,
            exact=exact,
        )
        self.adapters = AdapterCache(self.model, self.base, max_adapters)
        self._lock = threading.Lock()
        self._resident = Resident((), ())
        self._closed = False

    @property
    def n_ctx(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.context.n_ctx

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`; control tokens only with `special`."""
        return self.model.vocab.tokenize(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, control tokens left out."""
        return b"".join(map(self.model.vocab.piece, tokens)).decode("utf-8", "replace")

    def generate(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Answer `prompt`: one Started, then Pieces, then one Finish.

        Raises AdapterError (refused or set aside) or ServeError (prompt does not fit, native
        failure).  `cancel` ends it before the next decode.  Close the iterator or drain it.
        """
        sampling = sampling or Sampling()
        self.check_fits(prompt)
        with self.turn(adapters, keep=True):
            yield from self._answer(prompt, adapters, sampling, cancel or threading.Event())

    def answer(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
    ) -> Answer:
        """The whole answer to `prompt`; raises what `generate` raises."""
        text: list[str] = []
        tokens: list[int] = []
        answer = Answer("", (), "stop", len(prompt))
        for event in self.generate(prompt, adapters, sampling):
            if isinstance(event, Started):
                answer = replace(answer, cached_tokens=event.cached_tokens)
            elif isinstance(event, Piece):
                text.append(event.text)
                tokens.append(event.choice.token)
            else:
                text.append(event.text)
                answer = replace(answer, finish_reason=event.reason)
        return replace(answer, text="".join(text), tokens=tuple(tokens))

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        on_done: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Answer many prompts under one set, several sequences in each decode.

        Logits may differ from `generate`'s in the last bits: kernels depend on the batch.
        """
        sampling = sampling or Sampling()
        if sampling.grammar is not None:
            raise ServeError("a grammar holds for one answer at a time: use generate")
        with self.turn(adapters):
            return batched.generate_many(self, prompts, adapters, sampling, on_done)

    def logits(
        self, tokens: Sequence[int], adapters: Sequence[AdapterRef] = (), *, start: int = 0
    ) -> Row:
        """Logits after each token from `start` on: float32 [len(tokens) - start, vocabulary]."""
        self.check_fits(tokens)
        with self.turn(adapters):
            return batched.logits(self, tokens, adapters, start)

    def score_many(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        adapters: Sequence[AdapterRef] = (),
    ) -> list[batched.Score]:
        """Teacher-forced scores of (prompt, target) token pairs under one set."""
        with self.turn(adapters):
            return batched.score_many(self, pairs, adapters)

    def score(
        self, prompt: Sequence[int], target: Sequence[int], adapters: Sequence[AdapterRef] = ()
    ) -> batched.Score:
        """Teacher-forced score of `target` after `prompt`."""
        return self.score_many([(prompt, target)], adapters)[0]

    def close(self) -> None:
        """Free adapters, context and weights; what is called afterwards raises ServeError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.context.attach(None)
            self.adapters.close()
            self.context.close()
            self.model.close()

    def check_fits(self, prompt: Sequence[int]) -> None:
        """ServeError unless `prompt` has a token and leaves room for one."""
        if not prompt:
            raise ServeError("the prompt has no tokens")
        if len(prompt) >= self.n_ctx:
            raise ServeError(f"a prompt of {len(prompt)} tokens: the context has {self.n_ctx}")

    def check_finite(self, row: Row, adapters: Sequence[AdapterRef]) -> None:
        """BadAdapterError, and the set is refused from now on, when `row` is not finite."""
        if np.isfinite(row).all():
            return
        self._resident = Resident((), ())
        self.context.clear(data=True)
        self.adapters.quarantine(adapters)
        if not adapters:
            raise ServeError(f"{self.base.path}: the base computes NaN or infinity")
        raise not_finite(set_key(adapters))

    @contextmanager
    def turn(self, adapters: Sequence[AdapterRef], *, keep: bool = False) -> Iterator[None]:
        """The caller's turn with `adapters` attached; `keep` leaves the prefix in the cache."""
        with self._lock:
            if self._closed:
                raise ServeError("the engine is closed")
            attachment = self.adapters.get(adapters)
            self.context.attach(attachment)
            self.adapters.trim(attachment[0] if attachment else None)
            if not keep:
                self._start_empty()
            try:
                yield
            except GeneratorExit:  # the caller lost interest between two decodes: nothing is torn
                raise
            except BaseException:
                self._start_empty()
                raise
            if not keep:
                self._start_empty()

    def _start_empty(self) -> None:
        self._resident = Resident((), ())
        self.context.forget()

    def _answer(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef],
        sampling: Sampling,
        cancel: threading.Event,
    ) -> Iterator[Event]:
        key = set_key(adapters)
        start = self._resident.shared(key, prompt)
        if not self.context.forget(0, start):
            start = 0
            self._start_empty()
        yield Started(len(prompt), start)
        if not self._prefill(prompt, start, key, cancel):
            yield Finish("cancelled")
            return
        row = self.context.row((len(prompt) - start - 1) % CHUNK)
        text = sampling.grammar
        grammar = None if text is None else Grammar(self.model.vocab, text)
        try:
            yield from self._decode(prompt, adapters, row, Sampler(sampling, grammar), cancel)
        finally:
            if grammar is not None:
                grammar.free()

    def _decode(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef],
        row: Row,
        sampler: Sampler,
        cancel: threading.Event,
    ) -> Iterator[Event]:
        sampling = sampler.sampling
        stream = TextStream(sampling.stop)
        room = min(sampling.max_tokens, self.n_ctx - len(prompt))
        for step in range(room):
            self.check_finite(row, adapters)
            choice = sampler.choose(row)
            if self.model.vocab.is_end(choice.token):
                yield Finish("stop", stream.feed(b"", last=True))
                return
            yield Piece(stream.feed(self.model.vocab.piece(choice.token)), choice)
            if stream.stopped_by is not None:
                yield Finish("stop", stopped_by=stream.stopped_by)
                return
            if cancel.is_set():
                yield Finish("cancelled", stream.feed(b"", last=True))
                return
            if step + 1 < room:
                self.context.decode([Entry(choice.token, len(prompt) + step, output=True)])
                row = self.context.row(0)
        yield Finish("length", stream.feed(b"", last=True))

    def _prefill(
        self, prompt: Sequence[int], start: int, key: SetKey, cancel: threading.Event
    ) -> bool:
        """Decode `prompt` from `start` on in chunks; False when cancelled on the way."""
        for at in range(start, len(prompt), CHUNK):
            # Until the chunk is in, only what lies before it may be found by the next request.
            self._resident = Resident(key, tuple(prompt[:at]))
            if cancel.is_set():
                return False
            chunk = prompt[at : at + CHUNK]
            last = len(prompt) - 1
            self.context.decode(
                [Entry(token, at + i, output=at + i == last) for i, token in enumerate(chunk)]
            )
        self._resident = Resident(key, tuple(prompt[: len(prompt) // CHUNK * CHUNK]))
        return True


def default_threads(weight_bytes: int) -> int:
    """Threads for a base of this size: all cores of this process up to 8, one for small bases.

    Below 64 MiB waking a second thread for every layer costs more than it computes.
    """
    if weight_bytes < 64 << 20:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores or 1))

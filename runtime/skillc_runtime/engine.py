"""The engine: one base, one context, skill sets attached per request; knows nothing of HTTP.

Every call takes and returns plain data, so that a child process can host the engine.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skillc_compiler.errors import ServeError
from skillc_runtime import batched
from skillc_runtime.adapters import AdapterCache, AdapterRef, not_finite, set_key
from skillc_runtime.context import Context
from skillc_runtime.counts import Counts
from skillc_runtime.events import Answer, Event, Failed, Piece, Started
from skillc_runtime.llama import Model
from skillc_runtime.sampling import Row, Sampling
from skillc_runtime.scheduler import Scheduler
from skillc_runtime.settings import served_context
from skillc_runtime.task import Task

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

_SMALL = 64 << 20  # bytes of weights
_CACHE_BYTES = 64 << 20
_SPARE = 256


class Engine:
    """Runs a base with any set of its adapters.

    `submit` and `step` answer many prompts at once; whoever calls another method has the engine
    for itself meanwhile (one lock).
    """

    def __init__(
        self,
        base: BaseInfo | Path,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        sequences: int = 16,
        max_adapters: int = 16,
        exact: bool = False,
        repeatable: bool | None = None,
        snapshot_bytes: int = 128 << 20,
    ) -> None:
        """Load the base; `exact` trades speed for a float32 cache, for parity checks.

        `repeatable` (default: for small bases) trades speed for answers that do not depend, to
        the last bit, on what is answered at the same time or was before.  `snapshot_bytes` is what
        copies of prompts that left the context may take in memory.

        BaseModelError when the base cannot be read, ServeError when it leaves no context.
        """
        from skillc_compiler.gguf_base import read_base_info

        self.base = read_base_info(base) if isinstance(base, Path) else base
        self.n_ctx = served_context(self.base.context_length, n_ctx)
        """Tokens that prompt and answer may have together."""
        self.model = Model(self.base.path)
        self.context = Context(
            self.model,
            cells=cache_cells(self.base, self.n_ctx, sequences) + _SPARE,
            n_threads=n_threads or default_threads(self.model.size),
            sequences=sequences,
            exact=exact,
        )
        self.adapters = AdapterCache(self.model, self.base, max_adapters)
        if repeatable is None:
            repeatable = not exact and self.model.size < _SMALL
        self.scheduler = Scheduler(
            self.context,
            self.adapters,
            self.model.vocab,
            n_ctx=self.n_ctx,
            repeatable=repeatable and not self.context.recurrent,
            snapshot_bytes=snapshot_bytes,
        )
        self._lock = threading.Lock()
        self._closed = False

    @property
    def counts(self) -> Counts:
        """What has been decoded so far, and what is kept."""
        counts = self.scheduler.counts
        counts.copied = self.scheduler.slots.snapshots.size
        return counts

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
        *,
        tail_from: int | None = None,
    ) -> Iterator[Event]:
        """Answer `prompt`: one Started, then Pieces, then one Finish.

        With `tail_from` the adapters act from that token of the prompt on; what lies before it is
        the bare base's, and all sets share it.  Raises AdapterError (refused or set aside) or
        ServeError (prompt does not fit, native failure).  `cancel` ends it before the next decode.
        Close the iterator or drain it: others wait until then.
        """
        events: deque[Event | Failed] = deque()
        task = Task(
            prompt, adapters, sampling or Sampling(), events.append, cancel, tail_from=tail_from
        )
        with self._open():
            self.submit(task)
            try:
                while events or not task.ended:
                    while events:
                        if isinstance(event := events.popleft(), Failed):
                            raise event.error
                        yield event
                    if not task.ended:
                        self.scheduler.step()
            finally:
                self.scheduler.drop(task)

    def submit(self, task: Task) -> None:
        """Take a task that `step` works on; ServeError when its prompt does not fit."""
        self.check_fits(task.tokens)
        self.scheduler.submit(task)

    def step(self) -> bool:
        """Do the next piece of what was submitted; whether there is more to do."""
        with self._open():
            self.scheduler.step()
            return not self.scheduler.idle

    def answer(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        *,
        tail_from: int | None = None,
    ) -> Answer:
        """The whole answer to `prompt`; see `generate`."""
        text: list[str] = []
        tokens: list[int] = []
        answer = Answer("", (), "stop", len(prompt))
        for event in self.generate(prompt, adapters, sampling, tail_from=tail_from):
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
        self.context.clear(data=True)
        self.adapters.quarantine(adapters)
        if not adapters:
            raise ServeError(f"{self.base.path}: the base computes NaN or infinity")
        raise not_finite(set_key(adapters))

    @contextmanager
    def turn(self, adapters: Sequence[AdapterRef]) -> Iterator[None]:
        """The empty context with `adapters` attached, for the caller alone."""
        with self._open():
            self.scheduler.lose()
            try:
                attachment = self.adapters.get(adapters)
                self.context.attach(attachment)
                mine = {attachment[0]} if attachment else set()
                self.adapters.trim(mine | self.scheduler.in_use)
                yield
            finally:
                self.scheduler.lose()

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ServeError("the engine is closed")
            yield


def cache_cells(base: BaseInfo, n_ctx: int, sequences: int) -> int:
    """Cells for a context: `n_ctx` at least, for small bases more, so that answers fit together."""
    keys = ("head_count_kv", "key_length", "value_length")
    shape = [base.metadata.get(f"{base.arch}.attention.{key}") for key in keys]
    sizes = [size for size in shape if isinstance(size, int) and size > 0]
    if len(sizes) < len(keys):
        return n_ctx
    width = 2 * base.n_layers * sizes[0] * (sizes[1] + sizes[2])
    return max(n_ctx, min(n_ctx * sequences, _CACHE_BYTES // width))


def default_threads(weight_bytes: int) -> int:
    """Threads for a base of this size: all cores of this process up to 8, one for small bases.

    For small ones waking a second thread for every layer costs more than it computes.
    """
    if weight_bytes < _SMALL:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores or 1))

"""What the server needs of an engine that is in another process: its vocabulary, and answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skillc_runtime.adapters import AdapterCache, AdapterRef
from skillc_runtime.counts import Counts
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish
from skillc_runtime.llama import Model
from skillc_runtime.sampling import Sampling
from skillc_runtime.worker import Cancel, Job, Worker

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo


class RemoteEngine(Engine):
    """Answers through `worker`; what needs the context for itself is not to be had."""

    def __init__(self, base: BaseInfo, worker: Worker) -> None:
        self.base = base
        self.model = Model(base.path, vocabulary_only=True)
        self.n_ctx = base.context_length
        self.adapters = self._counted = _Counted()
        self._counts = Counts()
        self._worker = worker

    def take_counts(self, loaded: int, loads: int, *counts: int) -> None:
        """What the process says of itself."""
        self._counted.loaded, self._counted.loads = loaded, loads
        self._counts = Counts(*counts)

    @property
    def counts(self) -> Counts:
        """See `Engine.counts`, as of the last answer that ended."""
        return self._counts

    def generate(
        self,
        prompt: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        cancel: threading.Event | None = None,
        *,
        tail_from: int | None = None,
    ) -> Iterator[Event]:
        """See `Engine.generate`; others do not wait meanwhile."""
        arrived = threading.Semaphore(0)
        events: deque[Event | Failed] = deque()

        def listen(event: Event | Failed, at: float) -> None:
            events.append(event)
            arrived.release()

        self.check_fits(prompt)
        asked = sampling or Sampling()
        job = Job(tuple(prompt), tuple(adapters), asked, listen, Cancel(), tail_from)
        self._worker.submit(job)
        try:
            while True:
                arrived.acquire()
                event = events.popleft()
                if isinstance(event, Failed):
                    raise event.error
                yield event
                if isinstance(event, Finish):
                    return
                if cancel is not None and cancel.is_set():
                    job.cancel.set()
        finally:
            job.cancel.set()

    def close(self) -> None:
        """Free the vocabulary."""
        self.model.close()


class _Counted(AdapterCache):
    """How many adapters another process has loaded."""

    def __init__(self) -> None:
        self.loaded = self.loads = 0

    def __len__(self) -> int:
        return self.loaded

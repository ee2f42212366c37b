"""The thread that owns the engine: a bounded queue of jobs in, events out."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.counts import Counts
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish
from skillc_runtime.sampling import Sampling
from skillc_runtime.task import Task

log = logging.getLogger("skillc")

__all__ = ["Cancel", "Failed", "Job", "QueueFullError", "Worker"]


class QueueFullError(ServeError):
    """As many requests wait as are allowed to."""


class Cancel(threading.Event):
    """Set when nobody waits for an answer any more; tells one other of it."""

    def __init__(self) -> None:
        super().__init__()
        self._teller: Callable[[], None] | None = None

    def tell(self, teller: Callable[[], None]) -> None:
        """Call `teller` when it is set."""
        self._teller = teller
        if self.is_set():
            teller()

    def set(self) -> None:
        """Say that nobody waits."""
        told = self.is_set()
        super().set()
        if self._teller is not None and not told:
            self._teller()


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to answer; `listener` gets (event, perf_counter seconds) on the worker's thread.

    With `tail_from` the adapters act from that token on, see `Engine.generate`.
    """

    prompt: tuple[int, ...]
    adapters: tuple[AdapterRef, ...]
    sampling: Sampling
    listener: Callable[[Event | Failed, float], None]
    cancel: Cancel = field(default_factory=Cancel)
    tail_from: int | None = None


class Worker:
    """Loads an engine and answers jobs, as many at once as it can."""

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        waiting: int = 32,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        """`after_step` is called on the worker's thread whenever events may have been sent."""
        self._load = load
        self._after_step = after_step
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._most = waiting
        self._thread = threading.Thread(target=self._run, name="skillc-engine", daemon=True)
        self._engine: Engine | None = None
        self._current: set[threading.Event] = set()
        self._stopping = False
        self.loaded = threading.Event()
        self._failed: SkillcError | None = None

    @property
    def engine(self) -> Engine:
        """The engine; ServeError until it is loaded."""
        if self._engine is None:
            raise ServeError("the base is not loaded")
        return self._engine

    @property
    def failure(self) -> SkillcError | None:
        """Why no job will be answered any more, if so."""
        return self._failed

    @property
    def away(self) -> bool:
        """Whether the engine is gone and the next one does not answer yet; here it never is."""
        return False

    @property
    def counts(self) -> Counts:
        """What the engine has done so far; ServeError until it is loaded."""
        return self.engine.counts

    @property
    def adapters(self) -> tuple[int, int]:
        """How many adapters are loaded, and were; ServeError until the engine is loaded."""
        return len(self.engine.adapters), self.engine.adapters.loads

    @property
    def waiting(self) -> int:
        """Jobs not yet begun."""
        begun = self._engine.scheduler.waiting if self._engine is not None else 0
        return self._jobs.qsize() + begun

    def start(self) -> None:
        """Begin to load the base; `loaded` is set when that succeeded or failed."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; QueueFullError when too many wait.  Call it from one thread only."""
        if self._stopping:
            raise QueueFullError("the server is stopping")
        if self.waiting >= self._most:
            raise QueueFullError(f"{self.waiting} requests wait already")
        self._jobs.put(job)

    def abort(self) -> None:
        """Cancel the jobs that run and those that wait; no new ones are taken."""
        self._stopping = True
        for cancel in list(self._current):
            cancel.set()

    def close(self) -> None:
        """Abort, and free the engine."""
        self.abort()
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._engine = self._load()
        except SkillcError as error:
            self._failed = error
        except Exception as error:
            log.exception("loading the base failed")
            self._failed = ServeError(f"loading the base failed: {error}")
        self.loaded.set()
        busy, closing = False, False
        while busy or not closing:
            closing = self._take_jobs(wait=not busy) or closing
            busy = self._step()
            self._after_step()
        if self._engine is not None:
            self._engine.close()

    def _take_jobs(self, *, wait: bool) -> bool:
        """Hand over the jobs that came; whether the worker was told to close."""
        while True:
            try:
                job = self._jobs.get(block=wait)
            except queue.Empty:
                return False
            if job is None:
                return True
            self._begin(job)
            wait = False

    def _begin(self, job: Job) -> None:
        def listen(event: Event | Failed) -> None:
            if isinstance(event, Failed | Finish):
                self._current.discard(job.cancel)
            try:
                job.listener(event, perf_counter())
            except RuntimeError:  # the listener's event loop is gone, and its client with it
                job.cancel.set()

        self._current.add(job.cancel)  # before the look at _stopping: abort() sets it, looks here
        if self._stopping:
            listen(Finish("cancelled"))
            return
        try:
            self.engine.submit(
                Task(
                    job.prompt,
                    job.adapters,
                    job.sampling,
                    listen,
                    job.cancel,
                    tail_from=job.tail_from,
                )
            )
        except SkillcError as error:
            listen(Failed(error))

    def _step(self) -> bool:
        """One step of the engine; whether there is more to do."""
        if self._engine is None:
            return False
        try:
            return self._engine.step()
        except Exception as error:
            log.exception("the engine failed")
            line = f"internal error: {type(error).__name__}"
            self._engine.scheduler.fail_all(Failed(ServeError(line)))
            return False

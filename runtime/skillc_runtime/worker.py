"""The thread that owns the engine: a bounded queue of jobs in, events out.

A child process can take this place later: jobs and events are plain data.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Finish
from skillc_runtime.sampling import Sampling

log = logging.getLogger("skillc")


class QueueFullError(ServeError):
    """As many requests wait as are allowed to."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended with an error."""

    error: SkillcError


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to answer; `listener` gets (event, perf_counter seconds) on the worker's thread."""

    prompt: tuple[int, ...]
    adapters: tuple[AdapterRef, ...]
    sampling: Sampling
    listener: Callable[[Event | Failed, float], None]
    cancel: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Loads an engine and answers jobs in the order they came."""

    def __init__(self, load: Callable[[], Engine], *, waiting: int = 32) -> None:
        self._load = load
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._most = waiting
        self._thread = threading.Thread(target=self._run, name="skillc-engine", daemon=True)
        self._engine: Engine | None = None
        self._current: Job | None = None
        self._stopping = False
        self.loaded = threading.Event()
        self.failure: SkillcError | None = None

    @property
    def engine(self) -> Engine:
        """The engine; ServeError until it is loaded."""
        if self._engine is None:
            raise ServeError("the base is not loaded")
        return self._engine

    @property
    def waiting(self) -> int:
        """Jobs not yet begun."""
        return self._jobs.qsize()

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
        """Cancel the job that runs and those that wait; no new ones are taken."""
        self._stopping = True
        if current := self._current:
            current.cancel.set()

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
            self.failure = error
        except Exception as error:
            log.exception("loading the base failed")
            self.failure = ServeError(f"loading the base failed: {error}")
        self.loaded.set()
        while (job := self._jobs.get()) is not None:
            self._current = job  # before the look at _stopping: abort() sets it, then looks here
            if self._stopping:
                self._tell(job, Finish("cancelled"))
            else:
                self._answer(job)
            self._current = None
        if self._engine is not None:
            self._engine.close()

    def _answer(self, job: Job) -> None:
        try:
            for event in self.engine.generate(job.prompt, job.adapters, job.sampling, job.cancel):
                self._tell(job, event)
        except SkillcError as error:
            self._tell(job, Failed(error))
        except Exception as error:
            log.exception("a request failed")
            self._tell(job, Failed(ServeError(f"internal error: {type(error).__name__}")))

    def _tell(self, job: Job, event: Event | Failed) -> None:
        try:
            job.listener(event, perf_counter())
        except RuntimeError:  # the listener's event loop is gone, and its client with it
            job.cancel.set()

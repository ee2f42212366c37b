"""An engine in a process of its own: when native code ends that process, the server lives on.

Requests that the process had then end with an error that asks to try again; a new one is started.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime import wire
from skillc_runtime.events import Event, Failed, Finish
from skillc_runtime.process import Process, describe, shut
from skillc_runtime.remote_engine import RemoteEngine
from skillc_runtime.worker import Job, QueueFullError, Worker

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

log = logging.getLogger("skillc")

_TRIES = 3
_PATIENCE = 10.0  # seconds for answers to end


class EngineLostError(ServeError):
    """The engine's process ended while it had the request; a new one is being started."""

    retry_after = 1  # seconds


class ProcessWorker(Worker):
    """Takes jobs as `Worker` does; another process answers them."""

    def __init__(self, base: BaseInfo, options: dict[str, Any], *, waiting: int = 32) -> None:
        """`options` are the keywords of `Engine`, as JSON can hold them."""
        super().__init__(lambda: RemoteEngine(base, self), waiting=waiting)
        self._path = base.path
        self._options = options
        self._thread = threading.Thread(target=self._supervise, name="skillc-engine", daemon=True)
        self._numbers = itertools.count()
        self._turn = threading.RLock()  # guards all below, and the order of what is sent
        self._asked: dict[int, Job] = {}
        self._unsent: deque[int] = deque()
        self._unbegun: set[int] = set()
        self._link: socket.socket | None = None
        self._process: Process | None = None
        self._closing = False
        self._idle = threading.Event()
        self._idle.set()
        self.restarts = 0

    @property
    def waiting(self) -> int:
        """Jobs not yet begun."""
        return len(self._unbegun)

    @property
    def busy(self) -> int:
        """Jobs not yet ended."""
        return len(self._asked)

    @property
    def pid(self) -> int | None:
        """The engine's process; None while there is none."""
        process = self._process
        return process.pid if process is not None else None

    @property
    def away(self) -> bool:
        """Whether the process has ended and the next one does not answer yet."""
        return self.loaded.is_set() and self._link is None and not self._closing

    def submit(self, job: Job) -> None:
        """Queue a job; QueueFullError when too many wait."""
        with self._turn:
            if self._stopping:
                raise QueueFullError("the server is stopping")
            if self.waiting >= self._most:
                raise QueueFullError(f"{self.waiting} requests wait already")
            if self.failure is None:
                number = next(self._numbers)
                self._asked[number] = job
                self._unbegun.add(number)
                self._unsent.append(number)
                self._idle.clear()
                job.cancel.tell(lambda: self._cancel(number))
                self._send_unsent()
                return
        _tell(job, Failed(self.failure))

    def abort(self) -> None:
        """Cancel the jobs that run and those that wait; no new ones are taken."""
        with self._turn:
            self._stopping = True
            if self._link is not None:
                self._send(["abort"])
                return
        self._end_all(Finish("cancelled"))

    def close(self) -> None:
        """Abort, and end the process."""
        self.abort()
        self._idle.wait(_PATIENCE)
        with self._turn:
            self._closing = True
            link = self._link
        if link is not None:
            shut(link)
        if self._thread.is_alive():
            self._thread.join()
        if self._engine is not None:
            self._engine.close()

    def _supervise(self) -> None:
        tries = 0
        while tries < _TRIES and not self._closing and self.failure is None:
            tries = 1 if self._run_once() else tries + 1
            if not self._closing and self.failure is None:
                self.restarts += 1
        if self.failure is None and not self._closing:
            self._failed = ServeError("the engine's process ends again and again")
        self._end_all(Finish("cancelled") if self._closing else Failed(self._reason()))
        self.loaded.set()

    def _reason(self) -> SkillcError:
        return self.failure or ServeError("the engine is closed")

    def _run_once(self) -> bool:
        """One life of the process; whether it got as far as answering."""
        process = self._process = Process()
        was_ready = False
        try:
            wire.send(process.link, [str(self._path), self._options])
            for kind, *values in wire.messages(process.link):
                was_ready = self._take(process.link, kind, values) or was_ready
        except OSError as error:
            log.warning("the engine's process: %s", error)
        with self._turn:
            self._link = self._process = None
        code = process.end()
        if not self._closing and self.failure is None:
            self._lost(describe(code))
        return was_ready

    def _take(self, link: socket.socket, kind: str, values: list[Any]) -> bool:
        if kind == "event":
            self._hear(values[0], wire.unpack_event(*values[1:]))
        elif kind == "counts":
            if isinstance(self._engine, RemoteEngine):
                self._engine.take_counts(*values)
        elif kind == "failed":
            self._failed = wire.unpack_error(values[0], values[1])
        elif kind == "ready":
            self._ready(link, *values)
            return True
        return False

    def _ready(self, link: socket.socket, n_ctx: int) -> None:
        if self._engine is None:
            try:
                self._engine = self._load()
                self._engine.n_ctx = n_ctx
            except SkillcError as error:
                self._failed = error
                shut(link)
                return
        with self._turn:
            self._link = link
            self._send_unsent()
            if self._stopping:
                self._send(["abort"])
        self.loaded.set()

    def _hear(self, number: int, event: Event | Failed) -> None:
        with self._turn:
            job = self._asked.get(number)
            self._unbegun.discard(number)
            if isinstance(event, Finish | Failed):
                self._forget(number)
        if job is not None:
            _tell(job, event)

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)
        self._unbegun.discard(number)
        if not self._asked:
            self._idle.set()

    def _lost(self, reason: str) -> None:
        """End the jobs that the process had."""
        with self._turn:
            gone = [number for number in self._asked if number not in self._unsent]
            jobs = [self._asked[number] for number in gone]
            for number in gone:
                self._forget(number)
        line = f"the engine's process ended ({reason}); it is started again"
        log.warning("%s", line)
        for job in jobs:
            _tell(job, Finish("cancelled") if self._stopping else Failed(EngineLostError(line)))

    def _end_all(self, event: Finish | Failed) -> None:
        with self._turn:
            jobs = list(self._asked.values())
            self._unsent.clear()
            for number in list(self._asked):
                self._forget(number)
        for job in jobs:
            _tell(job, event)

    def _cancel(self, number: int) -> None:
        with self._turn:
            job = self._asked.get(number)
            unsent = number in self._unsent
            if unsent:
                self._unsent.remove(number)
                self._forget(number)
            elif job is not None:
                self._send(["cancel", number])
        if unsent and job is not None:
            _tell(job, Finish("cancelled"))

    def _send_unsent(self) -> None:
        while self._unsent and self._link is not None:
            number = self._unsent.popleft()
            job = self._asked[number]
            asked = wire.pack_job(job.prompt, job.adapters, job.sampling, job.tail_from)
            self._send(["ask", number, *asked])

    def _send(self, message: list[Any]) -> None:
        if self._link is None:
            return
        try:
            wire.send(self._link, message)
        except OSError:  # it has just ended; the thread that reads will see to that
            self._link = None


def _tell(job: Job, event: Event | Failed) -> None:
    try:
        job.listener(event, perf_counter())
    except RuntimeError:  # the listener's event loop is gone, and its client with it
        job.cancel.set()

"""The engine's own process: `python -m skillc_runtime.child NUMBER`, started by `remote.py`.

NUMBER is an open socket. The first message says which base to load and how; when the socket ends,
so does the process.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import astuple
from pathlib import Path
from typing import Any

from skillc_runtime import heap, wire
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish
from skillc_runtime.worker import Cancel, Job, Worker


class Child:
    """Answers what arrives on `link`."""

    def __init__(self, link: socket.socket, worker: Worker) -> None:
        self._link = link
        self._worker = worker
        self._cancels: dict[int, Cancel] = {}
        self._told: list[int] = []
        self._turn = threading.Lock()

    def take(self, kind: str, *values: Any) -> None:
        """Do what one message says."""
        if kind == "ask":
            self._ask(*values)
        elif kind == "cancel":
            if cancel := self._cancels.get(values[0]):
                cancel.set()
        elif kind == "abort":
            self._worker.abort()

    def say(self, message: list[Any]) -> None:
        """Send a message, from any thread."""
        with self._turn:
            wire.send(self._link, message)

    def _ask(self, number: int, *asked: Any) -> None:
        prompt, adapters, sampling, tail_from = wire.unpack_job(*asked)
        cancel = self._cancels[number] = Cancel()

        def listen(event: Event | Failed, at: float) -> None:
            if isinstance(event, Finish | Failed):
                self._cancels.pop(number, None)
                self._tell_counts()
            try:
                self.say(["event", number, *wire.pack_event(event)])
            except OSError:  # the server is gone; this process ends with its next read
                cancel.set()

        self._worker.submit(Job(prompt, adapters, sampling, listen, cancel, tail_from))

    def _tell_counts(self) -> None:
        told = [*self._worker.adapters, *astuple(self._worker.counts)]
        if told != self._told:
            self._told = told
            self.say(["counts", *told])


def main(number: int) -> None:
    """Serve the socket with that number until it ends."""
    heap.keep_large_blocks_apart()
    link = socket.socket(fileno=number)
    arriving = wire.messages(link)
    base, options = next(arriving)
    worker = Worker(lambda: Engine(Path(base), **options), waiting=1 << 30)
    worker.start()
    worker.loaded.wait()
    child = Child(link, worker)
    if worker.failure is not None:
        child.say(["failed", *wire.pack_error(worker.failure)])
        return
    child.say(["ready", worker.engine.n_ctx])
    for message in arriving:
        child.take(*message)
    # Nobody is left to answer to: no need to wait for what is being decoded.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

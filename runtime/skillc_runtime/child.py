"""The engine's own process: `python -m skillc_runtime.child NUMBER`, started by `remote.py`.

NUMBER is an open socket. The first message says which base to load and how; when the socket ends,
so does the process.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from skillc_runtime import heap, wire
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish, Started
from skillc_runtime.worker import Cancel, Job, Worker


class Child:
    """Answers what arrives on `link`.

    What a step of the engine gives is sent at its end: whoever is told wakes up, which takes time.
    """

    def __init__(self, link: socket.socket, load: Callable[[], Engine]) -> None:
        self.worker = Worker(load, waiting=1 << 30, after_step=self._send)
        self._link = link
        self._cancels: dict[int, Cancel] = {}
        self._told: list[int] = []
        self._unsent: list[list[Any]] = []

    def take(self, kind: str, *values: Any) -> None:
        """Do what one message says."""
        if kind == "ask":
            self._ask(*values)
        elif kind == "cancel":
            if cancel := self._cancels.get(values[0]):
                cancel.set()
        elif kind == "abort":
            self.worker.abort()

    def _ask(self, number: int, *asked: Any) -> None:
        prompt, adapters, sampling, tail_from = wire.unpack_job(*asked)
        cancel = self._cancels[number] = Cancel()

        def listen(event: Event | Failed, at: float) -> None:
            if isinstance(event, Finish | Failed):
                self._cancels.pop(number, None)
                self._tell_counts()
            self._unsent.append(["event", number, *wire.pack_event(event)])
            if isinstance(event, Started):  # the server says so while the prompt is decoded
                self._send()

        self.worker.submit(Job(prompt, adapters, sampling, listen, cancel, tail_from))

    def _tell_counts(self) -> None:
        told = [*self.worker.adapters, *astuple(self.worker.counts)]
        if told != self._told:
            self._told = told
            self._unsent.append(["counts", *told])

    def _send(self) -> None:
        """Say what there is to say; from the worker's thread, as all that is to be said."""
        if self._unsent:
            messages, self._unsent = self._unsent, []
            # Where the server is gone, this process ends with its next read.
            with suppress(OSError):
                wire.send(self._link, *messages)


def main(number: int) -> None:
    """Serve the socket with that number until it ends."""
    heap.keep_large_blocks_apart()
    link = socket.socket(fileno=number)
    arriving = wire.messages(link)
    base, options = next(arriving)
    child = Child(link, lambda: Engine(Path(base), **options))
    child.worker.start()
    child.worker.loaded.wait()
    if child.worker.failure is not None:
        wire.send(link, ["failed", *wire.pack_error(child.worker.failure)])
        return
    wire.send(link, ["ready", child.worker.engine.n_ctx])
    for message in arriving:
        child.take(*message)
    # Nobody is left to answer to: no need to wait for what is being decoded.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

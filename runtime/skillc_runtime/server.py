"""Running the server: in the foreground until a signal, or in a thread for a block."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime.app import create_app
from skillc_runtime.engine import Engine, default_threads
from skillc_runtime.foreground import (
    Foreground,
    check_open,
    listen,
    until_signal,
    url_of,
    uvicorn_config,
)
from skillc_runtime.pool import WorkerPool
from skillc_runtime.registry import Registry
from skillc_runtime.remote import ProcessWorker
from skillc_runtime.settings import ServeSettings
from skillc_runtime.worker import Worker

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

_LAST_WORDS = 2  # seconds for answers that were cut short to say so


class Server:
    """A server bound to its port; `run` blocks until `stop`.

    Raises BaseModelError or ServeError when the base cannot be read or the address not be had.
    """

    def __init__(
        self, settings: ServeSettings, on_ready: Callable[[str], None] | None = None
    ) -> None:
        from skillc_compiler.gguf_base import read_base_info

        check_open(settings.host, settings.token)
        base = read_base_info(settings.base)
        self._socket = listen(settings.host, settings.port)
        self.url = url_of(self._socket)
        self.worker = make_worker(base, settings)
        self.registry = Registry(settings.project, base, settings.name)
        self.ready = threading.Event()
        self._on_ready = on_ready
        app = create_app(self.worker, self.registry, settings, self._loaded)
        self.uvicorn = _Uvicorn(
            self.worker,
            settings.stop_seconds,
            uvicorn_config(app, settings.stop_seconds + _LAST_WORDS),
        )

    @property
    def started(self) -> bool:
        """Whether requests are taken, if only to say that the base is loading."""
        return self.uvicorn.started

    def run(self) -> None:
        """Serve until `stop`; ServeError or BaseModelError when the base does not load."""
        try:
            self.uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.ready.set()
        if self.worker.failure is not None:
            raise self.worker.failure

    def stop(self, *, force: bool = False) -> None:
        """End `run`: open answers get `stop_seconds`, none when forced a second time."""
        self.uvicorn.stop(force=force)

    def _loaded(self) -> None:
        if self.worker.failure is not None:
            self.stop()
            return
        self.ready.set()
        if self._on_ready is not None:
            self._on_ready(self.url)


class _Uvicorn(Foreground):
    """Ends open answers itself."""

    def __init__(self, worker: Worker, patience: float, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._worker = worker
        self._patience = patience

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._patience, self._worker.abort)
        await super().shutdown(sockets)


def make_worker(base: BaseInfo, settings: ServeSettings) -> Worker:
    """What answers: an engine in a process of its own, or in this one."""
    options: dict[str, Any] = {
        "n_ctx": settings.n_ctx,
        "n_threads": settings.n_threads,
        "max_adapters": settings.max_adapters,
    }
    if settings.in_process:
        return Worker(lambda: Engine(base, **options), waiting=settings.max_waiting)
    waiting = settings.max_waiting
    if settings.engines == 1:
        return ProcessWorker(base, options, waiting=waiting)
    if settings.n_threads is None:
        alone = default_threads(base.path.stat().st_size)
        options["n_threads"] = max(1, alone // settings.engines)
    members = [ProcessWorker(base, options, waiting=waiting) for _ in range(settings.engines)]
    return WorkerPool(members, waiting=waiting)


def serve(settings: ServeSettings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve from the main thread until SIGINT or SIGTERM.

    `on_ready` gets the URL once requests can be answered.

    Raises BaseModelError or ServeError, each one line, when it cannot.
    """
    server = Server(settings, on_ready)
    until_signal(server.uvicorn, server.run)


@contextmanager
def running(settings: ServeSettings) -> Iterator[Server]:
    """A server in a thread of this process for the block, ready when the block begins."""
    server = Server(settings)
    thread = threading.Thread(target=_run_quietly, args=(server,), name="skillc-server")
    thread.start()
    try:
        server.ready.wait()
        if server.worker.failure is not None:
            raise server.worker.failure
        if not thread.is_alive():
            raise ServeError("the server ended before it was ready")
        yield server
    finally:
        server.stop()
        thread.join()


def _run_quietly(server: Server) -> None:
    with suppress(SkillcError):  # `running` raises it in its caller's thread
        server.run()

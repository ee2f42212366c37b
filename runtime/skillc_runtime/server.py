"""Running the server: in the foreground until a signal, or in a thread for a block."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from skillc_compiler.errors import ServeError, SkillcError
from skillc_runtime.app import create_app
from skillc_runtime.engine import Engine
from skillc_runtime.guard import is_loopback
from skillc_runtime.registry import Registry
from skillc_runtime.remote import ProcessWorker
from skillc_runtime.settings import ServeSettings
from skillc_runtime.worker import Worker

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

_HEADER_LIMIT = 32 << 10
_LAST_WORDS = 2  # seconds for answers that were cut short to say so
_KEEP_ALIVE = 75  # seconds; agents think for a while between requests
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server:
    """A server bound to its port; `run` blocks until `stop`.

    Raises BaseModelError or ServeError when the base cannot be read or the address not be had.
    """

    def __init__(
        self, settings: ServeSettings, on_ready: Callable[[str], None] | None = None
    ) -> None:
        from skillc_compiler.gguf_base import read_base_info

        if settings.token is None and not is_loopback(settings.host):
            raise ServeError(f"{settings.host} is open to others: set an API key, or use 127.0.0.1")
        base = read_base_info(settings.base)
        self._socket = listen(settings.host, settings.port)
        self.url = url_of(self._socket)
        self.worker = make_worker(base, settings)
        self.registry = Registry(settings.project, base, settings.name)
        self.ready = threading.Event()
        self._on_ready = on_ready
        app = create_app(self.worker, self.registry, settings, self._loaded)
        self._uvicorn = _Uvicorn(
            self.worker,
            settings.stop_seconds,
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                h11_max_incomplete_event_size=_HEADER_LIMIT,
                timeout_graceful_shutdown=math.ceil(settings.stop_seconds) + _LAST_WORDS,
            ),
        )

    @property
    def started(self) -> bool:
        """Whether requests are taken, if only to say that the base is loading."""
        return self._uvicorn.started

    def run(self) -> None:
        """Serve until `stop`; ServeError or BaseModelError when the base does not load."""
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.ready.set()
        if self.worker.failure is not None:
            raise self.worker.failure

    def stop(self, *, force: bool = False) -> None:
        """End `run`: open answers get `stop_seconds`, none when forced a second time."""
        self._uvicorn.force_exit = self._uvicorn.should_exit and force
        self._uvicorn.should_exit = True

    def _loaded(self) -> None:
        if self.worker.failure is not None:
            self.stop()
            return
        self.ready.set()
        if self._on_ready is not None:
            self._on_ready(self.url)


class _Uvicorn(uvicorn.Server):
    """uvicorn that ends open answers itself, and leaves signals, which it raises again, to us."""

    def __init__(self, worker: Worker, patience: float, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._worker = worker
        self._patience = patience

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._patience, self._worker.abort)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_worker(base: BaseInfo, settings: ServeSettings) -> Worker:
    """What answers: an engine in a process of its own, or in this one."""
    options: dict[str, Any] = {
        "n_ctx": settings.n_ctx,
        "n_threads": settings.n_threads,
        "max_adapters": settings.max_adapters,
    }
    if settings.in_process:
        return Worker(lambda: Engine(base, **options), waiting=settings.max_waiting)
    return ProcessWorker(base, options, waiting=settings.max_waiting)


def serve(settings: ServeSettings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve from the main thread until SIGINT or SIGTERM.

    `on_ready` gets the URL once requests can be answered.

    Raises BaseModelError or ServeError, each one line, when it cannot.
    """
    server = Server(settings, on_ready)
    before = {
        number: signal.signal(number, lambda *_: server.stop(force=True)) for number in _SIGNALS
    }
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ServeError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ServeError(
            f"cannot listen on {host}:{port}: {reason}; choose another port, or 0 for a free one"
        ) from error
    return found


def url_of(listening: socket.socket) -> str:
    """The URL, without a path, under which a listening socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""What every server here needs around its application: an address, uvicorn, and an end."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from skillc_compiler.errors import ServeError
from skillc_runtime.guard import is_loopback

_HEADER_LIMIT = 32 << 10
_KEEP_ALIVE = 75  # seconds; agents think for a while between requests
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Foreground(uvicorn.Server):
    """uvicorn that leaves signals, which it raises again, to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self, *, force: bool = False) -> None:
        """End `run`; open answers are cut short when it is forced a second time."""
        self.force_exit = self.should_exit and force
        self.should_exit = True


def uvicorn_config(app: ASGIApp, stop_seconds: float) -> uvicorn.Config:
    """How `app` is served; answers that are open at the end get `stop_seconds`."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        h11_max_incomplete_event_size=_HEADER_LIMIT,
        timeout_graceful_shutdown=math.ceil(stop_seconds),
    )


def until_signal(server: Foreground, run: Callable[[], None]) -> None:
    """Call `run`, in the main thread, which ends once SIGINT or SIGTERM has stopped `server`."""
    before = {
        number: signal.signal(number, lambda *_: server.stop(force=True)) for number in _SIGNALS
    }
    try:
        run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_open(host: str, token: str | None) -> None:
    """ServeError when others could reach the server at `host` without an API key."""
    if token is None and not is_loopback(host):
        raise ServeError(f"{host} is open to others: set an API key, or use 127.0.0.1")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ServeError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, or asyncio leaves Nagle's algorithm on in what it accepts, and an
    # answer over a connection that is kept open waits 40 ms for the client's delayed ACK.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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

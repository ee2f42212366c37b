"""Running the server in front of an upstream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from skillc_compiler.errors import ServeError
from skillc_runtime.api_error import ApiError
from skillc_runtime.foreground import (
    Foreground,
    check_open,
    listen,
    until_signal,
    url_of,
    uvicorn_config,
)
from skillc_runtime.registry import Registry
from skillc_runtime.upstream_app import create_upstream_app
from skillc_runtime.upstream_client import UpstreamClient
from skillc_runtime.upstream_settings import UpstreamSettings

_STOP_SECONDS = 5


class UpstreamServer:
    """A server bound to its port; `run` blocks until `stop`.

    Raises ServeError when the upstream cannot be reached or serves no base of that name, or the
    address cannot be had; BaseModelError when the base cannot be read.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        from skillc_compiler.gguf_base import read_base_info

        check_open(settings.host, settings.token)
        base = read_base_info(settings.base)
        settings = replace(settings, model=upstream_model(settings))
        self._socket = listen(settings.host, settings.port)
        self.url = url_of(self._socket)
        registry = Registry(settings.project, base, settings.name)
        app = create_upstream_app(settings, registry, UpstreamClient(settings.url, settings.key))
        self.uvicorn = Foreground(uvicorn_config(app, _STOP_SECONDS))

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self.uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self, *, force: bool = False) -> None:
        """End `run`; open answers are cut short when it is forced a second time."""
        self.uvicorn.stop(force=force)


def upstream_model(settings: UpstreamSettings) -> str:
    """The upstream's name for the base: what was given, or its only model that is no adapter."""

    async def ask() -> list[str]:
        client = UpstreamClient(settings.url, settings.key)
        try:
            found = await client.models()
        finally:
            await client.close()
        return [str(model.get("id")) for model in found if not model.get("parent")]

    try:
        names = asyncio.run(ask())
    except ApiError as error:
        raise ServeError(error.message) from error
    listed = ", ".join(names) or "none"
    if settings.model:
        if settings.model not in names:
            raise ServeError(f"{settings.url}: serves no {settings.model!r} (there is {listed})")
        return settings.model
    if len(names) != 1:
        raise ServeError(f"{settings.url}: serves {listed}: say which with --upstream-model")
    return names[0]


def serve_upstream(settings: UpstreamSettings, on_ready: Callable[[str], None]) -> None:
    """Serve from the main thread until SIGINT or SIGTERM; `on_ready` gets the URL."""
    server = UpstreamServer(settings)

    def run() -> None:
        # The socket listens already: who asks at once waits for the loop.
        on_ready(server.url)
        server.run()

    until_signal(server.uvicorn, run)


@contextmanager
def running_upstream(settings: UpstreamSettings) -> Iterator[UpstreamServer]:
    """A server in a thread of this process for the block."""
    server = UpstreamServer(settings)
    thread = threading.Thread(target=server.run, name="skillc-upstream")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()

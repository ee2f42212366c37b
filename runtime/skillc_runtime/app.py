"""The ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skillc_runtime.endpoints import Endpoints
from skillc_runtime.failures import HANDLERS, gone
from skillc_runtime.guard import Guard
from skillc_runtime.listing import Listing
from skillc_runtime.log import FACTS, log_line
from skillc_runtime.lora_endpoints import LoraEndpoints
from skillc_runtime.registry import Registry
from skillc_runtime.running import ClientGoneError
from skillc_runtime.service import Service
from skillc_runtime.settings import ServeSettings, served_context
from skillc_runtime.worker import Worker


def create_app(
    worker: Worker,
    registry: Registry,
    settings: ServeSettings,
    on_ready: Callable[[], None] | None = None,
) -> Starlette:
    """The server's application; it starts `worker` and closes it.

    `on_ready` is called once the base is loaded and its adapters are verified, or failed to.
    """
    service = Service(worker, registry, settings)
    routes = routes_of(service)

    def load() -> None:
        worker.loaded.wait()
        if worker.failure is None:
            registry.verify()
            service.verified = True
        if on_ready is not None:
            on_ready()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        loading = asyncio.ensure_future(asyncio.to_thread(load))
        try:
            yield
        finally:
            await loading
            await asyncio.to_thread(worker.close)

    return Starlette(
        lifespan=lifespan,
        routes=routes,
        middleware=[
            Middleware(Watch, service=service, paths=[route.path for route in routes]),
            Middleware(
                Guard,
                host=settings.host,
                hosts=settings.hosts,
                token=settings.token,
                body_seconds=settings.body_seconds,
            ),
        ],
        exception_handlers={**HANDLERS, ClientGoneError: gone},
    )


def routes_of(service: Service) -> list[Route]:
    """Every path that is served."""
    endpoints, lora = Endpoints(service), LoraEndpoints(service)
    context = served_context(service.registry.base.context_length, service.settings.n_ctx)
    listing = Listing(service.registry, service.started, context)
    return [
        Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
        Route("/v1/completions", endpoints.completions, methods=["POST"]),
        Route("/v1/responses", endpoints.responses, methods=["POST"]),
        Route("/v1/messages", endpoints.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", endpoints.count_tokens, methods=["POST"]),
        Route("/v1/models", listing.models),
        Route("/v1/models/{model:path}", listing.model),
        Route("/v1/skills", listing.skills),
        Route("/health", endpoints.health),
        Route("/metrics", endpoints.metrics),
        Route("/lora-adapters", lora.listed),
        Route("/lora-adapters", lora.set_scales, methods=["POST"]),
        Route("/v1/load_lora_adapter", lora.load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", lora.unload, methods=["POST"]),
        Route("/v1/embeddings", endpoints.embeddings, methods=["POST"]),
        Route("/openapi.json", endpoints.openapi),
    ]


class Watch:
    """ASGI middleware that counts requests by path and status, and logs each when it has ended."""

    def __init__(self, app: ASGIApp, service: Service, paths: Sequence[str]) -> None:
        self._app = app
        self._metrics = service.metrics
        self._log = service.settings.log
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope["path"], status)
            await send(message)

        scope[FACTS] = {}
        try:
            await self._app(scope, receive, watched)
        finally:
            if self._log is not None:
                self._log(log_line(scope, status, perf_counter() - started))

    def _count(self, path: str, status: int) -> None:
        # Only known paths: a client must not be able to make up labels.
        path = path if path in self._paths else "other"
        self._metrics.requests.add(1, path=path, status=str(status))
        if status >= 400:
            self._metrics.errors.add(1, code=str(status))

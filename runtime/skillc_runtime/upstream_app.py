"""The ASGI application in front of an upstream: names, verdicts and elision are ours."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from skillc_runtime.api_error import ApiError
from skillc_runtime.failures import HANDLERS
from skillc_runtime.fields import parse_body
from skillc_runtime.guard import Guard
from skillc_runtime.listing import Listing
from skillc_runtime.registry import Registry
from skillc_runtime.skill_set import ATTACHED_HEADER
from skillc_runtime.upstream_adapters import UpstreamAdapters
from skillc_runtime.upstream_client import UpstreamClient, UpstreamStream
from skillc_runtime.upstream_request import Asked, read_chat, read_completion
from skillc_runtime.upstream_settings import UpstreamSettings

_GONE = 404
"""What the upstream says of an adapter that it has lost."""


def create_upstream_app(
    settings: UpstreamSettings, registry: Registry, client: UpstreamClient
) -> Starlette:
    """The application; `client` is closed when it ends."""
    front = Front(settings, registry, client)
    listing = Listing(registry, int(time.time()), registry.base.context_length)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await front.adapters.close()
            await client.close()

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/chat/completions", front.chat, methods=["POST"]),
            Route("/v1/completions", front.completions, methods=["POST"]),
            Route("/v1/models", listing.models),
            Route("/v1/models/{model:path}", listing.model),
            Route("/v1/skills", listing.skills),
            Route("/health", front.health),
        ],
        middleware=[
            Middleware(Guard, host=settings.host, hosts=settings.hosts, token=settings.token)
        ],
        exception_handlers=HANDLERS,
    )


class Front:
    """One method an endpoint."""

    def __init__(
        self, settings: UpstreamSettings, registry: Registry, client: UpstreamClient
    ) -> None:
        self._settings, self._registry, self._client = settings, registry, client
        self.adapters = UpstreamAdapters(client, settings.folder, settings.max_adapters)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions"""

        def read(body: dict[str, Any]) -> Asked:
            return read_chat(body, request.headers, self._registry, self._count)

        return await self._answer(request, read)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions"""

        def read(body: dict[str, Any]) -> Asked:
            return read_completion(body, request.headers, self._registry)

        return await self._answer(request, read)

    async def health(self, request: Request) -> Response:
        """GET /health: 200 only when the upstream answers."""
        problems = await run_in_threadpool(self._registry.problems)
        status = "degraded" if problems else "ok"
        try:
            await self._client.models()
        except ApiError as error:
            status, problems = "failed", {"upstream": error.message}
        body = {"status": status, "base": self._registry.name, "problems": problems}
        return JSONResponse(body, 503 if status == "failed" else 200)

    async def _answer(self, request: Request, read: Callable[[dict[str, Any]], Asked]) -> Response:
        body = parse_body(await request.body())
        asked = await run_in_threadpool(read, body)
        stream = await self._begun(request.url.path, asked)
        headers = {ATTACHED_HEADER: asked.skills.header() or "none"}
        if stream.status != 200 or not asked.body.get("stream"):
            try:
                text = await stream.whole()
            finally:
                await stream.close()
            return _whole(text, stream.status, asked, headers)
        events = _events(stream, asked)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _begun(self, path: str, asked: Asked) -> UpstreamStream:
        """The upstream's answer; an adapter that it has lost is loaded once more."""
        refs = asked.skills.adapters
        if not refs:
            model = self._settings.model
            return await self._client.stream(path, {**asked.body, "model": model})
        model = await self.adapters.name_of(refs)
        stream = await self._client.stream(path, {**asked.body, "model": model})
        if stream.status != _GONE:
            return stream
        await stream.close()
        model = await self.adapters.reload(refs)
        return await self._client.stream(path, {**asked.body, "model": model})

    @cached_property
    def _tokenizer(self) -> Any:
        from skillc_compiler.gguf_tokenizer import read_tokenizer

        return read_tokenizer(self._settings.base)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _whole(text: str, status: int, asked: Asked, headers: dict[str, str]) -> Response:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        said = " ".join(text.split())[:200]
        problem = ApiError(502, f"the upstream says ({status}): {said}", code="upstream_error")
        return JSONResponse(problem.body(), problem.status)
    if status != 200:
        return JSONResponse(body, status)
    return JSONResponse({**body, "model": asked.model, "skillc": report(asked)}, 200, headers)


async def _events(stream: UpstreamStream, asked: Asked) -> AsyncIterator[str]:
    """The upstream's events under the client's model name; the last ones say what was attached."""
    try:
        async for line in stream.lines():
            yield f"{_event(line, asked)}\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body())}\n\ndata: [DONE]\n\n"
    finally:
        await stream.close()


def _event(line: str, asked: Asked) -> str:
    if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
        return line
    try:
        chunk = json.loads(data)
    except ValueError:
        return line
    if not isinstance(chunk, dict) or "choices" not in chunk:
        return line
    chunk["model"] = asked.model
    choices = chunk["choices"] or []
    if not choices or any(choice.get("finish_reason") for choice in choices):
        chunk["skillc"] = report(asked)
    return f"data: {json.dumps(chunk)}"


def report(asked: Asked) -> dict[str, Any]:
    """The answer's `skillc` object."""
    return {"attached": asked.skills.report(), "tokens_elided": asked.tokens_elided}

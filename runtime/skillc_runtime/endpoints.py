"""The HTTP endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import starmap
from time import perf_counter

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from skillc_runtime.answers import CHAT, TEXT, CompletionWriter
from skillc_runtime.anthropic_answer import MessagesWriter
from skillc_runtime.anthropic_request import messages_to_chat
from skillc_runtime.api_error import ApiError
from skillc_runtime.fields import Body, parse_body, text
from skillc_runtime.log import FACTS
from skillc_runtime.openapi import description
from skillc_runtime.reply import Delta
from skillc_runtime.responses_answer import ResponsesWriter
from skillc_runtime.responses_request import responses_to_chat
from skillc_runtime.running import Running, unless_gone
from skillc_runtime.service import Prepared, Service
from skillc_runtime.skill_set import ATTACHED_HEADER
from skillc_runtime.writer import PING, Writer

# Bytes of a body that is read on the event loop: a thread's turn costs more than reading it.
_SMALL = 16 << 10
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class _EventStream(StreamingResponse):
    """Server-sent events; the job stops when they end, however that happens."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[str], end: Callable[[], None], headers: dict[str, str]
    ) -> None:
        super().__init__(events, headers=headers)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


class Endpoints:
    """One method an endpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        return await self._answer(
            request,
            lambda running, _: CompletionWriter(CHAT, running),
            self._service.prepare_chat,
        )

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions"""
        return await self._answer(
            request,
            lambda running, _: CompletionWriter(TEXT, running),
            self._service.prepare_completion,
        )

    async def responses(self, request: Request) -> Response:
        """POST /v1/responses"""
        return await self._answer(
            request,
            ResponsesWriter,
            lambda body, headers: self._service.prepare_chat(responses_to_chat(body), headers),
        )

    async def messages(self, request: Request) -> Response:
        """POST /v1/messages"""
        return await self._answer(
            request,
            lambda running, _: MessagesWriter(running),
            lambda body, headers: self._service.prepare_chat(messages_to_chat(body), headers),
        )

    async def count_tokens(self, request: Request) -> Response:
        """POST /v1/messages/count_tokens"""
        body = messages_to_chat(parse_body(await request.body()), counting=True)
        prepared = await run_in_threadpool(self._service.prepare_chat, body, request.headers)
        return JSONResponse({"input_tokens": sum(map(len, prepared.prompts))})

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings: a clear no, for a base that writes text has no use as one."""
        body = parse_body(await request.body())
        model = text(body, "model")
        await run_in_threadpool(self._service.registry.resolve, model)
        name = self._service.registry.name
        line = f"{name} writes text and gives no embeddings; use a model made for them"
        raise ApiError(400, line, code="embeddings_not_supported", param="model")

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json"""
        return JSONResponse(description(self._service.registry.name))

    async def health(self, request: Request) -> Response:
        """GET /health: 200 only when requests can be answered."""
        service = self._service
        problems = await run_in_threadpool(service.registry.problems)
        status = "degraded" if problems else "ok"
        if service.worker.failure is not None:
            status, problems = "failed", {"base": str(service.worker.failure)}
        elif not service.verified:
            status = "loading"
        elif service.settings.alive is not None and (line := service.settings.alive()):
            status, problems = "failed", {"watch": line}
        elif service.worker.away:
            problems = {**problems, "engine": "its process ended and is being started again"}
            status = "degraded"
        body = {
            "status": status,
            "base": service.registry.name,
            "skills": len(service.registry.skills()),
            "problems": problems,
        }
        return JSONResponse(body, 200 if status in ("ok", "degraded") else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics"""
        service, metrics = self._service, self._service.metrics
        metrics.waiting.set(service.worker.waiting)
        if service.verified:
            loaded, loads = service.worker.adapters
            metrics.adapters_loaded.set(loaded)
            metrics.adapter_loads.set(loads)
            counts = service.worker.counts
            metrics.switches.set(counts.switches)
            metrics.batches.set(counts.decodes)
            metrics.batch_tokens.set(counts.tokens)
            metrics.copied.set(counts.copied)
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    async def _answer(
        self,
        request: Request,
        write: Callable[[Running, Body], Writer],
        prepare: Callable[[Body, Headers], Prepared],
    ) -> Response:
        arrived = perf_counter()
        raw = await request.body()
        body = parse_body(raw)
        if len(raw) <= _SMALL and self._service.registry.settled():
            prepared = prepare(body, request.headers)
        else:
            prepared = await run_in_threadpool(prepare, body, request.headers)
        running = Running(self._service, prepared, arrived)
        headers = {ATTACHED_HEADER: prepared.skills.header() or "none"}
        running.start()

        def end() -> None:
            running.stop()
            request.scope[FACTS].update(running.facts())

        writer = write(running, body)
        try:
            if prepared.stream:
                return await self._streamed(request, writer, headers, end)
            whole = await self._whole(request, writer, headers)
        except BaseException:
            end()
            raise
        end()
        return whole

    async def _whole(self, request: Request, writer: Writer, headers: dict[str, str]) -> Response:
        running = writer.running

        async def finish() -> None:
            while not running.done:
                await running.deltas()

        await unless_gone(request.receive, finish)
        return JSONResponse(writer.whole(), headers=headers)

    async def _streamed(
        self,
        request: Request,
        writer: Writer,
        headers: dict[str, str],
        end: Callable[[], None],
    ) -> Response:
        # The status line waits until the skills are attached: an error is then a proper one.
        deltas = await unless_gone(request.receive, writer.running.deltas)
        return _EventStream(self._events(writer, deltas), end, {**headers, **_STREAM_HEADERS})

    async def _events(self, writer: Writer, deltas: list[tuple[int, Delta]]) -> AsyncIterator[str]:
        running, patience = writer.running, self._service.settings.ping_seconds
        try:
            yield writer.first() + "".join(starmap(writer.delta, deltas))
            while not running.done:
                try:
                    more = await running.deltas(patience)
                except asyncio.TimeoutError:
                    yield PING
                    continue
                if more:
                    yield "".join(starmap(writer.delta, more))
            yield writer.last()
        except ApiError as error:
            self._service.metrics.errors.add(1, code=error.code or "error")
            yield writer.failed(error)

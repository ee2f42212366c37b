"""A job on the worker seen from the event loop: its events, its end, the client's going away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeVar

from starlette.types import Receive

from skillc_compiler.errors import AdapterError, ServeError
from skillc_runtime.adapters import BadAdapterError
from skillc_runtime.api_error import ApiError
from skillc_runtime.events import Event, Piece
from skillc_runtime.registry import unusable
from skillc_runtime.reply import Delta, Reply
from skillc_runtime.service import Prepared, Service
from skillc_runtime.worker import Failed, Job, QueueFullError

T = TypeVar("T")
Arrival = tuple[Event | Failed, float]
"""An event, and the perf_counter seconds at which the worker sent it."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Inbox:
    """Events from the worker's thread, for one reader on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[Arrival] = deque()
        self._reader: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is an event that need not be waited for."""
        return bool(self._arrivals)

    def put_from_thread(self, event: Event | Failed, at: float) -> None:
        """Hand over an event; RuntimeError when the loop has ended."""
        self._loop.call_soon_threadsafe(self._put, (event, at))

    async def get(self, timeout: float | None = None) -> Arrival:
        """The next event; asyncio.TimeoutError when there is none for `timeout` seconds."""
        # asyncio.Queue under wait_for would start a task and a timer for every token.
        if not self._arrivals:
            self._reader = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._wake) if timeout else None
            try:
                await self._reader
            finally:
                self._reader = None
                if timer is not None:
                    timer.cancel()
            if not self._arrivals:
                raise asyncio.TimeoutError
        return self._arrivals.popleft()

    def _put(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Running:
    """One request being answered: `start` it, and `stop` it whatever happens."""

    def __init__(self, service: Service, prepared: Prepared, arrived: float) -> None:
        self.prepared = prepared
        self.reply = Reply(service.engine.model.vocab, tools=prepared.tools, prefix=prepared.prefix)
        self.ttft: float | None = None
        self.done = False
        self._stopped = False
        self._service = service
        self._arrived = arrived
        self._inbox = Inbox()
        self._job = Job(
            prepared.prompt,
            prepared.skills.adapters,
            prepared.sampling,
            self._inbox.put_from_thread,
        )

    def start(self) -> None:
        """Queue the job; ApiError 429 when too many wait."""
        try:
            self._service.worker.submit(self._job)
        except QueueFullError as error:
            raise ApiError(429, str(error), code="queue_full", retry_after=1) from error
        for member in self.prepared.skills.members:
            labels = {"skill": member.name, "as": member.served_as}
            self._service.metrics.skill_requests.add(1, **labels)

    def stop(self) -> None:
        """Cancel what is left, and count what was done."""
        self._job.cancel.set()
        if self._stopped:
            return
        self._stopped = True
        metrics, reply = self._service.metrics, self.reply
        metrics.prompt_tokens.add(reply.prompt_tokens)
        metrics.cached_tokens.add(reply.cached_tokens)
        metrics.elided_tokens.add(self.prepared.tokens_elided)
        metrics.generated_tokens.add(reply.tokens)
        metrics.finished.add(1, reason=reply.finish_reason or "unfinished")
        metrics.duration.observe(perf_counter() - self._arrived)
        if self.ttft is not None:
            metrics.ttft.observe(self.ttft)

    async def begin(self) -> list[Delta]:
        """Wait until the skills are attached; ApiError when they cannot be."""
        return self._take(await self._inbox.get())

    async def deltas(self, timeout: float | None = None) -> list[Delta]:
        """What the next events add; asyncio.TimeoutError after `timeout` seconds without one."""
        found = self._take(await self._inbox.get(timeout))
        while not self.done and self._inbox.waiting:
            found += self._take(await self._inbox.get())
        return found

    def report(self) -> dict[str, Any]:
        """The `skillc` field of the answer."""
        base = self._service.registry.base
        return {
            "attached": self.prepared.skills.report(),
            "base": {"name": self._service.registry.name, "hash": base.hash},
            "prompt_tokens": self.reply.prompt_tokens,
            "cached_tokens": self.reply.cached_tokens,
            "tokens_elided": self.prepared.tokens_elided,
            "ttft_ms": None if self.ttft is None else round(self.ttft * 1000, 3),
        }

    def facts(self) -> dict[str, Any]:
        """What the log says of the answer."""
        prepared, reply = self.prepared, self.reply
        return {
            "model": prepared.model,
            "skills": [f"{m.name}@{m.scale:g}" for m in prepared.skills.members],
            "stream": prepared.stream,
            "prompt_tokens": reply.prompt_tokens,
            "cached_tokens": reply.cached_tokens,
            "tokens_elided": prepared.tokens_elided,
            "completion_tokens": reply.tokens,
            "ttft_ms": None if self.ttft is None else round(self.ttft * 1000, 3),
            "finish_reason": reply.finish_reason,
        }

    def _take(self, arrived: Arrival) -> list[Delta]:
        event, at = arrived
        if self.ttft is None and isinstance(event, Piece):
            self.ttft = at - self._arrived
        if isinstance(event, Failed):
            raise self._failure(event.error)
        deltas = self.reply.take(event)
        if self.reply.cancelled:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after=1)
        self.done = self.reply.finish_reason is not None
        return deltas

    def _failure(self, error: Exception) -> ApiError:
        if isinstance(error, BadAdapterError):
            self._service.registry.refuse(self.prepared.skills, str(error))
        if isinstance(error, AdapterError):
            return unusable(str(error))
        code = "engine_error" if isinstance(error, ServeError) else "internal_error"
        return ApiError(503, str(error), code=code)


async def unless_gone(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, given up with ClientGoneError when the client goes away first.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work())
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

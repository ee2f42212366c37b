"""A job on the worker seen from the event loop: its events, its end, the client's going away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from starlette.types import Receive

from skillc_compiler.errors import AdapterError, ServeError
from skillc_runtime.adapters import BadAdapterError
from skillc_runtime.api_error import ApiError
from skillc_runtime.events import Piece
from skillc_runtime.inbox import Arrival, Inbox
from skillc_runtime.registry import unusable
from skillc_runtime.reply import Delta, Reply
from skillc_runtime.service import Prepared, Service
from skillc_runtime.worker import Failed, Job, QueueFullError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request: each prompt counted once, however many answers it has."""

    prompt: int
    cached: int
    completion: int


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Running:
    """One request being answered: `start` it, and `stop` it whatever happens."""

    def __init__(self, service: Service, prepared: Prepared, arrived: float) -> None:
        self.prepared = prepared
        self.replies: list[Reply] = []
        self.ttft: float | None = None
        self._started = False
        self._stopped = False
        self._service = service
        self._arrived = arrived
        self._ends = None if prepared.deadline is None else arrived + prepared.deadline
        self._expired = False
        self._inbox = Inbox()
        self._jobs: list[Job] = []
        adapters, turn = prepared.skills.adapters, prepared.tail_from
        for index, (prompt, sampling) in enumerate(prepared.jobs()):
            listener = partial(self._inbox.put_from_thread, index)
            self._jobs.append(Job(prompt, adapters, sampling, listener, tail_from=turn))
            self.replies.append(service.reply(prepared))

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(reply.finish_reason is not None for reply in self.replies)

    def start(self) -> None:
        """Queue the jobs; ApiError 429 when too many wait."""
        try:
            for job in self._jobs:
                self._service.worker.submit(job)
        except QueueFullError as error:
            self._cancel()
            raise ApiError(429, str(error), code="queue_full", retry_after=1) from error
        self._started = True
        self._service.metrics.running.add(1)
        for member in self.prepared.skills.members:
            labels = {"skill": member.name, "as": member.served_as}
            self._service.metrics.skill_requests.add(1, **labels)

    def stop(self) -> None:
        """Cancel what is left, and count what was done."""
        self._cancel()
        if self._stopped or not self._started:
            return
        self._stopped = True
        metrics, usage = self._service.metrics, self.usage()
        metrics.running.add(-1)
        metrics.prompt_tokens.add(usage.prompt)
        metrics.cached_tokens.add(usage.cached)
        metrics.elided_tokens.add(self.prepared.tokens_elided)
        metrics.generated_tokens.add(usage.completion)
        for reply in self.replies:
            metrics.finished.add(1, reason=reply.finish_reason or "unfinished")
        metrics.duration.observe(perf_counter() - self._arrived)
        if usage.prompt:
            metrics.prefixes.add(1, result="hit" if usage.cached else "miss")
        if self.ttft is not None:
            metrics.ttft.observe(self.ttft)
        for member in self.prepared.skills.members:
            metrics.skill_tokens.add(usage.completion, skill=member.name)
            if self.ttft is not None:
                metrics.skill_ttft.observe(self.ttft, skill=member.name)

    async def deltas(self, timeout: float | None = None) -> list[tuple[int, Delta]]:
        """What the next events add to which choice; asyncio.TimeoutError after `timeout` seconds
        without one.

        The first ones say that the skills are attached; ApiError when they cannot be.
        """
        found = await self._next(timeout)
        while not self.done and self._inbox.waiting and not self._inbox.breaks_off:
            found += self._take(await self._inbox.get())
        return found

    async def _next(self, timeout: float | None) -> list[tuple[int, Delta]]:
        if self._ends is None:
            return self._take(await self._inbox.get(timeout))
        left = self._ends - perf_counter()
        if left > 0:
            with suppress(asyncio.TimeoutError):
                return self._take(await self._inbox.get(min(left, timeout or left)))
        if perf_counter() < self._ends:
            raise asyncio.TimeoutError
        await asyncio.sleep(0)
        found = []
        while self._inbox.waiting and not self.done:  # what has come all the same
            found += self._take(await self._inbox.get())
        return found + ([] if self.done else self._expire())

    def _expire(self) -> list[tuple[int, Delta]]:
        """End what has begun where it is; ApiError when nothing has."""
        self._cancel()
        self._expired = True
        self._service.metrics.expired.add(1)
        if self.ttft is None:
            line = f"no answer within the deadline of {self.prepared.deadline:g} s"
            raise ApiError(503, line, code="deadline_exceeded", retry_after=1)
        return [
            (index, delta)
            for index, reply in enumerate(self.replies)
            if reply.finish_reason is None
            for delta in reply.cut()
        ]

    def usage(self) -> Usage:
        """The tokens so far."""
        firsts = self.replies[:: self.prepared.n]
        return Usage(
            prompt=sum(reply.prompt_tokens for reply in firsts),
            cached=sum(reply.cached_tokens for reply in firsts),
            completion=sum(reply.tokens for reply in self.replies),
        )

    def report(self) -> dict[str, Any]:
        """The `skillc` field of the answer."""
        base, usage = self._service.registry.base, self.usage()
        cut = {"cut_by": "deadline"} if self._expired else {}
        return {
            **cut,
            "attached": self.prepared.skills.report(),
            "base": {"name": self._service.registry.name, "hash": base.hash},
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "tokens_elided": self.prepared.tokens_elided,
            "ttft_ms": None if self.ttft is None else round(self.ttft * 1000, 3),
        }

    def facts(self) -> dict[str, Any]:
        """What the log says of the answer."""
        prepared, usage = self.prepared, self.usage()
        reasons = [reply.finish_reason for reply in self.replies]
        return {
            **({"cut_by": "deadline"} if self._expired else {}),
            "model": prepared.model,
            "skills": [f"{m.name}@{m.scale:g}" for m in prepared.skills.members],
            "stream": prepared.stream,
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "tokens_elided": prepared.tokens_elided,
            "text_tokens": self._service.text_tokens(prepared.skills),
            "completion_tokens": usage.completion,
            "ttft_ms": None if self.ttft is None else round(self.ttft * 1000, 3),
            "finish_reason": reasons[0] if len(reasons) == 1 else reasons,
        }

    def _cancel(self) -> None:
        for job in self._jobs:
            job.cancel.set()

    def _take(self, arrived: Arrival) -> list[tuple[int, Delta]]:
        index, event, at = arrived
        if self.ttft is None and isinstance(event, Piece):
            self.ttft = at - self._arrived
        if isinstance(event, Failed):
            raise self._failure(event.error)
        reply = self.replies[index]
        deltas = reply.take(event)
        if reply.cancelled:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after=1)
        return [(index, delta) for delta in deltas]

    def _failure(self, error: Exception) -> ApiError:
        if isinstance(error, BadAdapterError):
            self._service.registry.refuse(self.prepared.skills, str(error))
        if isinstance(error, AdapterError):
            return unusable(str(error))
        code = "engine_error" if isinstance(error, ServeError) else "internal_error"
        return ApiError(503, str(error), code=code, retry_after=getattr(error, "retry_after", None))


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

"""Events on their way from the worker's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

from skillc_runtime.events import Event, Failed, Finish

Arrival = tuple[int, Event | Failed, float]
"""A choice's index, its event, and the perf_counter seconds at which the worker sent it."""


class Inbox:
    """Events from the worker's thread, for one reader on the event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._bell = _bells.setdefault(self.loop, Doorbell())
        self._arrivals: deque[Arrival] = deque()
        self._reader: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is an event that need not be waited for."""
        return bool(self._arrivals)

    def put_from_thread(self, index: int, event: Event | Failed, at: float) -> None:
        """Hand over an event; RuntimeError when the loop has ended."""
        self._bell.ring(self, (index, event, at))

    @property
    def breaks_off(self) -> bool:
        """Whether what comes next ends an answer that is not finished."""
        event = self._arrivals[0][1] if self._arrivals else None
        return isinstance(event, Failed) or (
            isinstance(event, Finish) and event.reason == "cancelled"
        )

    async def get(self, timeout: float | None = None) -> Arrival:
        """The next event; asyncio.TimeoutError when there is none for `timeout` seconds."""
        # asyncio.Queue under wait_for would start a task and a timer for every token.
        if not self._arrivals:
            self._reader = self.loop.create_future()
            timer = self.loop.call_later(timeout, self._wake) if timeout else None
            try:
                await self._reader
            finally:
                self._reader = None
                if timer is not None:
                    timer.cancel()
            if not self._arrivals:
                raise asyncio.TimeoutError
        return self._arrivals.popleft()

    def put(self, index: int, event: Event | Failed, at: float) -> None:
        """Hand over an event; on the loop's own thread."""
        self._arrivals.append((index, event, at))
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Doorbell:
    """Wakes an event loop once for all that arrives until it looks, as waking it takes time."""

    def __init__(self) -> None:
        self._left: deque[tuple[Inbox, Arrival]] = deque()
        self._rung = False

    def ring(self, inbox: Inbox, arrival: Arrival) -> None:
        """Leave an event, from any thread; RuntimeError when the loop has ended."""
        self._left.append((inbox, arrival))
        if self._rung:
            return
        self._rung = True
        try:
            inbox.loop.call_soon_threadsafe(self._open)
        except RuntimeError:
            self._rung = False
            self._left.clear()
            raise

    def _open(self) -> None:
        self._rung = False  # before the look: what is left behind it rings again
        while self._left:
            inbox, arrival = self._left.popleft()
            inbox.put(*arrival)


_bells: WeakKeyDictionary[asyncio.AbstractEventLoop, Doorbell] = WeakKeyDictionary()

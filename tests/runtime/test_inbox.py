"""Events on their way to the event loop: all arrive, in order, and wake it no more than needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

import pytest

from skillc_compiler.errors import ServeError
from skillc_runtime.events import Event, Failed, Finish, Piece, Started
from skillc_runtime.inbox import Inbox
from skillc_runtime.sampling import Choice

P = ParamSpec("P")


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @wraps(test)
    def run(*args: P.args, **values: P.kwargs) -> None:
        asyncio.run(test(*args, **values))

    return run


def piece(number: int) -> Piece:
    return Piece(str(number), Choice(number, 0.0, ()))


@on_a_loop
async def test_events_of_many_threads_arrive_in_order() -> None:
    inboxes = [Inbox() for _ in range(4)]

    def tell(inbox: Inbox) -> None:
        for number in range(500):
            inbox.put_from_thread(0, piece(number), 0.0)

    threads = [threading.Thread(target=tell, args=(inbox,)) for inbox in inboxes]
    for thread in threads:
        thread.start()
    for inbox in inboxes:
        found = [(await inbox.get(60))[1] for _ in range(500)]
        assert found == [piece(number) for number in range(500)]
    for thread in threads:
        thread.join()


@on_a_loop
async def test_what_arrives_while_nobody_looks_wakes_the_loop_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, woken = asyncio.get_running_loop(), []
    real = loop.call_soon_threadsafe
    inboxes = [Inbox(), Inbox()]

    def counted(*args: object) -> object:
        woken.append(args)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    for number in range(6):
        inboxes[number % 2].put_from_thread(0, piece(number), 0.0)
    assert len(woken) == 1
    assert (await inboxes[1].get())[1] == piece(1)
    inboxes[0].put_from_thread(0, piece(6), 0.0)
    assert len(woken) == 2
    assert [(await inboxes[0].get())[1] for _ in range(4)] == [piece(n) for n in (0, 2, 4, 6)]


@on_a_loop
async def test_an_inbox_knows_what_breaks_an_answer_off() -> None:
    ends: list[Event | Failed] = [Failed(ServeError("gone")), Finish("cancelled")]
    fine: list[Event | Failed] = [Started(1, 0), piece(1), Finish("stop")]
    for event in (*fine, *ends):
        inbox = Inbox()
        assert not inbox.breaks_off
        inbox.put(0, event, 0.0)
        assert inbox.waiting and inbox.breaks_off == (event in ends)


def test_a_loop_that_has_ended_says_so() -> None:
    async def made() -> Inbox:
        return Inbox()

    inbox = asyncio.run(made())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            inbox.put_from_thread(0, piece(0), 0.0)

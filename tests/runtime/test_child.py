"""The engine's process from inside: what a step gives is sent at once, beginnings at their own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.support import wait_for

from skillc_runtime import wire
from skillc_runtime.child import Child
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import Sampling

COUNT = 6  # tokens an answer


def test_answers_that_are_decoded_together_are_sent_together(
    fresh: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[list[Any]]] = []
    monkeypatch.setattr(wire, "send", lambda link, *messages: sent.append([*messages]))
    ours, theirs = socket.socketpair()
    child = Child(theirs, fresh)
    jobs = [wire.pack_job((1, 2, 3 + n), (), Sampling(max_tokens=COUNT), None) for n in range(3)]
    for number, job in enumerate(jobs):  # before it starts, so that all begin with the first step
        child.take("ask", number, *job)
    child.worker.start()

    def ended() -> bool:
        said = [message for one in list(sent) for message in one if message[0] == "event"]
        return len([message for message in said if message[2] == "finish"]) == len(jobs)

    wait_for(ended)
    child.worker.close()
    ours.close()
    theirs.close()
    events = [[(m[1], m[2]) for m in one if m[0] == "event"] for one in sent]
    assert events[:3] == [[(number, "started")] for number in range(3)]
    pieces = [[number for number, kind in one if kind == "piece"] for one in events[3:]]
    assert pieces == [[0, 1, 2]] * COUNT
    assert [kind for _, kind in events[-1]].count("finish") == 3


def test_a_server_that_is_gone_ends_nothing_but_the_telling(fresh: Callable[..., Engine]) -> None:
    ours, theirs = socket.socketpair()
    child = Child(theirs, fresh)
    ours.close()
    child.take("ask", 0, *wire.pack_job((1, 2, 3), (), Sampling(max_tokens=COUNT), None))
    child.worker.start()
    wait_for(lambda: child.worker.loaded.is_set() and child.worker.counts.tokens >= COUNT)
    child.worker.close()
    theirs.close()

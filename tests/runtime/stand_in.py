"""A worker that says what a test wrote down, in place of the engine."""

from __future__ import annotations

from time import perf_counter

import pytest

from skillc_runtime.events import Event, Finish, Piece, Started
from skillc_runtime.sampling import Choice
from skillc_runtime.server import Server
from skillc_runtime.worker import Job

STEP = 3
"""Characters a token."""


def scripted(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list for the test to fill: each job gets the next answer of it, then from the start."""
    script: list[str] = []
    jobs = 0

    def submit(job: Job) -> None:
        nonlocal jobs
        text = script[jobs % len(script)]
        jobs += 1
        for event in said(text, len(job.prompt)):
            job.listener(event, perf_counter())

    monkeypatch.setattr(server.worker, "submit", submit)
    return script


def said(text: str, prompt_tokens: int = 7) -> list[Event]:
    """The events of an answer."""
    pieces = [Piece(text[at : at + STEP], Choice(5)) for at in range(0, len(text), STEP)]
    return [Started(prompt_tokens, prompt_tokens // 2), *pieces, Finish("stop")]

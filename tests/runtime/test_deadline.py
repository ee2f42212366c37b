"""Requests that take too long: ended by their deadline, and bodies that do not come."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat

from skillc_runtime.api_error import ApiError
from skillc_runtime.deadline import read_deadline
from skillc_runtime.events import Finish, Piece, Started
from skillc_runtime.sampling import Choice
from skillc_runtime.server import running
from skillc_runtime.worker import Job


@dataclass
class Stuck:
    """A worker that says `text` and then nothing more."""

    text: str = ""
    jobs: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        if self.text:
            job.listener(Started(3, 0), perf_counter())
            job.listener(Piece(self.text, Choice(5)), perf_counter())


@pytest.fixture
def stuck(shared: Client, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    stuck = Stuck()
    monkeypatch.setattr(shared.server.worker, "submit", stuck.submit)
    return stuck


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_not_begun_is_a_503(shared: Client, stuck: Stuck, stream: bool) -> None:
    reply = shared.chat(chat("tiny", deadline=0.05, stream=stream))
    assert (reply.status, reply.error["code"]) == (503, "deadline_exceeded")
    assert reply.headers["Retry-After"] == "1"
    assert [job.cancel.is_set() for job in stuck.jobs] == [True]


def test_what_has_begun_is_cut(shared: Client, stuck: Stuck) -> None:
    stuck.text = "so far"
    whole = shared.chat(chat("tiny", n=2), {"X-Skillc-Deadline": "1"}).json
    for choice in whole["choices"]:
        assert (choice["message"]["content"], choice["finish_reason"]) == ("so far", "length")
    assert whole["skillc"]["cut_by"] == "deadline"
    *_, last = shared.chat(chat("tiny", deadline=1, stream=True)).events
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["skillc"]["cut_by"] == "deadline"
    assert all(job.cancel.is_set() for job in stuck.jobs)


def test_an_open_call_is_closed(shared: Client, stuck: Stuck) -> None:
    stuck.text = '<tool_call>{"name": "run", "arguments": {"x": 1'
    tool = {"type": "function", "function": {"name": "run"}}
    choice = shared.chat(chat("tiny", deadline=1, tools=[tool])).json["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"x": 1'


def test_the_server_has_a_limit_of_its_own(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings_for(project, deadline=0.1)) as server:
        stuck = Stuck()
        with monkeypatch.context() as patch:
            patch.setattr(server.worker, "submit", stuck.submit)
            client = Client(server)
            for body in (chat("tiny"), chat("tiny", deadline=60)):
                assert client.chat(body).error["code"] == "deadline_exceeded"
        lines = client.send("/metrics").text.splitlines()
        assert "skillc_deadlines_exceeded_total 2" in lines
        assert "skillc_requests_running 0" in lines


def test_answers_in_time_are_whole(shared: Client) -> None:
    free = shared.chat(chat("tiny:deploy")).json
    bound = shared.chat(chat("tiny:deploy", deadline=600)).json
    assert bound["choices"] == free["choices"]
    assert "cut_by" not in bound["skillc"]


@pytest.mark.parametrize(
    ("body", "header", "most", "expected"),
    [
        ({}, None, None, None),
        ({}, None, 5.0, 5.0),
        ({"deadline": 2}, None, None, 2.0),
        ({"deadline": 2}, "9", 5.0, 2.0),
        ({"deadline": 20}, None, 5.0, 5.0),
        ({"deadline": None}, "1.5", None, 1.5),
    ],
)
def test_what_is_asked_for(
    body: dict[str, Any], header: str | None, most: float | None, expected: float | None
) -> None:
    headers = {} if header is None else {"x-skillc-deadline": header}
    assert read_deadline(body, headers, most) == expected


@pytest.mark.parametrize(
    ("value", "header"),
    [(0, None), (-1, None), ("1", None), (1e9, None), *((None, h) for h in ("", "x", "nan", "0"))],
)
def test_wrong_deadlines_are_refused(value: Any, header: str | None) -> None:
    headers = {} if header is None else {"x-skillc-deadline": header}
    with pytest.raises(ApiError) as refused:
        read_deadline({"deadline": value}, headers, None)
    assert refused.value.status == 400


@pytest.fixture
def impatient(project: ProjectFolder) -> Iterator[Client]:
    with running(settings_for(project, body_seconds=0.2)) as server:
        yield Client(server)


def test_bodies_that_do_not_come(impatient: Client) -> None:
    place = urlsplit(impatient.server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as link:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100"
        link.sendall(head.encode() + b"\r\n\r\n{")
        answer = link.makefile("rb").read(2000).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    # Only the body must come in time, not the answer.
    assert impatient.chat(chat("tiny", max_tokens=40)).status == 200


def test_figures_of_each_skill(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(job: Job) -> None:
        job.listener(Started(100, 64), perf_counter())
        job.listener(Piece("x", Choice(5)), perf_counter())
        job.listener(Finish("stop"), perf_counter())

    with running(settings_for(project)) as server:
        client = Client(server)
        with monkeypatch.context() as patch:
            patch.setattr(server.worker, "submit", submit)
            client.chat(chat("tiny:deploy+style"))
            client.chat(chat("tiny:deploy"))
            client.chat(chat("tiny"))
        lines = client.send("/metrics").text.splitlines()
    assert 'skillc_skill_generated_tokens_total{skill="deploy"} 2' in lines
    assert 'skillc_skill_generated_tokens_total{skill="style"} 1' in lines
    assert 'skillc_skill_time_to_first_token_seconds_count{skill="deploy"} 2' in lines
    assert 'skillc_skill_time_to_first_token_seconds_bucket{skill="style",le="+Inf"} 1' in lines
    assert 'skillc_prefix_cache_total{result="hit"} 3' in lines
    assert "skillc_cached_tokens_total 192" in lines
    assert "skillc_time_to_first_token_seconds_count 3" in lines

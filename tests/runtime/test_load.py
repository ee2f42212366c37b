"""Several clients at once, clients that go away, full queues, stopping."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, wait_for

from skillc_runtime.server import running
from skillc_runtime.task import Task
from skillc_runtime.worker import Worker


@pytest.fixture
def links() -> Iterator[list[socket.socket]]:
    """Connections that are closed at the end."""
    links: list[socket.socket] = []
    yield links
    for link in links:
        link.close()


def open_request(client: Client, body: dict[str, Any]) -> socket.socket:
    """A chat request whose answer nobody has read yet."""
    place = urlsplit(client.server.url)
    data = json.dumps(body).encode()
    link = socket.create_connection((place.hostname or "", place.port or 0), timeout=60)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
    link.sendall(head.encode() + b"\r\n\r\n" + data)
    return link


class Held:
    """An engine that decodes nothing until it is let go, and begins `at_once` answers."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch, at_once: int = 1) -> None:
        self.started = 0
        self.cancelled = 0
        self.let_go = threading.Event()
        scheduler = worker.engine.scheduler
        advance, place = scheduler.advance, scheduler.slots.place
        started, cancelled = Task.started, Task.cancelled

        def held_advance() -> None:
            if self.let_go.is_set():
                advance()
            else:
                time.sleep(0.005)

        def count_started(task: Task, cached: int) -> None:
            self.started += 1
            started(task, cached)

        def count_cancelled(task: Task) -> None:
            self.cancelled += 1
            cancelled(task)

        monkeypatch.setattr(scheduler, "advance", held_advance)
        monkeypatch.setattr(
            scheduler.slots, "place", lambda task: scheduler.running < at_once and place(task)
        )
        monkeypatch.setattr(Task, "started", count_started)
        monkeypatch.setattr(Task, "cancelled", count_cancelled)


def test_clients_get_what_each_would_get_alone(client: Client) -> None:
    bodies = [
        chat(model, f"question {number % 5}", max_tokens=12, stream=number % 2 == 0)
        for number, model in enumerate(["tiny", "tiny:deploy", "tiny:style", "deploy+style"] * 5)
    ]

    def answer(body: dict[str, Any]) -> tuple[str, list[str]]:
        reply = client.chat(body)
        assert reply.status == 200
        if body["stream"]:
            *chunks, end = reply.events
            deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
            return "".join(deltas), [skill["hash"] for skill in end["skillc"]["attached"]]
        text = reply.json["choices"][0]["message"]["content"]
        return text, [skill["hash"] for skill in reply.json["skillc"]["attached"]]

    alone = [answer(body) for body in bodies]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(answer, bodies))
    assert together == alone


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_frees_the_engine(
    client: Client, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    with monkeypatch.context() as patch:
        held = Held(client.server.worker, patch)
        for count in range(1, 4):
            link = open_request(client, chat("tiny:deploy", stream=stream))
            wait_for(lambda count=count: held.started == count)  # type: ignore[misc]
            link.close()
            wait_for(lambda count=count: held.cancelled == count)  # type: ignore[misc]
    assert client.chat(chat("tiny:deploy")).status == 200


def test_client_that_goes_away_while_it_waits_is_not_answered(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(client.server.worker, monkeypatch)
    first = open_request(client, chat("tiny"))
    wait_for(lambda: held.started == 1)
    second = open_request(client, chat("tiny", stream=True))
    wait_for(lambda: client.server.worker.waiting == 1)
    second.close()
    first.close()
    wait_for(lambda: held.cancelled == 2)


def test_full_queue_is_said_so(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, links: list[socket.socket]
) -> None:
    with running(settings_for(project, max_waiting=2)) as server:
        client = Client(server)
        held = Held(server.worker, monkeypatch)
        links.append(open_request(client, chat("tiny")))
        wait_for(lambda: held.started == 1)
        for count in (1, 2):
            links.append(open_request(client, chat("tiny")))
            wait_for(lambda count=count: server.worker.waiting == count)  # type: ignore[misc]
        reply = client.chat(chat("tiny"))
        assert (reply.status, reply.error["code"]) == (429, "queue_full")
        assert reply.headers["Retry-After"] == "1"
        assert client.send("/health").status == 200
        held.let_go.set()
        for link in links:
            assert link.recv(15) == b"HTTP/1.1 200 OK"


def test_pings_while_the_first_token_is_slow(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, links: list[socket.socket]
) -> None:
    with running(settings_for(project, ping_seconds=0.02, stop_seconds=60)) as server:
        held = Held(server.worker, monkeypatch)
        links.append(open_request(Client(server), chat("tiny", stream=True)))
        seen = b""
        while seen.count(b": ping\n\n") < 3:
            seen += links[0].recv(4096)
        held.let_go.set()
    assert '"finish_reason":"length"' in read_all(links[0])
    first = seen.partition(b": ping")[0]
    assert b'"delta":{"role":"assistant","content":""}' in first


def test_stop_ends_open_answers_with_an_error(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, links: list[socket.socket]
) -> None:
    before = threading.active_count()
    with running(settings_for(project, stop_seconds=0.2)) as server:
        client = Client(server)
        held = Held(server.worker, monkeypatch)
        links.append(open_request(client, chat("tiny", stream=True)))
        wait_for(lambda: held.started == 1)
        links.append(open_request(client, chat("tiny")))
        wait_for(lambda: server.worker.waiting == 1)
    assert (held.started, held.cancelled) == (1, 2)
    streamed, whole = (read_all(link) for link in links)
    assert "200 OK" in streamed
    assert '"code":"stopping"' in streamed
    assert "data: [DONE]" in streamed
    assert "503 Service Unavailable" in whole
    wait_for(lambda: threading.active_count() <= before)


def test_stop_lets_answers_finish(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, links: list[socket.socket]
) -> None:
    with running(settings_for(project, stop_seconds=20)) as server:
        held = Held(server.worker, monkeypatch)
        links.append(open_request(Client(server), chat("tiny", stream=True)))
        wait_for(lambda: held.started == 1)
        threading.Timer(0.2, held.let_go.set).start()
    assert '"finish_reason":"length"' in read_all(links[0])


def read_all(link: socket.socket) -> str:
    with link.makefile("rb") as file:
        return file.read().decode()


def test_an_error_in_the_middle_of_a_stream_is_an_event(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(client.server.worker.engine.scheduler, "advance", broken)
        events = client.chat(chat("tiny", stream=True)).events
        assert events[-1]["error"]["message"] == "internal error: ZeroDivisionError"
        assert client.chat(chat("tiny")).status == 503
    assert "a bug" in caplog.text
    assert client.chat(chat("tiny")).status == 200

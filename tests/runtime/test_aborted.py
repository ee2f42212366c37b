"""A thousand clients that go away in the middle leave nothing open."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, wait_for
from tests.runtime.test_load import open_request

from skillc_runtime.remote import ProcessWorker
from skillc_runtime.server import running

STREAMS = 1000
MODELS = ("tiny", "tiny:deploy", "tiny:style", "tiny:deploy+style")


def open_files(client: Client) -> int:
    """Of this process, and of the engine's where it has one of its own."""
    worker = client.server.worker
    pids = ["self", *([str(worker.pid)] if isinstance(worker, ProcessWorker) else [])]
    folders = [Path(f"/proc/{pid}/fd") for pid in pids]
    return sum(len(os.listdir(folder)) for folder in folders if folder.is_dir())  # noqa: PTH208


def lasting_threads() -> int:
    """Threads but those of anyio's pool, which come and go with the load."""
    return sum(not thread.name.startswith("AnyIO") for thread in threading.enumerate())


def abort(client: Client, number: int) -> None:
    """Open a stream and go away: at once, after the head, or after some of the text."""
    body = chat(MODELS[number % 4], f"question {number}", max_tokens=500, stream=True)
    link = open_request(client, body)
    try:
        for _ in range(number % 3):
            link.recv(300)
        if number % 2:
            link.shutdown(socket.SHUT_RDWR)
    finally:
        link.close()


@pytest.mark.slow
@pytest.mark.parametrize("in_process", [True, False])
def test_aborted_streams_leave_nothing_open(project: ProjectFolder, in_process: bool) -> None:
    changes = {"max_waiting": 2 * STREAMS, "in_process": in_process}
    with running(settings_for(project, **changes)) as server:
        client = Client(server)
        expected = {model: client.text(chat(model)) for model in MODELS}
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda number: abort(client, number), range(16)))
        wait_for(lambda: idle(client), 100)
        files, threads = open_files(client), lasting_threads()
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda number: abort(client, number), range(STREAMS)))
        wait_for(lambda: idle(client), 100)
        wait_for(lambda: lasting_threads() <= threads, 100)
        wait_for(lambda: open_files(client) <= files, 100)
        assert {model: client.text(chat(model)) for model in MODELS} == expected


def idle(client: Client) -> bool:
    lines = client.send("/metrics").text.splitlines()
    return {"skillc_requests_running 0", "skillc_requests_waiting 0"} <= set(lines)

"""Starting and stopping: ports, bases that do not load, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import settings_for
from tests.runtime.support import ProjectFolder, wait_for

from skillc_compiler.errors import BaseModelError, ServeError, SkillcError
from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.engine import Engine, default_threads
from skillc_runtime.foreground import listen, url_of
from skillc_runtime.registry import Registry
from skillc_runtime.server import Server, running, serve
from skillc_runtime.settings import ServeSettings

PROGRAM = """
import sys
from pathlib import Path
from skillc_compiler.errors import SkillcError
from skillc_runtime.server import serve
from skillc_runtime.settings import ServeSettings
base, project, port = sys.argv[1:]
try:
    settings = ServeSettings(Path(base), project=Path(project), port=int(port), n_threads=1)
    serve(settings, lambda url: print(url, flush=True))
except SkillcError as error:
    sys.exit(str(error))
assert "torch" not in sys.modules
"""


def start(project: ProjectFolder, port: int = 0) -> subprocess.Popen[str]:
    roots = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(project.base.path), str(project.root), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": roots},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(project: ProjectFolder, number: signal.Signals) -> None:
    with start(project) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url + "/health", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_a_kept_connection_is_not_held_up() -> None:
    """Nagle's algorithm and a delayed ACK make 40 ms of every answer but a connection's first."""
    accepted: list[int] = []

    def look(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        found = writer.get_extra_info("socket")
        accepted.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        with listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(look, sock=listening):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()

    asyncio.run(connect())
    assert accepted == [1]


def test_taken_port_is_one_line(project: ProjectFolder) -> None:
    with running(settings_for(project)) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            serve(settings_for(project, port=port))
        with start(project, port) as process:
            _, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert error.count("\n") == 1
    with running(settings_for(project, port=port)) as again:
        assert again.url == server.url


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70000), ("256.0.0.1", 0), ("no.such.host.invalid", 0)]
)
def test_addresses_that_cannot_be_had(host: str, port: int) -> None:
    with pytest.raises(ServeError, match="cannot listen on"):
        listen(host, port)


def test_ipv6(project: ProjectFolder) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listen("::1", 0).close()
    except ServeError:
        pytest.skip("no IPv6 here")
    with running(settings_for(project, host="::1")) as server:
        assert server.url.startswith("http://[::1]:")
        with urllib.request.urlopen(server.url + "/health", timeout=60) as answer:
            assert answer.status == 200


def test_url_of() -> None:
    with listen("127.0.0.1", 0) as found:
        assert url_of(found) == f"http://127.0.0.1:{found.getsockname()[1]}"


def test_base_that_is_missing_or_no_gguf(tmp_path: Path) -> None:
    for data in (None, b"", b"no model at all"):
        path = tmp_path / "base.gguf"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(BaseModelError) as error:
            Server(ServeSettings(path, port=0))
        assert str(path) in str(error.value)


def test_base_that_does_not_load(base: BaseInfo, project: ProjectFolder, tmp_path: Path) -> None:
    """The header is fine, so the fault shows only in llama.cpp."""
    data = base.path.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    settings = replace(settings_for(project), base=cut)
    with pytest.raises(SkillcError) as error, running(settings):
        pass
    assert str(cut) in str(error.value)
    assert "\n" not in str(error.value)
    ready: list[str] = []
    with pytest.raises(SkillcError):
        serve(settings, ready.append)
    assert ready == []


def test_loading_is_said_so(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}]}).encode()

    def verify(registry: Registry) -> dict[str, str]:
        for path, data in (("/health", None), ("/metrics", None), ("/v1/models", None)):
            asked.append(ask(server.url + path, data))
        return {}

    def load(base: BaseInfo, **options: Any) -> Engine:
        wait_for(lambda: server.started)
        asked.append(ask(server.url + "/v1/chat/completions", body))
        return Engine(base, **options)

    monkeypatch.setattr(Registry, "verify", verify)
    monkeypatch.setattr("skillc_runtime.server.Engine", load)
    server = Server(settings_for(project))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.ready.wait(60)
    asked.append(ask(server.url + "/health", None))
    server.stop()
    thread.join()
    assert [status for status, _ in asked] == [503, 503, 200, 200, 200]
    assert '"code":"loading"' in asked[0][1]
    assert '"status":"loading"' in asked[1][1]


def ask(url: str, data: bytes | None) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, data, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_small_bases_take_one_thread() -> None:
    assert default_threads(1 << 20) == 1
    assert 1 <= default_threads(1 << 30) <= 8

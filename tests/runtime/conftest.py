"""One tiny random base, one engine and one server for all tests of the runtime."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from tests.compiler import tiny
from tests.runtime.stand_in import scripted
from tests.runtime.support import ProjectFolder, write_adapter

from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.server import Server, running
from skillc_runtime.settings import ServeSettings

CONTEXT = 1024


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseInfo:
    """A Qwen3 base of two layers with random weights."""
    path = tmp_path_factory.mktemp("base") / "tiny.gguf"
    return tiny.write_base(path, max_position_embeddings=CONTEXT)


@pytest.fixture(scope="session")
def engine(base: BaseInfo) -> Iterator[Engine]:
    """An engine shared by tests that leave nothing behind in it but loaded adapters."""
    engine = Engine(base, n_threads=1)
    yield engine
    engine.close()


def engines(base: BaseInfo, **defaults: Any) -> Iterator[Callable[..., Engine]]:
    """What makes engines of a base, which are closed at the end."""
    made: list[Engine] = []

    def make(**options: Any) -> Engine:
        made.append(Engine(base, **{"n_threads": 1, **defaults, **options}))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def fresh(base: BaseInfo) -> Iterator[Callable[..., Engine]]:
    """Makes engines of the test's own."""
    yield from engines(base)


@pytest.fixture(scope="session")
def adapters(base: BaseInfo, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Four random adapters at scale 1."""
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder, base, seed) for seed in range(4)]


def fill(folder: ProjectFolder) -> ProjectFolder:
    """Skills served in every way."""
    folder.add("deploy", 1)
    folder.add("style", 2)
    folder.add("notes", 3, "text")
    folder.add("broken-idea", 4, "off")
    return folder


def settings_for(project: ProjectFolder, **changes: Any) -> ServeSettings:
    """A server of the project on a free port."""
    values = {
        "project": project.root,
        "port": 0,
        "n_threads": 1,
        "stop_seconds": 1.0,
        "in_process": True,
        **changes,
    }
    return ServeSettings(project.base.path, **values)


@pytest.fixture
def project(base: BaseInfo, tmp_path: Path) -> ProjectFolder:
    """A project of the test's own."""
    return fill(ProjectFolder(tmp_path, base))


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Message
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, whose shape is checked."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return error

    @property
    def events(self) -> list[Any]:
        """The JSON of a stream's events, whose end is checked."""
        lines = [line for line in self.text.split("\n\n") if line and not line.startswith(":")]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class Client:
    """Asks a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def send(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """GET, or POST when there is a body (bytes as they are, anything else as JSON)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read().decode())

    def chat(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("/v1/chat/completions", body, headers)

    def text(self, body: Mapping[str, Any]) -> str:
        """The text of a chat answer that must succeed."""
        reply = self.chat(body)
        assert reply.status == 200, reply.text
        return str(reply.json["choices"][0]["message"]["content"])


@pytest.fixture
def client(project: ProjectFolder) -> Iterator[Client]:
    """A client of a server of the test's own project."""
    with running(settings_for(project)) as server:
        yield Client(server)


@pytest.fixture(scope="session")
def shared(base: BaseInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of one server for all tests that change nothing in its project."""
    project = fill(ProjectFolder(tmp_path_factory.mktemp("project"), base))
    with running(settings_for(project)) as server:
        yield Client(server)


@pytest.fixture
def says(shared: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the shared server's engine says instead of what the random base would."""
    return scripted(shared.server, monkeypatch)

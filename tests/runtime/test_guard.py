"""Who may ask: host names, origins, tokens."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder

from skillc_compiler.errors import ServeError
from skillc_runtime.guard import host_name, is_loopback
from skillc_runtime.server import Server, running


def raw(client: Client, *lines: str) -> int:
    """The status of a request written by hand."""
    place = urlsplit(client.server.url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), timeout=60) as link:
        link.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = link.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:8191", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:8191", 200),
        ("localhost.", 403),
        ("localhost.evil.example", 403),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.2", 403),
        ("0.0.0.0", 403),
        ("[::ffff:127.0.0.1]", 403),
        ("::1", 403),
        ("[::1", 403),
        ("[::1]evil", 403),
        ("localhost:", 403),
        ("localhost:80:80", 403),
        ("localhost:evil", 403),
        ("user@localhost", 403),
        ("2130706433", 403),
        ("", 403),
    ],
)
def test_host_names(shared: Client, host: str, status: int) -> None:
    assert raw(shared, "GET /health HTTP/1.1", f"Host: {host}") == status


def test_host_must_be_one(shared: Client) -> None:
    assert raw(shared, "GET /health HTTP/1.0") == 403
    lines = ("GET /health HTTP/1.1", "Host: localhost", "Host: evil.example")
    assert raw(shared, *lines) in (400, 403)
    assert raw(shared, "GET http://evil.example/health HTTP/1.1", "Host: evil.example") == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://localhost.evil.example", 403),
        ("http://[", 403),
    ],
)
def test_origins(shared: Client, origin: str, status: int) -> None:
    reply = shared.send("/v1/models", headers={"Origin": origin})
    assert reply.status == status
    assert reply.headers["Access-Control-Allow-Origin"] is None


def test_token(project: ProjectFolder) -> None:
    with running(settings_for(project, token="secret")) as server:
        client = Client(server)
        assert client.send("/health").status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}):
            assert client.send("/v1/models", headers=headers).error["code"] == "invalid_api_key"
        good = {"Authorization": "Bearer secret"}
        assert client.send("/v1/models", headers=good).status == 200


def test_open_to_others_only_with_a_token(project: ProjectFolder) -> None:
    with pytest.raises(ServeError, match="set an API key"):
        Server(settings_for(project, host="0.0.0.0"))
    with running(settings_for(project, host="0.0.0.0", token="secret")) as server:
        lines = ("GET /v1/models HTTP/1.1", "Host: name.of.this.machine")
        assert raw(Client(server), *lines) == 401
        assert raw(Client(server), *lines, "Authorization: Bearer secret") == 200


def test_host_name() -> None:
    assert host_name("LOCALHOST:80") == "localhost"
    assert host_name("[::1]:80") == "[::1]"
    assert host_name("a:b") == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.5", True), ("::1", True), ("0.0.0.0", False), ("x", False)],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback

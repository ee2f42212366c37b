"""Listening sockets and what is said when there is none."""

from __future__ import annotations

import pytest

from skillc.ports import is_free, listen
from skillc_compiler.errors import ServeError

HOST = "127.0.0.1"


def test_zero_takes_a_free_port() -> None:
    with listen(HOST, 0) as sock:
        assert sock.getsockname()[1] > 0


def test_a_taken_port_is_one_line() -> None:
    with listen(HOST, 0) as sock:
        port = sock.getsockname()[1]
        assert not is_free(HOST, port)
        with pytest.raises(ServeError, match=f"port {port} on {HOST} is taken: choose another"):
            listen(HOST, port)
    assert is_free(HOST, port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_such_port(port: int) -> None:
    with pytest.raises(ServeError, match="does not exist"):
        listen(HOST, port)


def test_no_such_host() -> None:
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1:0"):
        listen("192.0.2.1", 0)

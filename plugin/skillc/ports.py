"""Ports to listen on: taken or free, known before a model is loaded."""

from __future__ import annotations

import errno
import socket

from skillc_compiler.errors import ServeError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8420


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket at `host`:`port` (0 takes a free port); ServeError when taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Not on Windows, where it would let two servers share a port.
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise ServeError(explain(error, host, port)) from error
    except OverflowError as error:
        sock.close()
        raise ServeError(f"port {port} does not exist: use 0 to 65535") from error
    return sock


def explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: choose another with --port, or --port 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights: choose one above 1023 with --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}"


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens at `host`:`port` just now."""
    try:
        listen(host, port).close()
    except ServeError:
        return False
    return True

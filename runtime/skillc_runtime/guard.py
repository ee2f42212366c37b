"""What a request must pass before anything reads it: host, origin, token, size of the body.

A page in the user's browser can reach a server on this machine; these checks keep it out.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Sequence
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skillc_runtime.api_error import ApiError, error_body

MAX_BODY = 8 << 20
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/health",)


class Guard:
    """ASGI middleware; refuses with an error in the shape of the API that was asked."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        hosts: Sequence[str] = (),
        token: str | None = None,
        body_seconds: float = 30.0,
    ) -> None:
        """`host` is what the server is bound to, `hosts` are further names it may be called by.

        A body must be there `body_seconds` after its first part was waited for.
        """
        self._body_seconds = body_seconds
        self._app = app
        bound = f"[{host}]" if ":" in host else host
        self._hosts = frozenset(map(str.lower, (*LOCAL_HOSTS, bound, *hosts)))
        # A server open to others has names it cannot know, and a token no web page knows.
        self._any_host = token is not None and not is_loopback(host)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            response = JSONResponse(error_body(scope["path"], error), error.status, error.headers())
            await response(scope, receive, send)
            return
        await self._app(scope, bounded(receive, self._body_seconds), send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            raise ApiError(403, "this host name is not served here", code="host_not_allowed")
        for origin in headers.getlist("origin"):
            if not self._is_own(origin):
                raise ApiError(403, "pages of other sites may not ask", code="origin_not_allowed")
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            given = given or headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                raise ApiError(401, "a valid API key is needed", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY:
            raise too_large()

    def _is_known(self, host: str) -> bool:
        return self._any_host or host_name(host) in self._hosts

    def _is_own(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and host_name(parts.netloc) in self._hosts


def host_name(host: str) -> str:
    """The lower-case name in a Host header without its port; empty when it is malformed."""
    name, bracket, port = host.rpartition("]") if host.startswith("[") else ("", "", host)
    if not bracket:
        name, _, port = host.partition(":")
        port = f":{port}" if _ else ""
    good = not port or (port[0] == ":" and port[1:].isdecimal())
    return (name + bracket).lower() if good else ""


def is_loopback(host: str) -> bool:
    """Whether binding to `host` keeps the server on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bounded(receive: Receive, seconds: float) -> Receive:
    """`receive` that fails once a body grows too large or takes longer than `seconds`."""
    size, ends, whole = 0, 0.0, False

    async def limited() -> Message:
        nonlocal size, ends, whole
        ends = ends or monotonic() + seconds
        try:
            # Once the body is there, the next message is that the client has gone: wait for it.
            left = None if whole else max(0.0, ends - monotonic())
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            line = f"the body took longer than {seconds:g} s"
            raise ApiError(408, line, code="request_timeout") from None
        whole = not message.get("more_body", False)
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise too_large()
        return message

    return limited


def too_large() -> ApiError:
    """The 413 for a body over the cap."""
    return ApiError(413, f"the body is over {MAX_BODY >> 20} MiB", code="request_too_large")

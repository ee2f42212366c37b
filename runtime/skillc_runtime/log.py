"""One line of JSON a request: what was asked and what it cost, never what was said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

FACTS = "skillc.facts"
"""The key of an ASGI scope under which an answer leaves what the log says of it."""

# How agents name their session: OpenCode, Claude Code, Codex.
_SESSION = (b"x-session-id", b"x-claude-code-session-id", b"session-id", b"session_id")
_PARENT = (b"x-parent-session-id",)
_LONGEST = 100


def log_line(scope: Mapping[str, Any], status: int, seconds: float) -> str:
    """The line of a request that has ended; status 0: the client went away before an answer."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
        "session": _named(scope, _SESSION),
        "parent": _named(scope, _PARENT),
        **scope.get(FACTS, {}),
    }
    return json.dumps(facts)


def _named(scope: Mapping[str, Any], names: Sequence[bytes]) -> str | None:
    """The first of the headers `names` that the request has, cut to a length that logs bear."""
    headers = dict(scope.get("headers", ()))
    found = next((headers[name] for name in names if name in headers), None)
    return None if found is None else found.decode("latin-1")[:_LONGEST]

"""One line of JSON a request: what was asked and what it cost, never what was said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

FACTS = "skillc.facts"
"""The key of an ASGI scope under which an answer leaves what the log says of it."""


def log_line(scope: Mapping[str, Any], status: int, seconds: float) -> str:
    """The line of a request that has ended; status 0: the client went away before an answer."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
        **scope.get(FACTS, {}),
    }
    return json.dumps(facts)

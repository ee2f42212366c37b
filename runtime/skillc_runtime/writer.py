"""What every API's way of writing an answer has in common."""

from __future__ import annotations

import json
from typing import Any, Protocol

from skillc_runtime.api_error import ApiError
from skillc_runtime.reply import Delta
from skillc_runtime.running import Running

PING = ": ping\n\n"


class Writer(Protocol):
    """Writes one answer, whole or as server-sent events."""

    @property
    def running(self) -> Running: ...

    def whole(self) -> dict[str, Any]:
        """The answer that is not streamed."""

    def first(self) -> str:
        """The events before the first of the text."""

    def delta(self, index: int, delta: Delta) -> str:
        """More of the choice `index`."""

    def last(self) -> str:
        """The end of the stream."""

    def failed(self, error: ApiError) -> str:
        """The end of a stream that cannot be finished."""


def event(data: dict[str, Any], name: str | None = None) -> str:
    """A server-sent event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"

"""Answers as Anthropic's messages API gives them, whole and streamed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from skillc_runtime.api_error import ApiError, anthropic_body
from skillc_runtime.call_parts import parse
from skillc_runtime.reply import Delta
from skillc_runtime.running import Running
from skillc_runtime.writer import event

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@dataclass(slots=True)
class MessagesWriter:
    """Writes one answer; see `Writer`."""

    running: Running
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    _block: int = -1
    _call: int | None = None  # the call whose block is open; None: a text's, or none is
    _open: bool = False

    def whole(self) -> dict[str, Any]:
        reply = self.running.replies[0]
        text = [{"type": "text", "text": reply.text}] if reply.text else []
        return self._message(text + [_tool_use(call) for call in reply.calls])

    def first(self) -> str:
        return _event("message_start", message=self._message([]))

    def delta(self, index: int, delta: Delta) -> str:
        if "content" in delta:
            start = "" if self._open and self._call is None else self._start_text()
            return start + self._more({"type": "text_delta", "text": delta["content"]})
        (call,) = delta["tool_calls"]
        if "id" in call:
            return self._start_call(call)
        return self._more(
            {"type": "input_json_delta", "partial_json": call["function"]["arguments"]}
        )

    def last(self) -> str:
        end = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence()}
        usage, report = self._usage(), self.running.report()
        return (
            self._close()
            + _event("message_delta", delta=end, usage=usage, skillc=report)
            + _event("message_stop")
        )

    def failed(self, error: ApiError) -> str:
        return event(anthropic_body(error), "error")

    def _start_text(self) -> str:
        closed = self._close()
        self._call = None
        return closed + self._begin({"type": "text", "text": ""})

    def _start_call(self, call: dict[str, Any]) -> str:
        closed = self._close()
        self._call = call["index"]
        name = call["function"]["name"]
        block = {"type": "tool_use", "id": call["id"], "name": name, "input": {}}
        return closed + self._begin(block)

    def _begin(self, block: dict[str, Any]) -> str:
        self._block += 1
        self._open = True
        return _event("content_block_start", index=self._block, content_block=block)

    def _more(self, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", index=self._block, delta=delta)

    def _close(self) -> str:
        was_open, self._open = self._open, False
        return _event("content_block_stop", index=self._block) if was_open else ""

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.running.prepared.model,
            "content": content,
            "stop_reason": self._stop_reason(),
            "stop_sequence": self._stop_sequence(),
            "usage": self._usage(),
            "skillc": self.running.report(),
        }

    def _stop_reason(self) -> str | None:
        reply = self.running.replies[0]
        if reply.finish_reason == "stop" and reply.stopped_by is not None:
            return "stop_sequence"
        return _REASONS[reply.finish_reason] if reply.finish_reason else None

    def _stop_sequence(self) -> str | None:
        return self.running.replies[0].stopped_by

    def _usage(self) -> dict[str, int]:
        usage = self.running.usage()
        return {
            "input_tokens": usage.prompt - usage.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.completion,
        }


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    text = call["function"]["arguments"]
    given = parse(text or "{}")
    # Here arguments are an object; what a cut answer left of them must not look like a good one.
    known = given if isinstance(given, dict) else {"malformed_arguments": text}
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": known}


def _event(kind: str, **values: Any) -> str:
    return event({"type": kind, **values}, kind)

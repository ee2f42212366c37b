"""Answers as OpenAI's responses API gives them, whole and streamed."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from skillc_runtime.api_error import ApiError
from skillc_runtime.call_parts import parse
from skillc_runtime.fields import Body
from skillc_runtime.reply import Delta
from skillc_runtime.running import Running
from skillc_runtime.writer import event

_ECHOED = ("instructions", "metadata", "temperature", "top_p", "max_output_tokens")
Item = dict[str, Any]


@dataclass(slots=True)
class ResponsesWriter:
    """Writes one answer; see `Writer`."""

    running: Running
    body: Body
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    _items: list[Item] = field(default_factory=list)
    _events: int = 0

    def whole(self) -> dict[str, Any]:
        reply = self.running.replies[0]
        items = [_message(reply.text)] if reply.text else []
        for call in reply.calls:
            items.append(_call(call["id"], call["function"]["name"]))
            items[-1]["arguments"] = call["function"]["arguments"]
        status = self._status()
        self._items = [_done(item) for item in items[:-1]]
        self._items += [_done(item, status) for item in items[-1:]]
        return self._response(status)

    def first(self) -> str:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def delta(self, index: int, delta: Delta) -> str:
        if "content" in delta:
            start = "" if self._is_open("message") else self._start(_message(""))
            return start + self._say(delta["content"])
        (call,) = delta["tool_calls"]
        if "id" in call:
            return self._start(_call(call["id"], call["function"]["name"]))
        return self._argue(call["function"]["arguments"])

    def last(self) -> str:
        status = self._status()
        closed = self._close(status)
        return closed + self._event(f"response.{status}", response=self._response(status))

    def failed(self, error: ApiError) -> str:
        response = self._response("failed")
        response["error"] = {"code": "server_error", "message": error.message}
        return self._event("response.failed", response=response)

    def _is_open(self, kind: str) -> bool:
        item = self._items[-1] if self._items else {}
        return item.get("type") == kind and item["status"] == "in_progress"

    def _start(self, item: Item) -> str:
        closed = self._close()
        self._items.append(item)
        shown = {**item, "content": []} if item["type"] == "message" else dict(item)
        started = self._event("response.output_item.added", **self._at(), item=shown)
        if item["type"] == "message":
            place = {**self._place(), "content_index": 0}
            started += self._event("response.content_part.added", **place, part=_part(""))
        return closed + started

    def _say(self, text: str) -> str:
        self._items[-1]["content"][0]["text"] += text
        place = {**self._place(), "content_index": 0, "logprobs": []}
        return self._event("response.output_text.delta", **place, delta=text)

    def _argue(self, text: str) -> str:
        self._items[-1]["arguments"] += text
        return self._event("response.function_call_arguments.delta", **self._place(), delta=text)

    def _close(self, status: str = "completed") -> str:
        """End the item that is open; `status`: how the answer ends with it."""
        if not self._items or self._items[-1]["status"] != "in_progress":
            return ""
        item = self._items[-1] = _done(self._items[-1], status)
        place = self._place()
        if item["type"] == "message":
            place["content_index"] = 0
            (part,) = item["content"]
            ended = self._event(
                "response.output_text.done", **place, logprobs=[], text=part["text"]
            )
            ended += self._event("response.content_part.done", **place, part=part)
        else:
            whole = {"arguments": item["arguments"], "name": item["name"]}
            ended = self._event("response.function_call_arguments.done", **place, **whole)
        return ended + self._event("response.output_item.done", **self._at(), item=item)

    def _at(self) -> dict[str, Any]:
        return {"output_index": len(self._items) - 1}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], **self._at()}

    def _status(self) -> str:
        cut = self.running.replies[0].finish_reason == "length"
        return "incomplete" if cut else "completed"

    def _event(self, kind: str, **values: Any) -> str:
        number, self._events = self._events, self._events + 1
        return event({"type": kind, "sequence_number": number, **values}, kind)

    def _response(self, status: str) -> dict[str, Any]:
        body, usage = self.body, self.running.usage()
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self.running.prepared.model,
            "output": list(self._items),
            **{key: body.get(key) for key in _ECHOED},
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "text": body.get("text") or {"format": {"type": "text"}},
            "previous_response_id": None,
            "store": False,
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt + usage.completion,
            },
            "skillc": self.running.report(),
        }


def _message(text: str) -> Item:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [_part(text)],
    }


def _part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(call_id: str, name: str) -> Item:
    return {
        "id": f"fc_{secrets.token_hex(12)}",
        "type": "function_call",
        "status": "in_progress",
        "call_id": call_id,
        "name": name,
        "arguments": "",
    }


def _done(item: Item, status: str = "completed") -> Item:
    """`item`, ended as the answer was; a call that is whole is good, however the answer ends."""
    if item["type"] == "function_call" and isinstance(parse(item["arguments"]), dict):
        status = "completed"
    return {**item, "status": status}

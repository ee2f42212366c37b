"""The JSON of answers, whole and streamed, for chats and plain completions."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from skillc_runtime.reply import Delta
from skillc_runtime.running import Running


@dataclass(frozen=True, slots=True)
class Format:
    """What differs between the two kinds of answers."""

    prefix: str
    whole: str
    chunk: str
    chat: bool


CHAT = Format("chatcmpl", "chat.completion", "chat.completion.chunk", True)
TEXT = Format("cmpl", "text_completion", "text_completion", False)


@dataclass(slots=True)
class Writer:
    """Writes one answer."""

    form: Format
    running: Running
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self) -> dict[str, Any]:
        """The answer that is not streamed."""
        reply = self.running.reply
        choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish_reason}
        if self.form.chat:
            choice |= {"message": reply.message(), "logprobs": self._logprobs()}
        else:
            choice |= {"text": reply.text, "logprobs": None}
        return {
            **self._head(self.form.whole),
            "choices": [choice],
            "usage": reply.usage(),
            "skillc": self.running.report(),
        }

    def first(self) -> str:
        """The chunk that says who speaks; chats only."""
        return self._chunk({"role": "assistant", "content": ""}) if self.form.chat else ""

    def delta(self, delta: Delta) -> str:
        """A chunk with more of the answer."""
        return self._chunk(delta)

    def last(self) -> str:
        """The end: finish reason, then usage if asked for, then the mark of the end."""
        report = self.running.report()
        end = self._chunk({}, self.running.reply.finish_reason, skillc=report)
        if self.running.prepared.include_usage:
            usage = {"choices": [], "usage": self.running.reply.usage(), "skillc": report}
            end += event({**self._head(self.form.chunk), **usage})
        return end + DONE

    def _chunk(self, delta: Delta, finish_reason: str | None = None, **more: Any) -> str:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        if self.form.chat:
            choice |= {"delta": delta, "logprobs": self._logprobs()}
        else:
            choice |= {"text": delta.get("content", ""), "logprobs": None}
        chunk = {**self._head(self.form.chunk), "choices": [choice], **more}
        if self.running.prepared.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _logprobs(self) -> dict[str, Any] | None:
        if self.running.prepared.sampling.logprobs is None:
            return None
        return {"content": self.running.reply.take_logprobs(), "refusal": None}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.form.prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.running.prepared.model,
        }


DONE = "data: [DONE]\n\n"
PING = ": ping\n\n"


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

"""OpenAI's JSON of answers, whole and streamed, for chats and plain completions."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from skillc_runtime.api_error import ApiError
from skillc_runtime.reply import Delta, Reply
from skillc_runtime.running import Running
from skillc_runtime.writer import event


@dataclass(frozen=True, slots=True)
class Format:
    """What differs between the two kinds of answers."""

    prefix: str
    whole: str
    chunk: str
    chat: bool


CHAT = Format("chatcmpl", "chat.completion", "chat.completion.chunk", True)
TEXT = Format("cmpl", "text_completion", "text_completion", False)
DONE = "data: [DONE]\n\n"


@dataclass(slots=True)
class CompletionWriter:
    """Writes one answer; see `Writer`."""

    form: Format
    running: Running
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: Counter[int] = field(default_factory=Counter)

    def whole(self) -> dict[str, Any]:
        return {
            **self._head(self.form.whole),
            "choices": [self._whole(i, reply) for i, reply in enumerate(self.running.replies)],
            "usage": self._usage(),
            "skillc": self.running.report(),
        }

    def _whole(self, index: int, reply: Reply) -> dict[str, Any]:
        own = {"message": reply.message()} if self.form.chat else {"text": reply.text}
        return {
            "index": index,
            "finish_reason": reply.finish_reason,
            **own,
            "logprobs": self._logprobs(index),
        }

    def first(self) -> str:
        if not self.form.chat:
            return ""
        speaker = {"role": "assistant", "content": ""}
        return "".join(self._chunk(i, speaker) for i in range(len(self.running.replies)))

    def delta(self, index: int, delta: Delta) -> str:
        return self._chunk(index, delta)

    def last(self) -> str:
        """Each choice's finish reason, then usage if asked for, then the mark of the end."""
        report = self.running.report()
        end = "".join(
            self._chunk(i, {}, reply.finish_reason, skillc=report)
            for i, reply in enumerate(self.running.replies)
        )
        if self.running.prepared.include_usage:
            usage = {"choices": [], "usage": self._usage(), "skillc": report}
            end += event({**self._head(self.form.chunk), **usage})
        return end + DONE

    def failed(self, error: ApiError) -> str:
        return event(error.body()) + DONE

    def _chunk(
        self, index: int, delta: Delta, finish_reason: str | None = None, **more: Any
    ) -> str:
        own = {"delta": delta} if self.form.chat else {"text": delta.get("content", "")}
        choice = {
            "index": index,
            "finish_reason": finish_reason,
            **own,
            "logprobs": self._logprobs(index),
        }
        chunk = {**self._head(self.form.chunk), "choices": [choice], **more}
        if self.running.prepared.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _logprobs(self, index: int) -> dict[str, Any] | None:
        if self.running.prepared.sampling.logprobs is None:
            return None
        entries = self.running.replies[index].take_logprobs()
        if self.form.chat:
            return {"content": entries, "refusal": None}
        offsets = []
        for entry in entries:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in reversed(entry["top_logprobs"])}
                for entry in entries
            ],
            "text_offset": offsets,
        }

    def _usage(self) -> dict[str, Any]:
        usage = self.running.usage()
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.form.prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.running.prepared.model,
        }

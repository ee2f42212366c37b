"""An answer on its way from the engine's events to what OpenAI clients read."""

from __future__ import annotations

from typing import Any

from skillc_runtime.call_parser import CallParser
from skillc_runtime.call_parts import CallArguments, CallStart, Content, Part
from skillc_runtime.events import Event, Finish, Piece, Started
from skillc_runtime.llama import Vocab
from skillc_runtime.sampling import Choice

Delta = dict[str, Any]


class Reply:
    """Takes events, gives deltas; afterwards it is the whole message.

    `prefix` is what the answer was made to begin with, `parser` what looks for calls.
    """

    def __init__(self, vocab: Vocab, *, parser: CallParser | None = None, prefix: str = "") -> None:
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.tokens = 0
        self.finish_reason: str | None = None
        self.stopped_by: str | None = None
        self.cancelled = False
        self._vocab = vocab
        self._parser = parser
        self._prefix = prefix

    def take(self, event: Event) -> list[Delta]:
        """What a client that reads along gets for `event`."""
        if isinstance(event, Started):
            self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
            return self._deltas(self._feed(self._prefix))
        if isinstance(event, Piece):
            self.tokens += 1
            if event.choice.logprob is not None:
                self.logprobs.append(self._logprob(event.choice))
            return self._deltas(self._feed(event.text))
        return self._end(event)

    def message(self) -> dict[str, Any]:
        """The whole message."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            message["content"] = self.text or None
            message["tool_calls"] = self.calls
        return message

    def take_logprobs(self) -> list[dict[str, Any]]:
        """The log probabilities since the last call."""
        found, self.logprobs = self.logprobs, []
        return found

    def cut(self) -> list[Delta]:
        """End the answer where it is, as one whose room has run out."""
        return self._end(Finish("length"))

    def _end(self, event: Finish) -> list[Delta]:
        parts = self._feed(event.text)
        if self._parser is not None:
            parts += self._parser.finish()
        deltas = self._deltas(parts)
        self.stopped_by = event.stopped_by
        self.cancelled = event.reason == "cancelled"
        self.finish_reason = "stop" if self.cancelled else event.reason
        if self.calls and event.reason == "stop":
            self.finish_reason = "tool_calls"
        return deltas

    def _feed(self, text: str) -> list[Part]:
        if self._parser is not None:
            return self._parser.feed(text)
        return [Content(text)] if text else []

    def _deltas(self, parts: list[Part]) -> list[Delta]:
        return [self._delta(part) for part in parts]

    def _delta(self, part: Part) -> Delta:
        if isinstance(part, Content):
            self.text += part.text
            return {"content": part.text}
        if isinstance(part, CallStart):
            head = {"id": part.id, "type": "function"}
            self.calls.append({**head, "function": {"name": part.name, "arguments": ""}})
            function = {"name": part.name, "arguments": ""}
            return {"tool_calls": [{"index": part.index, **head, "function": function}]}
        self.calls[part.index]["function"]["arguments"] += part.fragment
        return {"tool_calls": [_fragment(part)]}

    def _logprob(self, choice: Choice) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in choice.top]
        return {**self._token(choice.token, choice.logprob or 0.0), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._vocab.piece(token)
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": logprob,
            "bytes": list(data),
        }


def _fragment(part: CallArguments) -> dict[str, Any]:
    return {"index": part.index, "function": {"arguments": part.fragment}}

"""A small client of the OpenAI chat API: asks one streamed question and times it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from skillc_compiler.errors import ServeError

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: its text, the prompt's tokens, and the seconds until the first piece of text.

    `attached` is what the server says of the skills: how each was served, by name.
    """

    text: str
    prompt_tokens: int
    first_token_s: float
    attached: Mapping[str, str] = field(default_factory=dict)


def ask(
    url: str,
    model: str,
    messages: Sequence[Message],
    *,
    max_tokens: int = 48,
    timeout: float = 60.0,
) -> Answer:
    """Ask `model` at the server `url` (as in http://127.0.0.1:8080), greedily; ServeError else."""
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    pieces: list[str] = []
    usage: dict[str, Any] = {}
    attached: dict[str, str] = {}
    started = time.perf_counter()
    first: float | None = None
    for event in post_events(url, "/v1/chat/completions", body, timeout):
        usage = event.get("usage") or usage
        for skill in event.get("skillc", {}).get("attached", []):
            attached[skill["name"]] = skill["as"]
        text = "".join(c.get("delta", {}).get("content") or "" for c in event.get("choices", []))
        if text:
            first = first or time.perf_counter() - started
            pieces.append(text)
    if "prompt_tokens" not in usage:
        raise ServeError(f"{url}: the answer of {model} carries no usage")
    spent = time.perf_counter() - started if first is None else first
    return Answer("".join(pieces), int(usage["prompt_tokens"]), spent, attached)


def post_events(
    url: str, path: str, body: dict[str, Any], timeout: float
) -> Iterator[dict[str, Any]]:
    """Post `body` as JSON and yield the server-sent events up to `[DONE]`; ServeError else."""
    with_host = urlsplit(url)
    connection = http.client.HTTPConnection(with_host.netloc, timeout=timeout)
    try:
        # The text arm of a comparison must stay text.
        headers = {"Content-Type": "application/json", "X-Skillc-Elide": "off"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ServeError(f"{url}{path}: {response.status}: {error_text(response.read())}")
        for raw in response:
            line = raw.decode("utf-8").strip()
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise ServeError(f"{url}{path}: {error_text(line[6:].encode())}")
                yield event
        raise ServeError(f"{url}{path}: the answer broke off")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServeError(f"{url}{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def error_text(body: bytes) -> str:
    """The message inside an OpenAI error object, or the start of whatever came instead."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", errors="replace")


def is_healthy(url: str) -> bool:
    """Whether the server's /health answers 200."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

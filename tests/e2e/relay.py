"""Between a client and our server: notes every request and its report, and may speak for the model.

A user message with lines `CALL tool {json}` is a script: the n-th answer to it makes the n-th call,
the last one is text.  The real server gets every request all the same, so that its answer to what
the client really sent (skills attached, tokens) is noted.  Other requests are passed through.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TIMEOUT = 300
_DONE = b"data: [DONE]\n\n"
_KEPT = ("content-type", "authorization", "session_id")
_JSON = "application/json"
_CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Seen:
    """A chat request as the client sent it, and what the server reported of it."""

    headers: Mapping[str, str]
    body: Mapping[str, Any]
    status: int
    report: Mapping[str, Any]
    answer: bytes = b""
    path: str = _CHAT

    @property
    def text(self) -> str:
        """Everything that the model would read."""
        return json.dumps([self.body["messages"], self.body.get("tools")], ensure_ascii=False)

    @property
    def system(self) -> str:
        return "\n".join(_text(one) for one in self.body["messages"] if one["role"] == "system")

    @property
    def asked(self) -> str | None:
        """The skills that the plugin named."""
        return self.headers.get("x-skillc-skills")

    @property
    def attached(self) -> list[str]:
        """The skills that the server attached."""
        return sorted(one["name"] for one in self.report.get("attached", ()))

    @property
    def commands(self) -> list[str]:
        """The shell commands that the real server's answer called for."""
        arguments: dict[int, str] = {}
        for event in self.events():
            for choice in event.get("choices", ()):
                for call in choice.get("delta", {}).get("tool_calls") or ():
                    piece = call["function"].get("arguments") or ""
                    arguments[call["index"]] = arguments.get(call["index"], "") + piece
        return [command for text in arguments.values() if (command := _command(text)) is not None]

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools") or ()]

    def events(self) -> list[dict[str, Any]]:
        """The events of the real server's streamed answer."""
        lines = self.answer.decode("utf-8", "replace").splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def error(self) -> str:
        """What the server said that was wrong with it."""
        return "" if self.status == 200 else str(json.loads(self.answer)["error"]["message"])


@dataclass(slots=True)
class Relay:
    """Where clients reach it, and what it has seen."""

    url: str
    upstream: str | None
    seen: list[Seen] = field(default_factory=list)
    one_step: bool = False  # whether to end every task after its first tool call

    def take(self) -> list[Seen]:
        """What was seen since the last call."""
        found, self.seen[:] = list(self.seen), []
        return found


@contextmanager
def relaying(upstream: str | None) -> Iterator[Relay]:
    """A relay to the server at `upstream` (None: there is none), on a free port."""
    relay = Relay("", upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._send(*_ask(relay.upstream, self.path, None, dict(self.headers)))

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = _scripted(json.loads(raw), relay.one_step) if self.path == _CHAT else None
            if call is None:
                status, kind, data = _ask(relay.upstream, self.path, raw, headers)
                self._note(headers, raw, status, _last_report(data), data)
                self._send(status, kind, data)
                return
            short = {**json.loads(raw), "stream": False, "max_tokens": 1}
            short.pop("stream_options", None)
            status, _, data = _ask(relay.upstream, self.path, json.dumps(short).encode(), headers)
            self._note(headers, raw, status, json.loads(data).get("skillc", {}))
            self._send(200, "text/event-stream", _stream(call))

        def _note(
            self,
            headers: Mapping[str, str],
            raw: bytes,
            status: int,
            report: Mapping[str, Any],
            answer: bytes = b"",
        ) -> None:
            path = self.path.partition("?")[0]
            relay.seen.append(Seen(headers, json.loads(raw), status, report, answer, path))

        def _send(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    relay.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _ask(
    upstream: str | None, path: str, data: bytes | None, headers: Mapping[str, str]
) -> tuple[int, str, bytes]:
    """Status, content type and body of the server's answer."""
    if upstream is None:
        return 502, _JSON, b"{}"
    kept = {
        name: value
        for name, value in headers.items()
        if (low := name.lower()) in _KEPT or low.endswith("session-id") or "skillc" in low
    }
    request = urllib.request.Request(upstream + path, data, kept)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), error.read()
    except OSError:
        return 502, _JSON, b"{}"


def _scripted(body: Mapping[str, Any], one_step: bool) -> tuple[str, str] | str | None:
    """The call (tool, arguments) or text that a script wants next; None when there is no script."""
    messages = body["messages"]
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return None
    lines = _text(messages[users[-1]]).splitlines()
    calls = [line.split(" ", 2)[1:] for line in lines if line.startswith("CALL ")]
    done = sum(message["role"] == "tool" for message in messages[users[-1] :])
    if not calls and not any(line.startswith("SAY ") for line in lines):
        return "done" if one_step and done else None
    if body.get("tools") and done < len(calls):
        return calls[done][0], calls[done][1]
    return f"done after {done} calls"


def _command(arguments: str) -> str | None:
    try:
        found = json.loads(arguments)
    except ValueError:
        return None
    command = found.get("command") if isinstance(found, dict) else None
    return command if isinstance(command, str) else None


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def _stream(answer: tuple[str, str] | str) -> bytes:
    delta: dict[str, Any] = {"role": "assistant"}
    if isinstance(answer, str):
        delta["content"], reason = answer, "stop"
    else:
        function = {"name": answer[0], "arguments": answer[1]}
        call = {"index": 0, "id": f"call-{id(function)}", "type": "function", "function": function}
        delta["tool_calls"], reason = [call], "tool_calls"
    chunks = [(delta, None), ({}, reason)]
    events = [
        {
            "id": "relay",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "nano",
            "choices": [{"index": 0, "delta": part, "finish_reason": finish}],
        }
        for part, finish in chunks
    ]
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + _DONE


def _last_report(data: bytes) -> Mapping[str, Any]:
    """The server's report in an answer, streamed or whole."""
    lines = data.decode("utf-8", "replace").splitlines()
    events = [line.removeprefix("data: ") for line in lines if '"skillc"' in line]
    last = json.loads(events[-1]) if events else {}
    report = last.get("response", last).get("skillc", {})  # the responses API wraps its answer
    assert isinstance(report, dict)
    return report

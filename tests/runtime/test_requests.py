"""Requests that are wrong: each a 4xx in OpenAI's shape, one line, and the server goes on."""

from __future__ import annotations

import http.client
import socket
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.runtime.conftest import Client
from tests.runtime.support import chat, user

from skillc_runtime.server import running
from skillc_runtime.settings import ServeSettings

TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": {}, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "messages[0].tool_calls",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1e999}, None),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"seed": "x"}, "seed"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"stop": 7}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logprobs": 1}, "logprobs"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes", "tools": [TOOL]}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [TOOL]},
            "tool_choice",
        ),
    ],
)
def test_wrong_fields_are_named(shared: Client, change: dict[str, Any], param: str | None) -> None:
    reply = shared.chat({**chat("tiny"), **change})
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] == param


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b'{"model": "tiny", ',
        b'{"temperature": NaN}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b'{"max_tokens": ' + b"9" * 5_000 + b"}",
    ],
)
def test_bodies_that_are_no_json_object(shared: Client, data: bytes) -> None:
    reply = shared.send("/v1/chat/completions", data)
    assert (reply.status, reply.error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "more",
    [
        {"unknown": {"deeply": ["ignored"]}},
        {"temperature": None, "stop": None, "tools": None, "seed": None, "response_format": None},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": -5},
        {"frequency_penalty": 0.5, "presence_penalty": 0.5, "logit_bias": {"40": 50}},
        {"max_completion_tokens": 3, "max_tokens": 10**30},
        {"stop": "x"},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "run"}}},
        {"response_format": {"type": "text"}, "n": 1},
        {"messages": [{"role": "developer", "content": "x"}, *user("y")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": user("lone \ud83d surrogate \x00 zero")},
        {
            "messages": [
                *user("list"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "function": {"name": "run", "arguments": '{"a": 1}'}},
                        {"id": "2", "function": {"name": "run", "arguments": "broken {"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "done"},
            ]
        },
    ],
)
def test_requests_that_are_fine(shared: Client, more: dict[str, Any]) -> None:
    reply = shared.chat({**chat("tiny:deploy"), **more})
    assert reply.status == 200, reply.text


def test_deep_tools_do_not_break_the_renderer(shared: Client) -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"properties": deep}
    tool = {"type": "function", "function": {"name": "run", "parameters": deep}}
    reply = shared.chat(chat("tiny", tools=[tool]))
    assert (reply.status, reply.error["code"]) == (400, "invalid_messages")


def test_context_code_only_when_history_is_too_long(shared: Client) -> None:
    long = "word " * 3000
    system = {"role": "system", "content": long}
    turns = [*user("a"), {"role": "assistant", "content": long}, *user("b")]
    codes = [
        shared.chat(chat("tiny", messages=messages)).error["code"]
        for messages in (turns, user(long), [system, *user("a")], [system, *turns])
    ]
    assert codes == [
        "context_length_exceeded",
        "prompt_too_long",
        "prompt_too_long",
        "prompt_too_long",
    ]


def test_unknown_places_and_methods(shared: Client) -> None:
    for path, status in (("/", 404), ("/v1/embedding", 404), ("/v1/chat/completions", 405)):
        reply = shared.send(path)
        assert (reply.status, reply.error["code"]) == (status, "no_such_endpoint")


def test_large_headers_are_refused(shared: Client) -> None:
    place = urlsplit(shared.server.url)
    for size, status in ((31 << 10, 200), (40 << 10, 400)):
        link = socket.create_connection((place.hostname or "", place.port or 0), timeout=60)
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * size)
        if status == 200:
            link.sendall(b"\r\nConnection: close\r\n\r\n")
        with link, link.makefile("rb") as answer:
            assert answer.readline().split()[1] == str(status).encode()


def test_large_bodies_are_refused(shared: Client) -> None:
    place = urlsplit(shared.server.url).netloc
    connection = http.client.HTTPConnection(place, timeout=60)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str((8 << 20) + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    connection = http.client.HTTPConnection(place, timeout=60)
    pieces = (b" " * (1 << 20) for _ in range(9))
    connection.request("POST", "/v1/chat/completions", pieces, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_logprobs(shared: Client) -> None:
    body = chat("tiny", logprobs=True, top_logprobs=2)
    choice = shared.chat(body).json["choices"][0]
    entries = choice["logprobs"]["content"]
    assert 0 < len(entries) <= 8
    for entry in entries:
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] < 0
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
    streamed = shared.chat({**body, "stream": True}).events
    parts = [chunk["choices"][0]["logprobs"]["content"] for chunk in streamed]
    assert [entry for part in parts for entry in part] == entries


@pytest.mark.parametrize(
    "prompt", [None, "", 7, [], [[]], ["a", ""], ["a"] * 17, [1, True], [-1], [1 << 40], {"a": 1}]
)
def test_wrong_prompts_of_completions(shared: Client, prompt: Any) -> None:
    reply = shared.send("/v1/completions", {"model": "tiny", "prompt": prompt})
    assert (reply.status, reply.error["param"]) == (400, "prompt")


def test_completions_take_a_list_of_one_and_control_tokens(shared: Client) -> None:
    counts = [
        shared.send("/v1/completions", {"model": "tiny", "prompt": p, "max_tokens": 1}).json
        for p in (["<|im_end|>"], "<|im_end|>x")
    ]
    assert [count["usage"]["prompt_tokens"] for count in counts] == [1, 2]
    long = shared.send("/v1/completions", {"model": "tiny", "prompt": "word " * 3000})
    assert (long.status, long.error["code"]) == (400, "prompt_too_long")


def test_base_without_a_chat_template(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    base = shared.server.registry.base
    with running(ServeSettings(base.path, port=0)) as server:
        monkeypatch.setattr(server.registry, "base", replace(base, chat_template=None))
        client = Client(server)
        reply = client.chat(chat("tiny"))
        assert (reply.status, reply.error["message"].split(";")[0]) == (
            400,
            "this base has no chat template",
        )
        assert client.send("/v1/completions", {"model": "tiny", "prompt": "x"}).status == 200


def test_bugs_are_500_without_details(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(shared.server.registry, "resolve", broken)
    reply = shared.chat(chat("tiny"))
    assert (reply.status, reply.error["message"]) == (500, "internal error")

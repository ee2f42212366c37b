"""Anthropic's messages API, by its own client and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import ToolParam
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, names, user

from skillc_runtime.server import running

SCHEMA: dict[str, object] = {"type": "object", "properties": {"command": {"type": "string"}}}
TOOL: ToolParam = {"name": "run", "description": "Run a command.", "input_schema": SCHEMA}
CALLS = (
    "Looking.\n"
    '<tool_call>\n{"name": "run", "arguments": {"command": "ls -la"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "run", "arguments": {"command": "pwd"}}\n</tool_call>'
)


@pytest.fixture
def api(shared: Client) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=shared.server.url, api_key="none", max_retries=0, timeout=60
    ) as api:
        yield api


def send(shared: Client, **change: Any) -> Any:
    body = {"model": "tiny", "max_tokens": 8, "messages": user("hi"), **change}
    return shared.send("/v1/messages", body)


def test_says_what_the_chat_says(shared: Client, api: anthropic.Anthropic) -> None:
    answer = api.messages.create(
        model="tiny:deploy",
        system="Be brief.",
        max_tokens=8,
        messages=[{"role": "user", "content": "hello"}],
    )
    messages = [{"role": "system", "content": "Be brief."}, *user("hello")]
    expected = shared.chat(chat("tiny:deploy", messages=messages)).json
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == expected["choices"][0]["message"]["content"]
    usage = answer.usage
    assert usage.cache_read_input_tokens is not None
    whole = usage.input_tokens + usage.cache_read_input_tokens
    assert whole == expected["usage"]["prompt_tokens"]
    assert usage.output_tokens == expected["usage"]["completion_tokens"]
    cut = expected["choices"][0]["finish_reason"] == "length"
    assert answer.stop_reason == ("max_tokens" if cut else "end_turn")
    assert answer.model_extra is not None
    assert names(answer.model_extra["skillc"]["attached"]) == ["deploy"]


def test_streams_text(api: anthropic.Anthropic) -> None:
    with api.messages.stream(
        model="tiny:style", max_tokens=8, messages=[{"role": "user", "content": "hello"}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = api.messages.create(
        model="tiny:style", max_tokens=8, messages=[{"role": "user", "content": "hello"}]
    )
    assert [block.type for block in final.content] == ["text"]
    assert [getattr(block, "text", None) for block in final.content] == [text]
    assert [getattr(block, "text", None) for block in whole.content] == [text]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_events_are_in_order(shared: Client) -> None:
    text = send(shared, stream=True).text
    events = [block.split("\n") for block in text.strip().split("\n\n")]
    kinds = [lines[0].removeprefix("event: ") for lines in events]
    assert [json.loads(lines[1].removeprefix("data: "))["type"] for lines in events] == kinds
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_calls_tools(api: anthropic.Anthropic, says: list[str]) -> None:
    says.append(CALLS)
    answer = api.messages.create(
        model="tiny", max_tokens=99, messages=[{"role": "user", "content": "hi"}], tools=[TOOL]
    )
    with api.messages.stream(
        model="tiny", max_tokens=99, messages=[{"role": "user", "content": "hi"}], tools=[TOOL]
    ) as stream:
        streamed = stream.get_final_message()
    for message in (answer, streamed):
        assert message.stop_reason == "tool_use"
        text, first, second = message.content
        assert text.type == "text"
        assert text.text == "Looking."
        assert first.type == second.type == "tool_use"
        assert (first.name, first.input) == ("run", {"command": "ls -la"})
        assert second.input == {"command": "pwd"}
        assert first.id != second.id


def test_a_tool_can_be_demanded(api: anthropic.Anthropic, says: list[str]) -> None:
    says.append(' {"command": "ls"}}\n</tool_call>')
    answer = api.messages.create(
        model="tiny",
        max_tokens=99,
        messages=[{"role": "user", "content": "hi"}],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "run"},
    )
    (call,) = answer.content
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("run", {"command": "ls"})


def test_cut_arguments_do_not_look_whole(shared: Client, says: list[str]) -> None:
    says.append('<tool_call>\n{"name": "run", "arguments": {"command": "rm')
    (call,) = send(shared, tools=[TOOL]).json["content"]
    assert call["input"] == {"malformed_arguments": '{"command": "rm'}


def test_history_is_the_chats_history(shared: Client) -> None:
    """An agent's second turn renders to the prompt that the chat API renders to."""
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "list"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "a", "name": "run", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "run", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "two"}],
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ]
    calls = [
        {"id": "a", "function": {"name": "run", "arguments": {"x": 1}}},
        {"id": "b", "function": {"name": "run", "arguments": {}}},
    ]
    messages = [
        {"role": "system", "content": "One.\nTwo."},
        *user("list"),
        {"role": "assistant", "content": "Looking.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
        *user("Go on."),
    ]
    system = [
        {"type": "text", "text": "One.", "cache_control": {}},
        {"type": "text", "text": "Two."},
    ]
    function = {"name": "run", "parameters": SCHEMA, "description": "Run a command."}
    tools = [{"type": "function", "function": function}]
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    found = send(shared, messages=turns, system=system, tools=[TOOL, hosted]).json
    expected = shared.chat(chat("tiny", messages=messages, tools=tools)).json
    usage = found["usage"]
    size = expected["usage"]["prompt_tokens"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == size
    text = "".join(block["text"] for block in found["content"])
    assert text == expected["choices"][0]["message"]["content"]
    counted = {"model": "tiny", "messages": turns, "system": system, "tools": [TOOL, hosted]}
    assert shared.send("/v1/messages/count_tokens", counted).json == {"input_tokens": size}


def test_deferred_tools_are_offered_once_they_are_found(shared: Client) -> None:
    """Claude Code's tool search: a reference to a tool stands in the search's result."""
    later = {**TOOL, "name": "later", "defer_loading": True}
    without, offered = ({"tools": tools} for tools in ([TOOL], [TOOL, {**TOOL, "name": "later"}]))
    assert _size(shared, tools=[TOOL, later]) == _size(shared, **without)

    def searched(content: Any) -> list[Any]:
        search = {"type": "tool_use", "id": "a", "name": "run", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "a", "content": content}
        return [
            *user("hi"),
            {"role": "assistant", "content": [search]},
            {"role": "user", "content": [result]},
        ]

    found = searched([{"type": "tool_reference", "tool_name": "later"}])
    expected = _size(shared, messages=searched("later"), **offered)
    assert _size(shared, messages=found, tools=[TOOL, later]) == expected


def _size(shared: Client, **change: Any) -> int:
    body = {"model": "tiny", "messages": user("hi"), **change}
    return int(shared.send("/v1/messages/count_tokens", body).json["input_tokens"])


def test_stop_sequences(shared: Client) -> None:
    free = "".join(block["text"] for block in send(shared, max_tokens=20).json["content"])
    stop = free[3:5]
    found = send(shared, max_tokens=20, stop_sequences=[stop]).json
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", stop)
    assert "".join(block["text"] for block in found["content"]) == free[: free.find(stop)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "x"}]}]},
            "messages[0].content[0]",
        ),
        ({"system": 7}, "system"),
        ({"tools": [{"name": "run"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_wrong_fields_are_named(shared: Client, change: dict[str, Any], named: str) -> None:
    reply = send(shared, **change)
    assert reply.status == 400
    assert set(reply.json) == {"type", "error"}
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert reply.json["error"]["message"].startswith(f"{named}: ")


def test_errors_have_their_types(shared: Client, api: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        api.messages.create(
            model="tiny:unknown", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        )
    assert missing.value.body == missing.value.response.json()
    turns = [*user("a"), {"role": "assistant", "content": "word " * 3000}, *user("b")]
    long = send(shared, messages=turns)
    assert long.status == 400
    assert long.json["error"]["message"].startswith("prompt is too long: ")
    assert shared.send("/v1/messages").json["type"] == "error"  # a GET


def test_a_failure_in_the_middle_is_an_event(
    shared: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skillc_compiler.errors import ServeError
    from skillc_runtime.events import Started
    from skillc_runtime.worker import Failed, Job

    def submit(job: Job) -> None:
        job.listener(Started(1, 0), 0.0)
        job.listener(Failed(ServeError("broken")), 0.0)

    monkeypatch.setattr(shared.server.worker, "submit", submit)
    last = send(shared, stream=True).text.strip().split("\n\n")[-1].split("\n")
    assert last[0] == "event: error"
    error = json.loads(last[1].removeprefix("data: "))
    assert error["error"] == {"type": "overloaded_error", "message": "broken"}
    body = {"model": "tiny", "input": "hi", "stream": True}
    last = shared.send("/v1/responses", body).text.strip().split("\n\n")[-1].split("\n")
    assert last[0] == "event: response.failed"
    failed = json.loads(last[1].removeprefix("data: "))["response"]
    assert (failed["status"], failed["error"]["message"]) == ("failed", "broken")


def test_skills_by_header(shared: Client) -> None:
    body = {"model": "tiny", "max_tokens": 1, "messages": user("hi")}
    reply = shared.send("/v1/messages", body, {"X-Skillc-Skills": "style"})
    assert names(reply.json["skillc"]["attached"]) == ["style"]
    assert reply.headers["X-Skillc-Attached"].startswith("style@1;")


def test_the_key_may_come_in_either_header(project: ProjectFolder) -> None:
    with running(settings_for(project, token="secret")) as server:
        client = Client(server)
        body = {"model": "tiny", "max_tokens": 1, "messages": user("hi")}
        statuses = [
            client.send("/v1/messages", body, headers).status
            for headers in (
                {"x-api-key": "secret"},
                {"Authorization": "Bearer secret"},
                {"x-api-key": "guess"},
                {"Authorization": "Bearer guess", "x-api-key": "secret"},
            )
        ]
        assert statuses == [200, 200, 401, 401]
        refused = client.send("/v1/messages", body).json
        assert refused["error"]["type"] == "authentication_error"

"""The responses API, by OpenAI's own client and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from tests.runtime.conftest import Client
from tests.runtime.support import chat, names, user

from skillc_runtime.responses_answer import ResponsesWriter

TOOL: FunctionToolParam = {
    "type": "function",
    "name": "run",
    "description": "Run a command.",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    "strict": False,
}
CALLS = (
    "Looking.\n"
    '<tool_call>\n{"name": "run", "arguments": {"command": "ls -la"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "run", "arguments": {"command": "pwd"}}\n</tool_call>'
)


@pytest.fixture
def api(shared: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=shared.server.url + "/v1", api_key="none", max_retries=0, timeout=60
    ) as api:
        yield api


def ask(shared: Client, **body: Any) -> Any:
    reply = shared.send("/v1/responses", {"model": "tiny", "max_output_tokens": 8, **body})
    assert reply.status == 200, reply.text
    return reply.json


def test_says_what_the_chat_says(shared: Client, api: openai.OpenAI) -> None:
    answer = api.responses.create(
        model="tiny:deploy", input="hello", instructions="Be brief.", max_output_tokens=8
    )
    messages = [{"role": "system", "content": "Be brief."}, *user("hello")]
    expected = shared.chat(chat("tiny:deploy", messages=messages)).json
    assert answer.output_text == expected["choices"][0]["message"]["content"]
    assert answer.usage is not None
    assert answer.usage.input_tokens == expected["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == expected["usage"]["completion_tokens"]
    assert answer.model_extra is not None
    assert names(answer.model_extra["skillc"]["attached"]) == ["deploy"]
    cut = expected["choices"][0]["finish_reason"] == "length"
    assert answer.status == ("incomplete" if cut else "completed")


def test_streams_text(shared: Client, api: openai.OpenAI) -> None:
    whole = api.responses.create(model="tiny:style", input="hello", max_output_tokens=8)
    with api.responses.create(
        model="tiny:style", input="hello", max_output_tokens=8, stream=True
    ) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.type for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text == final(events).output_text
    usage = final(events).usage
    assert usage is not None and whole.usage is not None  # how much was cached depends on before
    assert usage.input_tokens == whole.usage.input_tokens
    assert usage.output_tokens == whole.usage.output_tokens


def final(events: list[ResponseStreamEvent]) -> Response:
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    return last.response


def test_calls_tools(api: openai.OpenAI, says: list[str]) -> None:
    says.append(CALLS)
    answer = api.responses.create(model="tiny", input="hi", tools=[TOOL])
    assert [item.type for item in answer.output] == ["message", "function_call", "function_call"]
    assert answer.output_text == "Looking."
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [
        {"command": "ls -la"},
        {"command": "pwd"},
    ]
    assert len({call.call_id for call in calls} | {call.id for call in calls}) == 4


def test_streams_tool_calls(api: openai.OpenAI, says: list[str]) -> None:
    says.append(CALLS)
    with api.responses.create(model="tiny", input="hi", tools=[TOOL], stream=True) as stream:
        events = list(stream)
    arguments: dict[str, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            arguments[event.item_id] = arguments.get(event.item_id, "") + event.delta
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.type for item in done] == ["message", "function_call", "function_call"]
    calls = [item for item in done if item.type == "function_call"]
    assert [call.arguments for call in calls] == list(arguments.values())
    assert [call.status for call in calls] == ["completed", "completed"]
    assert final(events).output == done
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [event.output_index for event in added] == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "status"),
    [("Looking.", "incomplete"), (CALLS, "completed"), (CALLS[:-30], "incomplete")],
    ids=["text", "calls", "half a call"],
)
def test_what_was_cut_says_so(
    shared: Client, says: list[str], monkeypatch: pytest.MonkeyPatch, said: str, status: str
) -> None:
    says.append(said)
    monkeypatch.setattr(ResponsesWriter, "_status", lambda _: "incomplete")
    whole = ask(shared, input="hi", tools=[TOOL])
    reply = shared.send(
        "/v1/responses", {"model": "tiny", "input": "hi", "tools": [TOOL], "stream": True}
    )
    last = json.loads(reply.text.rpartition("data: ")[2])["response"]
    for found in (whole, last):
        assert found["status"] == "incomplete"
        *others, item = (one["status"] for one in found["output"])
        assert (set(others) <= {"completed"}, item) == (True, status)


def test_a_tool_can_be_demanded(api: openai.OpenAI, says: list[str]) -> None:
    says.append(' {"command": "ls"}}\n</tool_call>')
    answer = api.responses.create(
        model="tiny", input="hi", tools=[TOOL], tool_choice={"type": "function", "name": "run"}
    )
    (call,) = answer.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("run", '{"command": "ls"}')


def test_history_is_the_chats_history(shared: Client) -> None:
    """An agent's second turn renders to the prompt that the chat API renders to."""
    items = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "list"}]},
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "Looking.", "annotations": []},
                {"type": "refusal", "refusal": " No."},
            ],
        },
        {"type": "function_call", "call_id": "a", "name": "run", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "b", "name": "run", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [{"type": "input_text", "text": "two"}],
        },
    ]
    calls = [
        {"id": "a", "function": {"name": "run", "arguments": '{"x": 1}'}},
        {"id": "b", "function": {"name": "run", "arguments": "{}"}},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        *user("list"),
        {"role": "assistant", "content": "Looking. No.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
    ]
    found = ask(shared, input=items, tools=[TOOL, {"type": "web_search"}])
    function = {
        "name": "run",
        "description": "Run a command.",
        "parameters": TOOL["parameters"],
    }
    tools = [{"type": "function", "function": function}]
    expected = shared.chat(chat("tiny", messages=messages, tools=tools)).json
    assert found["usage"]["input_tokens"] == expected["usage"]["prompt_tokens"]
    text = "".join(part["text"] for item in found["output"] for part in item["content"])
    assert text == expected["choices"][0]["message"]["content"]


def test_form_is_kept(shared: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    found = ask(
        shared,
        input="hi",
        text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
        max_output_tokens=30,
    )
    assert json.loads(found["output"][0]["content"][0]["text"])["a"] in (1, 2)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": {}, "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": 7}]}, "input[0]"),
        ({"input": [{"type": "function_call_output"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "input[0].output"),
        ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"instructions": 7}, "instructions"),
        ({"text": 7}, "text"),
        ({"text": {"format": 7}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "response_format"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
    ],
)
def test_wrong_fields_are_named(shared: Client, change: dict[str, Any], param: str) -> None:
    reply = shared.send("/v1/responses", {"model": "tiny", "input": "hi", **change})
    assert (reply.status, reply.error["param"]) == (400, param)


def test_skills_and_errors_as_elsewhere(shared: Client, api: openai.OpenAI) -> None:
    answer = api.responses.create(
        model="tiny",
        input="hi",
        max_output_tokens=1,
        extra_headers={"X-Skillc-Skills": "style@0.5"},
    )
    assert answer.model_extra is not None
    assert names(answer.model_extra["skillc"]["attached"]) == ["style"]
    with pytest.raises(openai.NotFoundError) as missing:
        api.responses.create(model="tiny:unknown", input="hi")
    assert missing.value.code == "model_not_found"


def test_allowed_tools(shared: Client, says: list[str]) -> None:
    says.append(' "run", "arguments": {}}\n</tool_call>')
    other = {"type": "function", "name": "other", "parameters": {"type": "object"}}
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "run"}],
    }
    found = ask(shared, input="hi", tools=[TOOL, other], tool_choice=choice)
    assert [item["name"] for item in found["output"]] == ["run"]

"""The official client against a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam
from tests.runtime.conftest import Client

TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "run",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}


@pytest.fixture
def api(shared: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=shared.server.url + "/v1", api_key="none", max_retries=0, timeout=30
    ) as api:
        yield api


def test_whole_and_streamed(api: openai.OpenAI) -> None:
    whole = api.chat.completions.create(
        model="tiny:deploy", messages=[{"role": "user", "content": "hi"}], max_tokens=6
    )
    assert whole.usage is not None
    assert whole.model_extra is not None
    assert whole.model_extra["skillc"]["attached"][0]["name"] == "deploy"
    text, reasons, usage = "", [], None
    with api.chat.completions.create(
        model="tiny:deploy",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons.append(choice.finish_reason)
    assert text == whole.choices[0].message.content
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_skills_by_body_and_header(api: openai.OpenAI) -> None:
    for options in (
        {"extra_body": {"skills": [{"name": "style", "scale": 0.5}]}},
        {"extra_headers": {"X-Skillc-Skills": "style@0.5"}},
    ):
        answer = api.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=2,
            **options,
        )
        assert answer.model_extra is not None
        attached = answer.model_extra["skillc"]["attached"]
        assert [(skill["name"], skill["scale"]) for skill in attached] == [("style", 0.5)]


def test_errors_have_their_types(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(
            model="tiny:unknown", messages=[{"role": "user", "content": "hi"}]
        )
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        api.chat.completions.create(model="tiny", messages=[])
    assert bad.value.param == "messages"


def test_models(api: openai.OpenAI) -> None:
    assert "tiny:deploy" in [model.id for model in api.models.list()]
    assert api.models.retrieve("tiny:deploy").id == "tiny:deploy"


def test_legacy_completions(api: openai.OpenAI) -> None:
    answer = api.completions.create(model="tiny", prompt="hello", max_tokens=3)
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_tool_calls(api: openai.OpenAI, says: list[str]) -> None:
    says.append(
        "Looking.\n"
        '<tool_call>\n{"name": "run", "arguments": {"command": "ls -la"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "run", "arguments": {"command": "pwd"}}\n</tool_call>'
    )
    whole = api.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], tools=[TOOL]
    ).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content == "Looking."
    calls = whole.message.tool_calls or []
    assert [json.loads(c.function.arguments) for c in calls if c.type == "function"] == [
        {"command": "ls -la"},
        {"command": "pwd"},
    ]
    assert len({call.id for call in calls}) == 2


def test_streamed_tool_calls(api: openai.OpenAI, says: list[str]) -> None:
    says.append(
        '<tool_call>\n{"name": "run", "arguments": {"command": "ls -la"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    )
    first: dict[int, tuple[str | None, str | None, str | None, str | None]] = {}
    arguments: dict[int, str] = {}
    reason = None
    with api.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], tools=[TOOL], stream=True
    ) as stream:
        for chunk in stream:
            choice = chunk.choices[0]
            reason = choice.finish_reason or reason
            assert not choice.delta.content
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                if call.index in first:
                    assert (call.id, call.type, call.function.name) == (None, None, None)
                else:
                    function = call.function
                    first[call.index] = (call.id, call.type, function.name, function.arguments)
                arguments[call.index] = arguments.get(call.index, "") + (
                    call.function.arguments or ""
                )
    assert [values[1:] for values in first.values()] == [
        ("function", "run", ""),
        ("function", "stop", ""),
    ]
    assert {index: json.loads(text) for index, text in arguments.items()} == {
        0: {"command": "ls -la"},
        1: {},
    }
    assert reason == "tool_calls"


def test_tool_call_marks_are_text_without_tools(api: openai.OpenAI, says: list[str]) -> None:
    says.append('<tool_call>{"name": "run", "arguments": {}}</tool_call>')
    answer = api.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}]
    ).choices[0]
    assert (answer.message.content, answer.message.tool_calls) == (says[0], None)
    assert answer.finish_reason == "stop"


def test_forced_tool_calls(api: openai.OpenAI, says: list[str]) -> None:
    says.append(' {"command": "ls"}}\n</tool_call>')
    named = api.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "run"}},
    ).choices[0]
    says[0] = ' "run", "arguments": {"command": "ls"}}\n</tool_call>'
    required = api.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        tools=[TOOL],
        tool_choice="required",
    ).choices[0]
    for choice in (named, required):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("run", '{"command": "ls"}')

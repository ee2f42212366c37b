"""Requests of OpenAI's responses API as the chat requests they stand for."""

from __future__ import annotations

from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.fields import Body, flag, integer, objects
from skillc_runtime.messages import Message, read_texts

_SAME = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "seed",
    "parallel_tool_calls",
    "skills",
    "lora",
    "deadline",
)
_KEPT = ("previous_response_id", "conversation", "prompt")


def responses_to_chat(body: Body) -> dict[str, Any]:
    """The body for /v1/chat/completions; ApiError 400 for what cannot be read or done."""
    for key in _KEPT:
        if body.get(key) is not None:
            raise invalid(key, "nothing is kept between requests: send the whole input")
    if flag(body, "background"):
        raise invalid("background", "answers are given at once only")
    if integer(body, "top_logprobs", 0):
        raise invalid("top_logprobs", "use /v1/chat/completions")
    chat = {key: body[key] for key in _SAME if key in body}
    chat["max_tokens"] = integer(body, "max_output_tokens", 1)
    chat["messages"] = _instructions(body) + _input(body)
    chat["tools"] = [_tool(tool) for tool in _own_tools(body)]
    chat |= _choice(body, chat["tools"]) | _form(body)
    return chat


def _instructions(body: Body) -> list[Message]:
    text = body.get("instructions")
    if text is None or text == "":
        return []
    if not isinstance(text, str):
        raise invalid("instructions", "must be a string")
    return [{"role": "system", "content": text}]


def _input(body: Body) -> list[Message]:
    given = body.get("input")
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    items = objects(body, "input") if isinstance(given, list) else []
    if not items:
        raise invalid("input", "must be a string or a list of items")
    turns: list[Message] = []
    for i, item in enumerate(items):
        _add(turns, item, f"input[{i}]")
    if not turns:
        raise invalid("input", "must have at least one message")
    return turns


def _add(turns: list[Message], item: Message, where: str) -> None:
    """Add what `item` says; the calls of one answer belong to one turn."""
    kind = item.get("type", "message")
    if kind == "message":
        turns.append(_message(item, where))
    elif kind == "function_call":
        if not turns or turns[-1]["role"] != "assistant":
            turns.append({"role": "assistant", "content": ""})
        turns[-1].setdefault("tool_calls", []).append(_call(item, where))
    elif kind == "function_call_output":
        turns.append(_result(item, where))
    elif kind != "reasoning":  # what a model thought before is not shown to it again
        raise invalid(where, f"an item of type {str(kind)[:40]!r} cannot be read")


def _message(item: Message, where: str) -> Message:
    return {"role": item.get("role"), "content": _text(item.get("content"), f"{where}.content")}


def _text(content: Any, where: str) -> str:
    if content is None:
        raise invalid(where, "must be a string or a list of parts")
    return "".join(read_texts(content, where, "text", "refusal"))


def _call(item: Message, where: str) -> Message:
    name, arguments = item.get("name"), item.get("arguments", "")
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise invalid(where, "a function_call needs a name and arguments")
    call_id = str(item.get("call_id") or item.get("id") or "")
    return {"id": call_id, "function": {"name": name, "arguments": arguments}}


def _result(item: Message, where: str) -> Message:
    call_id = item.get("call_id")
    if not isinstance(call_id, str):
        raise invalid(where, "a function_call_output needs a call_id")
    text = _text(item.get("output"), f"{where}.output")
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def _own_tools(body: Body) -> list[Message]:
    """The functions; tools that OpenAI's servers run, or that are none, are not offered."""
    tools = objects(body, "tools")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = [tool.get("name") for tool in objects(choice, "tools")]
        tools = [tool for tool in tools if tool.get("name") in names]
    return [tool for tool in tools if tool.get("type", "function") == "function"]


def _tool(tool: Message) -> Message:
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key)}
    return {"type": "function", "function": function}


def _choice(body: Body, tools: list[Message]) -> dict[str, Any]:
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return {"tool_choice": choice}
    kind = choice.get("type")
    if kind == "allowed_tools":
        return {"tool_choice": choice.get("mode", "auto") if tools else "none"}
    if kind != "function":
        raise invalid("tool_choice", "must be auto, none, required, allowed_tools or a function")
    return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}


def _form(body: Body) -> dict[str, Any]:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if text is not None and not isinstance(text, dict):
        raise invalid("text", "must be an object")
    if wanted is None:
        return {}
    if not isinstance(wanted, dict):
        raise invalid("text.format", "must be an object")
    if wanted.get("type") == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}
    return {"response_format": {"type": wanted.get("type")}}

"""Requests of Anthropic's messages API as the chat requests they stand for."""

from __future__ import annotations

from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.fields import Body, flag, integer, objects, strings
from skillc_runtime.messages import Message, read_texts
from skillc_runtime.sampling_fields import MAX_STOPS

_SAME = ("model", "stream", "temperature", "top_p", "top_k", "skills", "lora", "deadline")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# What a model thought before is not shown to it again.
_UNSEEN = ("thinking", "redacted_thinking")


def messages_to_chat(body: Body, *, counting: bool = False) -> dict[str, Any]:
    """The body for /v1/chat/completions; ApiError 400 for what cannot be read.

    `counting`: of a request that only counts tokens, which has no `max_tokens`.
    """
    chat = {key: body[key] for key in _SAME if key in body}
    if not counting:
        chat["max_tokens"] = integer(body, "max_tokens", 1)
        if chat["max_tokens"] is None:
            raise invalid("max_tokens", "must be given")
    chat["stop"] = list(strings(body, "stop_sequences", MAX_STOPS))
    chat["messages"] = _messages(body)
    chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in _own_tools(body)]
    chat |= _choice(body)
    return chat


def _messages(body: Body) -> list[Message]:
    found: list[Message] = []
    if system := _text(body.get("system"), "system"):
        found.append({"role": "system", "content": system})
    given = objects(body, "messages")
    if not given:
        raise invalid("messages", "must have at least one message")
    for i, message in enumerate(given):
        where = f"messages[{i}]"
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise invalid(f"{where}.role", "must be user or assistant")
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list):
            raise invalid(f"{where}.content", "must be a string or a list of blocks")
        found += _turn(role, blocks, f"{where}.content")
    return found


def _turn(role: str, blocks: list[Any], where: str) -> list[Message]:
    """The chat messages of one turn: results of tools are turns of their own."""
    turns: list[Message] = []
    text: list[str] = []
    calls: list[Message] = []
    for i, block in enumerate(blocks):
        place = f"{where}[{i}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            text.append(_text([block], place))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(block, place))
        elif kind == "tool_result" and role == "user":
            if text:
                turns.append({"role": role, "content": "\n".join(text)})
                text = []
            turns.append(_result(block, place))
        elif kind not in _UNSEEN:
            raise invalid(place, f"a block of type {str(kind)[:40]!r} cannot be read here")
    if text or calls or not turns:
        turns.append({"role": role, "content": "\n".join(text)})
    if calls:
        turns[-1]["tool_calls"] = calls
    return turns


def _call(block: Message, where: str) -> Message:
    name, given = block.get("name"), block.get("input")
    if not isinstance(name, str) or not isinstance(given, dict):
        raise invalid(where, "a tool_use needs a name and an input")
    return {"id": str(block.get("id") or ""), "function": {"name": name, "arguments": given}}


def _result(block: Message, where: str) -> Message:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise invalid(where, "a tool_result needs a tool_use_id")
    # Of a tool that a search found the name is told, and the tool itself offered from then on.
    texts = read_texts(block.get("content"), f"{where}.content", "text", "tool_name")
    return {"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)}


def _text(content: Any, where: str) -> str:
    return "\n".join(read_texts(content, where, "text"))


def _own_tools(body: Body) -> list[tuple[int, Message]]:
    """The tools that the client runs, less those that no search of its own has found yet."""
    found = _found_tools(body)
    return [
        (i, tool)
        for i, tool in enumerate(objects(body, "tools"))
        if tool.get("type") in (None, "custom")
        and (not flag(tool, "defer_loading") or tool.get("name") in found)
    ]


def _found_tools(body: Body) -> list[Any]:
    """The names of tools that results refer to."""
    blocks = [block for one in objects(body, "messages") for block in _parts(one)]
    parts = [part for block in blocks for part in _parts(block)]
    return [part.get("tool_name") for part in parts if part.get("type") == "tool_reference"]


def _parts(holder: Message) -> list[Message]:
    content = holder.get("content")
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _tool(tool: Message, where: str) -> Message:
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise invalid(f"{where}.input_schema", "must be an object")
    function = {"name": tool.get("name"), "parameters": schema}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(body: Body) -> dict[str, Any]:
    choice = body.get("tool_choice")
    if choice is None:
        return {}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        wanted: Any = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(kind, str) and kind in _CHOICES:
        wanted = _CHOICES[kind]
    else:
        raise invalid("tool_choice", "must be of type auto, any, none or tool")
    return {
        "tool_choice": wanted,
        "parallel_tool_calls": not flag(choice, "disable_parallel_tool_use"),
    }

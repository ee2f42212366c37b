"""Chat messages and tools of a request, checked and in the one form that templates read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.fields import Body, objects

Message = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def read_messages(body: Body) -> list[Message]:
    """The `messages` of a chat request; ApiError 400 when they are none."""
    found = objects(body, "messages")
    if not found:
        raise invalid("messages", "must have at least one message")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(found)]


def _message(message: Body, where: str) -> Message:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    result: Message = {
        "role": ROLES[role],
        "content": "".join(read_texts(message.get("content"), f"{where}.content", "text")),
    }
    if role == "assistant" and (calls := objects(message, "tool_calls")):
        result["tool_calls"] = [_call(call, f"{where}.tool_calls") for call in calls]
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            result[key] = message[key]
    return result


def read_texts(content: Any, where: str, *keys: str) -> list[str]:
    """The texts of a message's content: it, or its parts', each under the first of `keys` there is.

    ApiError 400 for what is no text; null stands for none.
    """
    if content is None or isinstance(content, str):
        return [content or ""]
    if not isinstance(content, list):
        raise invalid(where, "must be a string or a list of parts")
    texts = []
    for part in content:
        found = [part[key] for key in keys if key in part] if isinstance(part, dict) else []
        if not found or not isinstance(found[0], str):
            raise invalid(where, "only text can be read")
        texts.append(found[0])
    return texts


def _call(call: Body, where: str) -> Message:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(where, "each call needs a function with a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        # Templates write objects as JSON themselves, in the form the base was trained on.
        try:
            parsed = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            parsed = arguments
        arguments = parsed if isinstance(parsed, dict) else arguments
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def read_tools(body: Body) -> list[Message]:
    """The `tools` of a chat request."""
    tools = objects(body, "tools")
    for i, tool in enumerate(tools):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if tool.get("type", "function") != "function" or not isinstance(name, str):
            raise invalid(f"tools[{i}]", "must be a function with a name")
        if not _TOOL_NAME.fullmatch(name):
            raise invalid(f"tools[{i}].function.name", "only letters, digits and _ . : / -")
    return tools


def read_tool_choice(body: Body, tools: Sequence[Message]) -> tuple[list[Message], str | None]:
    """The tools to offer, and the call that must be made: None any or none, "" any, or a name."""
    choice = body.get("tool_choice")
    if choice is None or choice == "auto":
        return list(tools), None
    if choice == "none":
        return [], None
    names = [tool["function"]["name"] for tool in tools]
    if choice == "required" and tools:
        return list(tools), ""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        raise invalid("tool_choice", "must be auto, none, required or the name of one of the tools")
    return list(tools), str(name)


def with_skill_texts(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    """`messages` with skills' texts at the end of the first system message."""
    if not texts:
        return list(messages)
    has_system = messages[0]["role"] == "system"
    own = [messages[0]["content"]] if has_system and messages[0]["content"] else []
    content = "\n\n".join([*own, *texts])
    return [{"role": "system", "content": content}, *messages[1 if has_system else 0 :]]

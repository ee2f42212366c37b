"""What an answer must look like: `response_format`, and a tool choice that demands a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_runtime.api_error import invalid
from skillc_runtime.fields import Body, flag
from skillc_runtime.messages import Message
from skillc_runtime.schema_grammar import SchemaError, SchemaGrammar, literal

_MOST_CALLS = 8


def forced_prefix(name: str | None) -> str:
    """What an answer that must be a call begins with; `name` as from `read_tool_choice`."""
    if name is None:
        return ""
    head = f'{TOOL_CALL_OPEN}\n{{"name":'
    return f'{head} "{name}", "arguments":' if name else head


def read_constraint(body: Body, tools: Sequence[Message], forced: str | None) -> str | None:
    """The grammar of what follows `forced_prefix`; None when the answer is free.

    ApiError 400 for a schema that is malformed or asks for what cannot be promised.
    """
    grammar = SchemaGrammar()
    schema = _response_schema(body)
    if forced is not None:
        chosen = [tool for tool in tools if forced in ("", tool["function"]["name"])]
        begun = _begun(grammar, tools, chosen, named=bool(forced))
        several = "parallel_tool_calls" not in body or flag(body, "parallel_tool_calls")
        more = f" {_more(grammar, tools)}" if several and not forced else ""
        return grammar.text(begun + more)
    if schema is None:
        return None
    try:
        root = grammar.add(schema)
    except SchemaError as error:
        raise invalid("response_format", str(error)) from error
    if tools:  # the model may still call one
        open_mark = literal(forced_prefix(""))
        root += f" | {open_mark} {_begun(grammar, tools, tools, named=False)}"
    return grammar.text(root)


def _response_schema(body: Body) -> Any:
    """The schema of the answer; None for text."""
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type", "text") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return wanted.get("schema") or {"type": "object"}
    inner = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(inner, dict):
        raise invalid("response_format", "must be text, json_object or json_schema with a schema")
    return inner.get("schema", {"type": "object"})


def _begun(
    grammar: SchemaGrammar, tools: Sequence[Message], chosen: Sequence[Message], *, named: bool
) -> str:
    """The rest of a call whose beginning is there: with its name, or up to where that stands."""
    close = literal("}\n" + TOOL_CALL_CLOSE)
    calls = []
    for tool in chosen:
        function, name = tool["function"], tool["function"]["name"]
        head = "" if named else literal(f' "{name}", "arguments":')
        where = f"tools[{list(tools).index(tool)}].function.parameters"
        calls.append(f"{head} ws {_arguments(grammar, function.get('parameters'), where)}")
    return f"({' | '.join(calls)}) {close}"


def _more(grammar: SchemaGrammar, tools: Sequence[Message]) -> str:
    start = literal("\n" + forced_prefix(""))
    return f"({start} {_begun(grammar, tools, tools, named=False)}){{0,{_MOST_CALLS - 1}}}"


def _arguments(grammar: SchemaGrammar, schema: Any, where: str) -> str:
    try:
        return grammar.add({"type": "object", **(schema or {})})
    except (SchemaError, TypeError) as error:
        raise invalid(where, str(error)) from error

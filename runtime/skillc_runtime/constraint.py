"""What an answer must look like: `response_format`, and a tool choice that demands a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.dialects import Dialect
from skillc_runtime.fields import Body, flag
from skillc_runtime.messages import Message
from skillc_runtime.schema_grammar import SchemaError, SchemaGrammar, literal

_MOST_CALLS = 8


def read_constraint(
    body: Body, tools: Sequence[Message], forced: str | None, dialect: Dialect
) -> str | None:
    """The grammar of what follows `dialect.prefix(forced)`; None when the answer is free.

    ApiError 400 for a schema that is malformed or asks for what cannot be promised.
    """
    schema = _response_schema(body)
    calls = _Calls(tools, dialect, several=not dialect.single and _parallel(body))
    if forced is not None:
        return calls.grammar.text(calls.rest(forced))
    if schema is None:
        return None
    try:
        root = calls.grammar.add(schema)
    except SchemaError as error:
        raise invalid("response_format", str(error)) from error
    if tools:  # the model may still call one
        root += f" | {literal(dialect.start)} {calls.rest('')}"
    return calls.grammar.text(root)


def _parallel(body: Body) -> bool:
    return body.get("parallel_tool_calls") is None or flag(body, "parallel_tool_calls")


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


class _Calls:
    """The grammar of calls in a dialect."""

    def __init__(self, tools: Sequence[Message], dialect: Dialect, *, several: bool) -> None:
        self.grammar = SchemaGrammar()
        self._tools = tools
        self._dialect = dialect
        self._several = several

    def rest(self, forced: str) -> str:
        """What follows the prefix of one call or more; `forced` names the tool, or is empty."""
        chosen = [tool for tool in self._tools if forced in ("", tool["function"]["name"])]
        text = self._call(chosen, named=bool(forced))
        if self._several and not forced:
            more = f"{literal(self._dialect.more)} {self._call(self._tools, named=False)}"
            text += f" ({more}){{0,{_MOST_CALLS - 1}}}"
        return f"{text} {literal(self._dialect.end)}" if self._dialect.end else text

    def _call(self, chosen: Sequence[Message], *, named: bool) -> str:
        calls = []
        for tool in chosen:
            function = tool["function"]
            head = "" if named else literal(self._dialect.called(function["name"]))
            where = f"tools[{list(self._tools).index(tool)}].function.parameters"
            calls.append(f"{head} ws {self._arguments(function.get('parameters'), where)}")
        close = literal(self._dialect.close) if self._dialect.close else ""
        return f"({' | '.join(calls)}) {close}"

    def _arguments(self, schema: Any, where: str) -> str:
        try:
            return self.grammar.add({"type": "object", **(schema or {})})
        except (SchemaError, TypeError) as error:
            raise invalid(where, str(error)) from error

"""Grammars: what a schema's grammar lets through, what is refused, answers that keep to it."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from tests.runtime.conftest import Client
from tests.runtime.support import chat

from skillc_compiler.errors import ServeError
from skillc_runtime.engine import Engine
from skillc_runtime.grammar import Grammar
from skillc_runtime.integer_grammar import integers
from skillc_runtime.schema_grammar import SchemaError, SchemaGrammar

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
        }
    },
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["a", 1, None, 'quo"te\\', "line\nbreak"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["age", "kind"],
    "additionalProperties": False,
}


def accepts(engine: Engine, schema: Any, text: str) -> bool:
    """Whether the grammar of `schema` lets `text` through, to its end."""
    built = SchemaGrammar()
    vocab = engine.model.vocab
    grammar = Grammar(vocab, built.text(built.add(schema)))
    end = next(token for token in range(vocab.size) if vocab.is_end(token))
    try:
        for token in engine.tokenize(text):
            if not grammar.allows(token):
                return False
            grammar.accept(token)
        return grammar.allows(end)
    finally:
        grammar.free()


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object"}, ["{}", '{"a": [1, {"b": null}]}'], ["[]", "{", '{"a" :1}', "{} {}"]),
        (True, ["1", "-2.5e3", '"x"', "[]"], ["01", "+1", ".5", "nul", "NaN", "1e999"]),
        (
            {"type": "string"},
            ['"a\\n\\u00e9 ü"', '"\\\\"'],
            ['"\t"', '"\x7f"', '"\\x"', '"\\ud800"', '"a', "a"],
        ),
        ({"type": "string", "maxLength": 2}, ['""', '"ab"', '"\\n\\n"'], ['"abc"']),
        ({"type": ["string", "null"]}, ['"a"', "null"], ["1", "[]"]),
        ({"const": {"a": [1]}}, ['{"a": [1]}'], ["{}"]),
        ({"enum": ["a", "b", 3], "type": "string"}, ['"a"', '"b"'], ["3", '"c"']),
        ({"type": "integer", "minimum": -3, "maximum": 12}, ["-3", "0", "12"], ["-4", "13", "1.0"]),
        ({"type": "integer", "exclusiveMinimum": 5}, ["6", "10", "999"], ["5", "-6", "06"]),
        ({"type": "number", "minimum": 0}, ["0", "0.5", "7e2"], ["-1", "-0.5"]),
        ({"anyOf": [{"type": "integer"}, {"const": "x"}]}, ["4", '"x"'], ['"y"', "true"]),
        ({"type": "string", "format": "date"}, ['"2024-02-28"'], ['"2024-13-01"', '"today"']),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2}, ["[null, null]"], ["[null]"]),
        (
            PERSON,
            [
                '{"age": 130,"kind": 1}',
                '{"name": "Ann", "age": 0, "kind": "quo\\"te\\\\", "tags": [true, false]}',
                '{"age": 7, "kind": "line\\nbreak"}',
            ],
            [
                "{}",
                '{"age": 131, "kind": 1}',
                '{"kind": 1, "age": 3}',
                '{"age": 3, "kind": 1, "more": 1}',
                '{"age": 3, "kind": 1, "tags": []}',
                '{"name": "", "age": 3, "kind": 1}',
                '{"age": 3, "kind": 2}',
            ],
        ),
        (
            TREE,
            ['{"value": 1}', '{"value": 1, "children": [{"value": 2, "children": []}]}'],
            ['{"children": []}', '{"value": 1, "children": [2]}'],
        ),
        (
            {"properties": {"a": {}, "b": {}}},
            ["{}", '{"a": 1}', '{"b": 1}'],
            ['{"c": 1}', '{,"b":1}'],
        ),
        ({"type": "object", "required": ["x"]}, ['{"x": 1}'], ["{}"]),
        ({"additionalProperties": {"type": "integer"}}, ['{"z": 1}'], ['{"z": "1"}']),
    ],
)
def test_what_a_grammar_lets_through(
    engine: Engine, schema: Any, good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not accepts(engine, schema, text)] == []
    assert [text for text in bad if accepts(engine, schema, text)] == []
    for text in good:
        json.loads(text)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ([], "object"),
        ({"type": "text"}, "type"),
        ({"type": "string", "pattern": "^a$"}, "pattern"),
        ({"type": "integer", "multipleOf": 3}, "multipleOf"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ({"type": "integer", "minimum": "5"}, "minimum"),
        ({"type": "integer", "exclusiveMinimum": True}, "exclusiveMinimum"),
        ({"type": "number", "maximum": 1}, "maximum"),
        ({"minimum": 3}, "minimum"),
        ({"type": "string", "maxLength": 100_000}, "maxLength"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "prefixItems": [{}]}, "prefixItems"),
        ({"not": {}}, "not"),
        ({"enum": []}, "valid"),
        ({"enum": ["\ud800"]}, "surrogate"),
        ({"anyOf": [{"type": "null"}], "minLength": 3}, "minLength"),
        ({"allOf": [{}, {}]}, "allOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "https://example.org/s"}, "$ref"),
        ({"$ref": "#/nowhere"}, "$ref"),
        ({"required": ["x"], "additionalProperties": False}, "required"),
        ({"properties": {"a": {"pattern": "x"}}}, "pattern"),
    ],
)
def test_what_cannot_be_kept_is_refused(schema: Any, word: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(word)):
        SchemaGrammar().add(schema)


def test_deep_and_endless_schemas(engine: Engine) -> None:
    deep: Any = {}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    with pytest.raises(SchemaError, match="nested"):
        SchemaGrammar().add(deep)
    built = SchemaGrammar()
    endless = built.text(built.add({"$ref": "#"}))
    with pytest.raises(ServeError, match="grammar"):
        Grammar(engine.model.vocab, endless)


def test_integer_ranges_hold_exactly_their_numbers() -> None:
    draw = random.Random(4)
    pairs = [(0, 0), (-1, 1), (9, 10), (99, 1000), (-120, -7), (100, 199), (-999, 1005)]
    for _ in range(60):
        first, second = draw.randint(-1200, 1200), draw.randint(-1200, 1200)
        pairs.append((min(first, second), max(first, second)))
    for low, high in pairs:
        expression = integers({"minimum": low, "maximum": high})
        found = re.compile(expression.replace('"', "").replace(" ", ""))
        inside = [n for n in range(-1300, 1300) if found.fullmatch(str(n))]
        assert inside == list(range(low, high + 1)), (low, high)
        assert not found.fullmatch("-0")
        assert not found.fullmatch("00")


@pytest.mark.parametrize("seed", range(6))
def test_answers_keep_to_the_schema(shared: Client, seed: int) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    body = chat("tiny", response_format=wanted, max_tokens=120, temperature=seed / 2, seed=seed)
    reply = shared.chat(body).json
    assert reply["choices"][0]["finish_reason"] == "stop"
    answer = json.loads(reply["choices"][0]["message"]["content"])
    assert {"age", "kind"} <= set(answer) <= set(PERSON["properties"])  # type: ignore[call-overload]
    assert 0 <= answer["age"] <= 130
    assert answer["kind"] in PERSON["properties"]["kind"]["enum"]  # type: ignore[index]


def test_json_object_and_streams(shared: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    wanted = {"type": "json_object", "schema": schema}
    assert json.loads(shared.text(chat("tiny", response_format=wanted))) == {"a": 1}
    events = shared.chat(chat("tiny", response_format=wanted, stream=True)).events
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    assert json.loads(text) == {"a": 1}
    free = chat("tiny", response_format={"type": "json_object"}, temperature=1, seed=1)
    assert shared.text(free).startswith("{")


def test_a_grammar_leaves_the_next_request_alone(shared: Client) -> None:
    before = shared.text(chat("tiny"))
    schema = {"const": "x" * 40}
    cut = chat("tiny", response_format={"type": "json_object", "schema": schema}, max_tokens=2)
    assert shared.chat(cut).json["choices"][0]["finish_reason"] == "length"
    assert shared.text(chat("tiny")) == before


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@pytest.mark.parametrize("seed", range(3))
def test_forced_calls_keep_to_the_tool(shared: Client, seed: int) -> None:
    flags = {"properties": {"fast": {"type": "boolean"}}, "required": ["fast"]}
    tools = [tool("build", flags), tool("level", {"properties": {"n": {"enum": [1, 2]}}})]
    options: dict[str, Any] = {"tools": tools, "max_tokens": 300, "temperature": 1, "seed": seed}
    named = {"type": "function", "function": {"name": "build"}}
    choice = shared.chat(chat("tiny", tool_choice=named, **options)).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "build"
    assert json.loads(call["function"]["arguments"])["fast"] in (True, False)
    body = chat("tiny", tool_choice="required", parallel_tool_calls=False, **options)
    choice = shared.chat(body).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "build":
        assert arguments["fast"] in (True, False)
    else:
        assert call["function"]["name"] == "level"
        assert arguments.get("n", 1) in (1, 2)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (
            {"response_format": {"type": "json_object", "schema": {"not": {}}}},
            "response_format",
        ),
        (
            {"tools": [tool("x", {"pattern": "a"})], "tool_choice": "required"},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [tool("x", 7)], "tool_choice": "required"},
            "tools[0].function.parameters",
        ),
        ({"response_format": {"type": "json_object", "schema": {"$ref": "#"}}}, None),
    ],
)
def test_refused_schemas_are_named(shared: Client, more: dict[str, Any], param: str | None) -> None:
    reply = shared.chat(chat("tiny", **more))
    assert (reply.status, reply.error["param"]) == (400, param)

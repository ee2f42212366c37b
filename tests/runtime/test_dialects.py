"""Tool calls as Llama 3 and Mistral write them: found, demanded by a grammar, and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillc_compiler.chat import NANO_TEMPLATE
from skillc_runtime.call_parts import CallArguments, CallStart, Content, Part
from skillc_runtime.constraint import read_constraint
from skillc_runtime.dialects import (
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_ARGS,
    Dialect,
    dialect_of,
    one_call_a_turn,
    short_id,
)
from skillc_runtime.engine import Engine
from skillc_runtime.grammar import Grammar

MARK = "[TOOL_CALLS]"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
    for name in ("run", "stop")
]
Found = tuple[str, list[tuple[str, str]]]


def parse(dialect: Dialect, text: str, step: int = 1000) -> Found:
    """Content and calls (name, arguments) of an answer given `step` characters at a time."""
    parser = dialect.parser(("run", "stop"))
    parts: list[Part] = []
    for at in range(0, len(text), step):
        parts += parser.feed(text[at : at + step])
    parts += parser.finish()
    content = ""
    calls: list[list[str]] = []
    for part in parts:
        if isinstance(part, Content):
            content += part.text
        elif isinstance(part, CallStart):
            assert part.index == len(calls)
            calls.append([part.name, ""])
        else:
            assert part.index == len(calls) - 1
            calls[-1][1] += part.fragment
    return content, [(name, arguments) for name, arguments in calls]


CASES: list[tuple[Dialect, str, Found]] = [
    (LLAMA3, "Hello.", ("Hello.", [])),
    (LLAMA3, " \n", (" \n", [])),
    (LLAMA3, '{"name": "run", "parameters": {"x": 1}}', ("", [("run", '{"x": 1}')])),
    (LLAMA3, '\n{"name": "run", "arguments": {"x": 1}}\n', ("", [("run", '{"x": 1}')])),
    (
        LLAMA3,
        '{"name": "run", "parameters": {"x": "}; {"}}; {"name": "stop", "parameters": {}}',
        ("", [("run", '{"x": "}; {"}'), ("stop", "{}")]),
    ),
    (LLAMA3, '{"type": "function", "name": "run"}', ("", [("run", "{}")])),
    # Bare JSON is an answer unless it calls a tool that was offered.
    (
        LLAMA3,
        '{"name": "Bob", "parameters": {"x": 1}}',
        ('{"name": "Bob", "parameters": {"x": 1}}', []),
    ),
    (LLAMA3, '{"a": [1, {"b": 2}]} done', ('{"a": [1, {"b": 2}]} done', [])),
    (LLAMA3, '{"name": "ru', ('{"name": "ru', [])),
    (
        LLAMA3,
        'See {"name": "run", "parameters": {}}',
        ('See {"name": "run", "parameters": {}}', []),
    ),
    (MISTRAL, "Hello [TOOL", ("Hello [TOOL", [])),
    (MISTRAL, f'{MARK}[{{"name": "run", "arguments": {{"x": 1}}}}]', ("", [("run", '{"x": 1}')])),
    (
        MISTRAL,
        f'Look.\n{MARK} [{{"name": "run", "arguments": {{}}}}, {{"arguments": {{"x": 2}}, '
        '"name": "any", "id": "abcdefghi"}]',
        ("Look.", [("run", "{}"), ("any", '{"x": 2}')]),
    ),
    (MISTRAL, f"{MARK} nothing here", (f"{MARK} nothing here", [])),
    (MISTRAL, f'{MARK}[{{"no": 1}}]', (f'{MARK}[{{"no": 1}}]', [])),
    (MISTRAL_ARGS, f'{MARK}run[ARGS]{{"x": 1}}', ("", [("run", '{"x": 1}')])),
    (
        MISTRAL_ARGS,
        f'Now:{MARK}run[CALL_ID]abcdefghi[ARGS]{{"x": "[TOOL_CALLS]"}}{MARK}stop[ARGS]{{}}',
        ("Now:", [("run", '{"x": "[TOOL_CALLS]"}'), ("stop", "{}")]),
    ),
    (MISTRAL_ARGS, f'{MARK}run{{"x": 1}}', ("", [("run", '{"x": 1}')])),
    (MISTRAL_ARGS, f"{MARK}run[ARGS]", ("", [("run", "{}")])),
    (MISTRAL_ARGS, f"{MARK}two words{'x' * 300}", (f"{MARK}two words{'x' * 300}", [])),
    (MISTRAL_ARGS, f'Hi.{MARK}run[ARGS]{{"x": 1}}\nBye.', ("Hi.\nBye.", [("run", '{"x": 1}')])),
]


@pytest.mark.parametrize(("dialect", "text", "expected"), CASES)
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_calls_are_found(dialect: Dialect, text: str, expected: Found, step: int) -> None:
    assert parse(dialect, text, step) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS]),
    st.lists(
        st.sampled_from(
            [
                *MARK,
                MARK,
                "[ARGS]",
                "run",
                '{"name": "run", "arguments": {"x": 1}}',
                "{}",
                *' \n;{}"[,',
            ]
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_the_cut_does_not_matter(dialect: Dialect, parts: list[str], step: int) -> None:
    text = "".join(parts)
    assert parse(dialect, text, step) == parse(dialect, text)


@pytest.mark.parametrize("dialect", [LLAMA3, MISTRAL])
def test_arguments_are_passed_on_while_they_come(dialect: Dialect) -> None:
    parser = dialect.parser(("run",))
    first = parser.feed(dialect.prefix("run") + ' {"x": "a')
    assert isinstance(first[0], CallStart)
    assert first[1:] == [CallArguments(0, '{"x": "a')]
    assert parser.feed('b"}') == [CallArguments(0, 'b"}')]


@pytest.mark.parametrize(
    ("template", "name", "single"),
    [
        (NANO_TEMPLATE, "hermes", False),
        (None, "hermes", False),
        ("{{ '<|python_tag|>' }} Environment: ipython", "llama3", False),
        (
            "ipython {{ raise_exception('only supports single tool-calls at once!') }}",
            "llama3",
            True,
        ),
        ("ipython <tool_call>", "hermes", False),
        ("{{ '[TOOL_CALLS] [' }}", "mistral", False),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral-args", False),
    ],
)
def test_the_template_tells(template: str | None, name: str, single: bool) -> None:
    found = dialect_of(template)
    assert (found.name, found.single) == (name, single)


def keeps(engine: Engine, grammar: str | None, text: str) -> bool:
    """Whether a grammar lets `text` through, to its end."""
    assert grammar is not None
    vocab = engine.model.vocab
    state = Grammar(vocab, grammar)
    end = next(token for token in range(vocab.size) if vocab.is_end(token))
    try:
        for token in engine.tokenize(text):
            if not state.allows(token):
                return False
            state.accept(token)
        return state.allows(end)
    finally:
        state.free()


@pytest.mark.parametrize("dialect", [HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS])
def test_demanded_calls_keep_to_the_dialect(engine: Engine, dialect: Dialect) -> None:
    arguments = ['{"x": 1}', '{"x": 22}']
    two = dialect.called("run") + " " + arguments[0] + dialect.close
    two += dialect.more + dialect.called("stop") + " " + arguments[1] + dialect.close + dialect.end
    expected = [("run", arguments[0]), ("stop", arguments[1])]
    assert parse(dialect, dialect.prefix("") + two) == ("", expected)
    assert keeps(engine, read_constraint({}, TOOLS, "", dialect), two)
    alone: dict[str, Any] = {"parallel_tool_calls": False}
    assert not keeps(engine, read_constraint(alone, TOOLS, "", dialect), two)
    named = f" {arguments[0]}{dialect.close}{dialect.end}"
    assert parse(dialect, dialect.prefix("run") + named) == ("", expected[:1])
    grammar = read_constraint({}, TOOLS, "run", dialect)
    assert keeps(engine, grammar, named)
    assert not keeps(engine, grammar, named.replace("1", '"1"'))


def test_ids_fit_the_template() -> None:
    assert len(MISTRAL.new_id()) == 9
    assert short_id("abcDEF123") == "abcDEF123"
    call = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": {}}}
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "ok", "tool_call_id": "call_1"},
    ]
    fitted = MISTRAL.fit(turns)
    given = fitted[0]["tool_calls"][0]["id"]
    assert given == fitted[1]["tool_call_id"] == short_id("call_1")
    assert given.isalnum()
    assert len(given) == 9
    assert HERMES.fit(turns) == turns


def test_one_call_a_turn() -> None:
    calls = [{"id": str(i), "function": {"name": "run", "arguments": {}}} for i in range(3)]
    results = [{"role": "tool", "content": str(i), "tool_call_id": str(i)} for i in (1, 0)]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "ok", "tool_calls": calls},
        *results,
        {"role": "user", "content": "on"},
    ]
    found = one_call_a_turn(turns)
    shape = [
        turn["tool_calls"][0]["id"] if "tool_calls" in turn else (turn["role"], turn["content"])
        for turn in found
    ]
    assert shape == [("user", "go"), "1", ("tool", "1"), "0", ("tool", "0"), "2", ("user", "on")]
    assert json.dumps(turns[1]["tool_calls"]) == json.dumps(calls)

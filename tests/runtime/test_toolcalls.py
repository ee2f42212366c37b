"""Tool calls found in streamed text, however it is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillc_runtime.call_parts import CallArguments, CallStart, Content, Part
from skillc_runtime.dialects import HERMES

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def parse(pieces: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls (name, arguments) of an answer given in pieces."""
    parser = HERMES.parser(())
    parts: list[Part] = []
    for piece in pieces:
        parts += parser.feed(piece)
    parts += parser.finish()
    content = ""
    calls: list[list[str]] = []
    for part in parts:
        if isinstance(part, Content):
            assert part.text
            content += part.text
        elif isinstance(part, CallStart):
            assert part.index == len(calls)
            calls.append([part.name, ""])
        else:
            assert part.index == len(calls) - 1
            calls[part.index][1] += part.fragment
    return content, [(name, arguments) for name, arguments in calls]


def call(body: str) -> str:
    return f"{OPEN}\n{body}\n{CLOSE}"


CASES = [
    ("Hello.", ("Hello.", [])),
    ("", ("", [])),
    (" \n", (" \n", [])),
    (
        call('{"name": "run", "arguments": {"command": "ls"}}'),
        ("", [("run", '{"command": "ls"}')]),
    ),
    (
        "Let me look.\n" + call('{"name":"run","arguments":{"a":[1,{"b":2}]}}') + "\n",
        ("Let me look.", [("run", '{"a":[1,{"b":2}]}')]),
    ),
    (
        call('{"name": "a", "arguments": {}}') + "\n" + call('{"name": "b", "arguments": {}}'),
        ("", [("a", "{}"), ("b", "{}")]),
    ),
    (
        "One." + call('{"name": "a", "arguments": {}}') + " Two.",
        ("One.\nTwo.", [("a", "{}")]),
    ),
    (
        call('{"name": "w", "arguments": {"text": "</tool_call> \\" } \\\\"}}'),
        ("", [("w", '{"text": "</tool_call> \\" } \\\\"}')]),
    ),
    (
        call('{"name": "w", "arguments": {"text": "<tool_call>"}}'),
        ("", [("w", '{"text": "<tool_call>"}')]),
    ),
    (call('{"arguments": {"x": 1}, "name": "late"}'), ("", [("late", '{"x": 1}')])),
    (call('{"name": "p", "parameters": {"x": 1}}'), ("", [("p", '{"x": 1}')])),
    (call('{"name": "s", "arguments": "{\\"x\\": 1}"}'), ("", [("s", '{"x": 1}')])),
    (call('{"name": "s", "arguments": "free"}'), ("", [("s", '"free"')])),
    (call('{"name": "n", "arguments": null}'), ("", [("n", "{}")])),
    (call('{"name": "n"}'), ("", [("n", "{}")])),
    (call('{"name": "q\\"uote", "arguments": {}}'), ("", [('q"uote', "{}")])),
    (f'{OPEN}{{"name": "a", "arguments": {{}}}}', ("", [("a", "{}")])),
    (f'{OPEN}{{"name": "a", "arguments": {{}}}}</tool', ("", [("a", "{}")])),
    (
        f'{OPEN}{{"name": "a", "arguments": {{}}}} Then {OPEN}{{"name": "b"}}{CLOSE}',
        ("Then", [("a", "{}"), ("b", "{}")]),
    ),
    (f'{OPEN}{{"name": "a", "arg', (f'{OPEN}{{"name": "a", "arg', [])),
    (f'{OPEN}{{"name": "a", "arguments": {{"x', ("", [("a", '{"x')])),
    (call("{broken}"), (call("{broken}"), [])),
    (call('{"name": "", "arguments": {}}'), (call('{"name": "", "arguments": {}}'), [])),
    (call('{"name": 7}'), (call('{"name": 7}'), [])),
    (call("[1]"), (call("[1]"), [])),
    (OPEN + CLOSE, (OPEN + CLOSE, [])),
    (f"The {OPEN} mark.", (f"The {OPEN} mark.", [])),
    (f"{OPEN} {OPEN}", (f"{OPEN} {OPEN}", [])),
    ("a < b </tool_call> <tool_calls> <tool", ("a < b </tool_call> <tool_calls> <tool", [])),
    (
        call('{"name": "a", "arguments": {"x": "open\n}}') + " After",
        ("After", [("a", '{"x": "open\n}')]),
    ),
    (call('{"name": "ü😀", "arguments": {"é": "日本"}}'), ("", [("ü😀", '{"é": "日本"}')])),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_whole(text: str, expected: tuple[str, list[tuple[str, str]]]) -> None:
    assert parse([text]) == expected


@pytest.mark.parametrize("text", [text for text, _ in CASES])
def test_character_by_character(text: str) -> None:
    assert parse(list(text)) == parse([text])


@pytest.mark.parametrize("text", [text for text, _ in CASES])
def test_every_single_cut(text: str) -> None:
    whole = parse([text])
    for at in range(len(text)):
        assert parse([text[:at], text[at:]]) == whole


FRAGMENTS = [OPEN, CLOSE, '{"name": "f", "arguments": {"k": "v"}}', '{"name": "g"}']
ODD = st.lists(st.sampled_from([*FRAGMENTS, *' \n{}[]",:\\<>/tol_caxk']), max_size=25)


@settings(max_examples=200, deadline=None)
@given(ODD, st.lists(st.integers(0, 200), max_size=6))
def test_any_text_in_any_pieces(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert parse(pieces) == parse([text])


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()), max_size=4),
    st.booleans(),
    st.integers(1, 7),
)
def test_calls_round_trip(arguments: dict[str, object], ascii_only: bool, step: int) -> None:
    body = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=ascii_only)
    text = f"Before.\n{OPEN}\n{body}\n{CLOSE}"
    content, calls = parse([text[at : at + step] for at in range(0, len(text), step)])
    assert content == "Before."
    assert [(name, json.loads(found)) for name, found in calls] == [("f", arguments)]


def test_arguments_are_passed_on_while_they_come() -> None:
    parser = HERMES.parser(())
    assert parser.feed(f'Hi {OPEN}{{"name": "w", "argu') == [Content("Hi")]
    started = parser.feed('ments": {"text": "ab')
    assert isinstance(started[0], CallStart)
    assert (started[0].index, started[0].name, started[0].id[:5]) == (0, "w", "call_")
    assert started[1:] == [CallArguments(0, '{"text": "ab')]
    assert parser.feed('c"}}') == [CallArguments(0, 'c"}')]
    assert parser.feed(CLOSE) == []
    assert parser.finish() == []


def test_ids_differ() -> None:
    parser = HERMES.parser(())
    parts = parser.feed(call('{"name": "a"}') + call('{"name": "a"}'))
    ids = [part.id for part in parts if isinstance(part, CallStart)]
    assert len(set(ids)) == 2

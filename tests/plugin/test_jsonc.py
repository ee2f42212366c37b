"""JSON with comments, changed in place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillc.jsonc import JsoncError, append, dumps, get, parse, put, remove, remove_item

FILES = (
    "{}",
    "{ }\n",
    '{"a": 1}',
    '{\n  "a": 1\n}\n',
    '{\n  "a": 1, // why\n  /* more */ "b": {"c": [1, 2]}, // last\n}\n',
    '{\n  // "k": 0\n  "a": "// no comment" /* one */\n}\n',
    '// head\n{\n\t"b": [], // none\n\t"a": {} /* empty */\n}\n// tail\n',
    '{"b": {"c": {"d": null}}, "a": [\n  1\n]}',
)


@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("path", [("k",), ("b", "k"), ("k", "l", "m")])
def test_put_then_remove_leaves_every_other_byte(text: str, path: tuple[str, ...]) -> None:
    if path[0] == "b" and not isinstance(get(text, ("b",)), dict):
        text = put(text, ("b",), {"c": 0})
    value = {"x": ["é", 1.5, None]}
    changed = put(text, path, value)
    assert get(changed, path) == value
    before, after = parse(text).value, parse(changed).value
    assert {key: after[key] for key in before if key != path[0]} == {
        key: before[key] for key in before if key != path[0]
    }
    top = path if path[0] == "b" else path[:1]
    assert parse(remove(changed, top)).value == before
    if before and text != "{ }\n":
        assert remove(changed, top) == text


@pytest.mark.parametrize("text", FILES)
def test_comments_stay(text: str) -> None:
    changed = put(text, ("k",), 1)
    for comment in (
        "// why",
        "/* more */",
        "// last",
        '// "k": 0',
        "// none",
        "// head",
        "// tail",
    ):
        assert (comment in changed) == (comment in text)
    assert json.loads(dumps(parse(changed).value)) == parse(changed).value


def test_put_replaces_a_value_where_it_stands() -> None:
    text = '{\n  "a": [1, // one\n 2], // list\n  "b": 2\n}'
    assert put(text, ("a",), {"x": 1}) == '{\n  "a": {\n    "x": 1\n  }, // list\n  "b": 2\n}'


def test_lists() -> None:
    text = '{\n  "plugin": ["one"], // mine\n}\n'
    changed = append(text, ("plugin",), "./two.js")
    assert changed == '{\n  "plugin": ["one", "./two.js"], // mine\n}\n'
    assert remove_item(changed, ("plugin",), "./two.js") == text
    assert remove_item(changed, ("plugin",), "three") == changed
    long = '{\n  "plugin": [\n    "one", // first\n  ]\n}\n'
    added = append(long, ("plugin",), "two")
    assert added == '{\n  "plugin": [\n    "one", // first\n    "two",\n  ]\n}\n'
    assert remove_item(added, ("plugin",), "two") == long
    assert get(append("{}", ("plugin",), "two"), ("plugin",)) == ["two"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: a value was expected"),
        ('{\n"a" 1}', 'line 2: a "key"'),
        ('{"a": 1} x', "line 1: something follows"),
        ('{"a": tru}', "line 1: tru is no value"),
        ("[1 2]", "line 1: ',' or ']'"),
        ('{"a": "\n"}', "line 1: a value was expected"),
        ("[" * 5000, "nested too deeply"),
        ("{,}", "a value was expected"),
    ],
)
def test_what_is_no_json(text: str, problem: str) -> None:
    with pytest.raises(JsoncError, match="line") as caught:
        parse(text)
    assert problem in str(caught.value)


def test_a_parent_that_is_no_object() -> None:
    with pytest.raises(JsoncError, match="agent is no object"):
        put('{"agent": 1}', ("agent", "slim"), {})
    with pytest.raises(JsoncError, match="plugin is no list"):
        append('{"plugin": {}}', ("plugin",), "x")
    assert remove('{"agent": 1}', ("agent", "slim")) == '{"agent": 1}'


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), values, max_size=3), st.booleans(), values)
def test_any_object(before: dict[str, Any], lines: bool, value: Any) -> None:
    text = dumps(before) if lines else json.dumps(before)
    changed = put(text, ("a key", "inner"), value)
    assert parse(changed).value == {**before, "a key": {"inner": value}}
    assert remove(changed, ("a key",)) == text

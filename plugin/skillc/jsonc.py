"""JSON with comments and trailing commas, changed in place: all else stays byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"-?[A-Za-z0-9.+-]+")
_REST_OF_LINE = re.compile(r"(?:[ \t]+|/\*[^\n]*?\*/)*(?://[^\n]*)?")
_MAX_DEPTH = 100
INDENT = "  "


class JsoncError(ValueError):
    """Text that is no JSON with comments; says in which line."""


@dataclass(slots=True)
class Node:
    """A value and where it stands: `text[start:end]`; members by key, or items in order."""

    start: int
    end: int
    value: Any
    members: dict[str, Member] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Member:
    """One `"key": value` of an object; `start` is where its key begins."""

    start: int
    node: Node


def parse(text: str) -> Node:
    """The value that `text` is; JsoncError when it is none."""
    reader = _Reader(text)
    node = reader.value(reader.skip(0), 0)
    if reader.skip(node.end) != len(text):
        raise reader.error(node.end, "something follows the value")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def error(self, at: int, what: str) -> JsoncError:
        return JsoncError(f"line {self.text.count(chr(10), 0, at) + 1}: {what}")

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise self.error(at, "nested too deeply")
        head = self.text[at : at + 1]
        if head in ("{", "["):
            return self._many(at, depth, "}" if head == "{" else "]")
        found = (_STRING if head == '"' else _WORD).match(self.text, at)
        if found is None:
            raise self.error(at, "a value was expected")
        try:
            return Node(at, found.end(), json.loads(found[0]))
        except ValueError as error:
            raise self.error(at, f"{found[0][:40]} is no value") from error

    def _many(self, start: int, depth: int, close: str) -> Node:
        node = Node(start, start, {} if close == "}" else [])
        at = self.skip(start + 1)
        while self.text[at : at + 1] != close:
            if close == "}":
                at = self._member(at, node, depth)
            else:
                item = self.value(at, depth + 1)
                node.items.append(item)
                node.value.append(item.value)
                at = item.end
            at = self.skip(at)
            if self.text[at : at + 1] == ",":
                at = self.skip(at + 1)
            elif self.text[at : at + 1] != close:
                raise self.error(at, f"',' or '{close}' was expected")
        node.end = at + 1
        return node

    def _member(self, at: int, node: Node, depth: int) -> int:
        key = self.value(at, depth + 1)
        colon = self.skip(key.end)
        if not isinstance(key.value, str) or self.text[colon : colon + 1] != ":":
            raise self.error(at, 'a "key": was expected')
        inner = self.value(self.skip(colon + 1), depth + 1)
        node.members[key.value] = Member(at, inner)
        node.value[key.value] = inner.value
        return inner.end


def get(text: str, path: Sequence[str]) -> Any:
    """The value at `path`, None when there is none."""
    node = _find(parse(text), path)
    return None if node is None else node.value


def put(text: str, path: Sequence[str], value: Any) -> str:
    """`text` with `value` at `path`, replaced or added; JsoncError when a parent is no object."""
    node = parse(text)
    for depth, key in enumerate(path):
        if not isinstance(node.value, dict):
            raise JsoncError(f"{'.'.join(path[:depth]) or 'the file'} is no object")
        if key not in node.members:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _insert(text, node, depth + 1, value, key)
        node = node.members[key].node
    return text[: node.start] + dumps(value, len(path)) + text[node.end :]


def append(text: str, path: Sequence[str], value: Any) -> str:
    """`text` with `value` at the end of the list at `path`, which is made when missing."""
    node = _find(parse(text), path)
    if node is None:
        return put(text, path, [value])
    if not isinstance(node.value, list):
        raise JsoncError(f"{'.'.join(path)} is no list")
    return _insert(text, node, len(path) + 1, value, None)


def remove(text: str, path: Sequence[str]) -> str:
    """`text` without the member at `path`; unchanged when there is none."""
    parent = _find(parse(text), path[:-1])
    if parent is None or path[-1] not in parent.members:
        return text
    members = list(parent.members.values())
    at = list(parent.members).index(path[-1])
    spans = [(member.start, member.node.end) for member in members]
    return _cut(text, parent, spans, at)


def remove_item(text: str, path: Sequence[str], value: Any) -> str:
    """`text` without `value` in the list at `path`; unchanged when it is not there."""
    node = _find(parse(text), path)
    if node is None or not isinstance(node.value, list) or value not in node.value:
        return text
    spans = [(item.start, item.end) for item in node.items]
    return _cut(text, node, spans, node.value.index(value))


def dumps(value: Any, depth: int = 0) -> str:
    """JSON in lines, as it stands `depth` levels down."""
    return json.dumps(value, indent=INDENT, ensure_ascii=False).replace("\n", "\n" + INDENT * depth)


def _find(node: Node, path: Sequence[str]) -> Node | None:
    for key in path:
        if key not in node.members:
            return None
        node = node.members[key].node
    return node


def _insert(text: str, node: Node, depth: int, value: Any, key: str | None) -> str:
    """`text` with another member or item at the end of `node`."""
    head = "" if key is None else f"{json.dumps(key)}: "
    ends = [member.node.end for member in node.members.values()] or [i.end for i in node.items]
    one_line = "\n" not in text[node.start : node.end]
    if not ends and text[node.start + 1 : node.end - 1].strip() == "":
        line = f"\n{INDENT * depth}{head}{dumps(value, depth)}\n{INDENT * (depth - 1)}"
        return text[: node.start + 1] + line + text[node.end - 1 :]
    if not ends:  # nothing but comments: before them
        line = f"\n{INDENT * depth}{head}{dumps(value, depth)}"
        return text[: node.start + 1] + line + text[node.start + 1 :]
    last = ends[-1]
    if one_line:
        return text[:last] + f", {head}{json.dumps(value, ensure_ascii=False)}" + text[last:]
    comma = _comma(text, last)
    after = last if comma is None else comma + 1
    rest = _REST_OF_LINE.match(text, after)
    stop = rest.end() if rest else after
    line = f"\n{INDENT * depth}{head}{dumps(value, depth)}"
    if comma is None:
        return text[:last] + "," + text[last:stop] + line + text[stop:]
    return text[:stop] + line + "," + text[stop:]


def _cut(text: str, node: Node, spans: Sequence[tuple[int, int]], at: int) -> str:
    """`text` without the entry number `at` of `node` and its comma."""
    start, end = spans[at]
    comma = _comma(text, end)
    if comma is not None:
        end = comma + 1
    head = text[:start].rstrip(" \t")
    if head.endswith("\n"):  # its line goes, with the white space before it
        start = len(head) - 1
    before = text[:start]
    if comma is None and at > 0:  # it was the last one: the comma before it goes, too
        previous = _comma(text, spans[at - 1][1])
        assert previous is not None
        between = before[previous + 1 :]
        before = before[:previous] + (between if between.strip() or "\n" in between else "")
    if not (before[node.start + 1 :] + text[end : node.end - 1]).strip():
        before, end = before[: node.start + 1], node.end - 1
    return before + text[end:]


def _comma(text: str, at: int) -> int | None:
    """Where the comma after a value that ends at `at` stands."""
    found = _SPACE.match(text, at)
    at = found.end() if found else at
    return at if text[at : at + 1] == "," else None

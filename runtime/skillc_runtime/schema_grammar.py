"""JSON Schemas as grammars of llama.cpp (GBNF): each keyword is honoured, or refused by name.

What a grammar allows is always valid under the schema; where a schema leaves a choice that nobody
needs (white space, further properties, the order of properties) the grammar makes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillc_runtime.integer_grammar import integers
from skillc_runtime.schema_checks import (
    LIMITS,
    SchemaError,
    alone,
    bounds,
    check_disjoint,
    implied,
    is_a,
    literal,
    refuse,
)

__all__ = ["SchemaError", "SchemaGrammar", "literal"]

MAX_RULES = 3000
_MAX_DEPTH = 48

BASICS = {
    "ws": '" "?',
    "hex": "[0-9a-fA-F]",
    # No raw control characters, and no half of a surrogate pair.
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" '
    "([0-9abcefABCEF] hex hex hex | [dD] [0-7] hex hex))",
    "string": r'"\"" char* "\""',
    "digits": '"0" | [1-9] [0-9]{0,15}',
    "integer": '"-"? digits',
    "size": 'digits ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "number": '"-"? size',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "pair": 'string ":" ws value',
    "object": '"{" (pair ("," ws pair)*)? "}"',
    "array": '"[" (value ("," ws value)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_FORMATS = {
    "date": r'"\"" date "\""',
    "time": r'"\"" time "\""',
    "date-time": r'"\"" date "T" time "\""',
    "uuid": r'"\"" hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12} "\""',
}
_MOMENTS = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? "Z"',
}
_KINDS = ("object", "array", "string", "integer", "number", "boolean", "null")


class SchemaGrammar:
    """Rules for one or more schemas; `text` is the grammar."""

    def __init__(self) -> None:
        self._rules = {**BASICS, **_MOMENTS}
        self._refs: dict[tuple[int, str], str] = {}
        self._root: Any = None
        self._kinds: dict[str, Callable[[Mapping[str, Any], int], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
        }

    def add(self, schema: Any) -> str:
        """The name of a rule for the values of `schema`; SchemaError with the reason."""
        self._root = schema
        return self._rule(self._schema(schema, 0))

    def text(self, root: str) -> str:
        """The grammar whose root is the expression `root`."""
        lines = [f"root ::= {root}", *(f"{name} ::= {rule}" for name, rule in self._rules.items())]
        return "\n".join(lines)

    def _rule(self, expression: str) -> str:
        if expression in self._rules:
            return expression
        name = f"r{len(self._rules)}"
        self._rules[name] = expression
        if len(self._rules) > MAX_RULES:
            raise SchemaError("the schema is too large")
        return name

    def _schema(self, schema: Any, depth: int) -> str:
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise SchemaError("a schema must be an object, or true")
        if depth > _MAX_DEPTH:
            raise SchemaError(f"nested deeper than {_MAX_DEPTH}")
        refuse(schema)
        if "$ref" in schema:
            return self._ref(schema, depth)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._alternatives(schema, key, depth)
        if "const" in schema or "enum" in schema:
            return self._literals(schema)
        kinds = schema["type"] if "type" in schema else implied(schema)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if kinds == [None]:
            return "value"
        return self._any([self._kind(kind, schema, depth) for kind in kinds])

    def _kind(self, kind: Any, schema: Mapping[str, Any], depth: int) -> str:
        if kind not in _KINDS:
            raise SchemaError(f"type: {kind!r} is none of {', '.join(_KINDS)}")
        make = self._kinds.get(kind)
        return make(schema, depth) if make else str(kind)

    def _any(self, options: Sequence[str]) -> str:
        if not options:
            raise SchemaError("no value would be valid")
        return options[0] if len(options) == 1 else " | ".join(map(self._rule, options))

    def _ref(self, schema: Mapping[str, Any], depth: int) -> str:
        alone(schema, "$ref")
        ref = schema["$ref"]
        target = self._root
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise SchemaError("$ref: only references into the schema itself")
        steps = [part.replace("~1", "/").replace("~0", "~") for part in ref.split("/")[1:]]
        for step in steps:
            if not isinstance(target, dict) or step not in target:
                raise SchemaError(f"$ref: there is no {ref}")
            target = target[step]
        key = (id(self._root), ref)
        if key not in self._refs:
            name = f"ref{len(self._refs)}"
            self._refs[key] = name
            self._rules[name] = self._schema(target, depth + 1)
        return self._refs[key]

    def _alternatives(self, schema: Mapping[str, Any], key: str, depth: int) -> str:
        alone(schema, key)
        options = schema[key]
        if not isinstance(options, list) or not options:
            raise SchemaError(f"{key}: must be a list of schemas")
        if key == "allOf" and len(options) > 1:
            raise SchemaError("allOf: of several schemas is not supported")
        if key == "oneOf":
            check_disjoint(options)
        return self._any([self._schema(option, depth + 1) for option in options])

    def _literals(self, schema: Mapping[str, Any]) -> str:
        key = "const" if "const" in schema else "enum"
        alone(schema, key, "type")
        values = [schema["const"]] if key == "const" else schema["enum"]
        if not isinstance(values, list):
            raise SchemaError("enum: must be a list")
        if "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            values = [value for value in values if any(is_a(value, kind) for kind in kinds)]
        return self._any([literal(json.dumps(value, ensure_ascii=False)) for value in values])

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        extra = schema.get("additionalProperties", True)
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("properties must be an object, and required a list")
        missing = [name for name in required if name not in properties]
        if missing and (extra is False or not all(isinstance(name, str) for name in missing)):
            raise SchemaError(f"required: {missing[0]!r} is no property")
        wanted = {**properties, **dict.fromkeys(missing, extra)}
        if not wanted:
            if extra is False:
                return '"{" "}"'
            pair = self._rule(f'string ":" ws {self._rule(self._schema(extra, depth + 1))}')
            return f'"{{" ({pair} ("," ws {pair})*)? "}}"'
        pairs = []
        for name, inner in wanted.items():
            if inner is False and name not in required:
                continue
            key = literal(json.dumps(name, ensure_ascii=False))
            value = self._rule(self._schema(inner, depth + 1))
            pairs.append((self._rule(f'{key} ":" ws {value}'), name in required))
        return f'"{{" {self._members(pairs)} "}}"'

    def _members(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """The members in their order, those not required left out at will; linear in size."""
        first, later = self._rule('""'), self._rule('""')
        for pair, required in reversed(pairs):
            start = f"{pair} {later}"
            first = self._rule(start if required else f"{start} | {first}")
            tail = f'"," ws {pair}'
            later = self._rule(f"{tail} {later}" if required else f"({tail})? {later}")
        return first

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        if "prefixItems" in schema or isinstance(schema.get("items"), list):
            raise SchemaError("prefixItems: tuples are not supported")
        low, high = bounds(schema, "minItems", "maxItems")
        items = schema.get("items", True)
        if items is False or high == 0:
            if low:
                raise SchemaError("minItems: no array would be valid")
            return '"[" "]"'
        item = self._rule(self._schema(items, depth + 1))
        last = "" if high is None else str(high - 1)
        some = f'{item} ("," ws {item}){{{max(0, low - 1)},{last}}}'
        return f'"[" {some} "]"' if low else f'"[" ({some})? "]"'

    def _string(self, schema: Mapping[str, Any], depth: int) -> str:
        low, high = bounds(schema, "minLength", "maxLength")
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            if low or high is not None:
                raise SchemaError(f"minLength, maxLength: not together with format {form}")
            return _FORMATS[form]
        if not low and high is None:
            return "string"
        return rf'"\"" char{{{low},{"" if high is None else high}}} "\""'

    def _integer(self, schema: Mapping[str, Any], depth: int) -> str:
        try:
            return integers(schema)
        except ValueError as error:
            raise SchemaError(str(error)) from error

    def _number(self, schema: Mapping[str, Any], depth: int) -> str:
        limits = {key: schema[key] for key in LIMITS if key in schema}
        if not limits:
            return "number"
        if limits == {"minimum": 0} and not isinstance(limits["minimum"], bool):
            return "size"
        raise SchemaError(f"{next(iter(limits))}: bounds of numbers that are no integers")

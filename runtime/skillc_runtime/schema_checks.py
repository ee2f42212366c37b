"""What a JSON Schema asks for that a grammar can keep, and the refusal of what it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MAX_REPEAT = 1000
_REFUSED = frozenset(
    "not if then else pattern patternProperties propertyNames minProperties maxProperties "
    "dependencies dependentRequired dependentSchemas unevaluatedProperties unevaluatedItems "
    "additionalItems contains minContains maxContains uniqueItems multipleOf $dynamicRef "
    "$recursiveRef".split()
)


class SchemaError(ValueError):
    """A schema that is none, or asks for what a grammar cannot promise."""


LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NOTES = frozenset(
    "title description default examples $schema $id $comment $defs definitions deprecated "
    "readOnly writeOnly".split()
)


def refuse(schema: Mapping[str, Any]) -> None:
    """SchemaError for a keyword that a grammar cannot keep."""
    for key in schema:
        if key in _REFUSED and schema[key] is not False:
            raise SchemaError(f"{key}: cannot be kept by a grammar")


def alone(schema: Mapping[str, Any], *keys: str) -> None:
    """SchemaError when something else beside `keys` would have to hold as well."""
    others = [key for key in schema if key not in keys and key not in _NOTES]
    if others:
        raise SchemaError(f"{others[0]}: not supported beside {keys[0]}")


def bounds(schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
    """The lengths that `schema` asks for."""
    low, high = schema.get(least, 0), schema.get(most)
    for key, value in ((least, low), (most, high)):
        good = value is None or (isinstance(value, int) and not isinstance(value, bool))
        if not good or (value or 0) < 0:
            raise SchemaError(f"{key}: must be a whole number of at least 0")
        if (value or 0) > MAX_REPEAT:
            raise SchemaError(f"{key}: at most {MAX_REPEAT}")
    if high is not None and low > high:
        raise SchemaError(f"{least}: above {most}")
    return low, high


def literal(text: str) -> str:
    """A GBNF literal."""
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise SchemaError("half of a surrogate pair")
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


def implied(schema: Mapping[str, Any]) -> str | None:
    """The type that a schema without one speaks of."""
    if {"properties", "required", "additionalProperties"} & schema.keys():
        return "object"
    if {"items", "prefixItems", "minItems", "maxItems"} & schema.keys():
        return "array"
    if {"minLength", "maxLength"} & schema.keys():
        return "string"
    if limits := [key for key in LIMITS if key in schema]:
        raise SchemaError(f"{limits[0]}: needs a type")
    return None


def is_a(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return bool(kind == "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and value == int(value))
    names = {str: "string", dict: "object", list: "array", type(None): "null"}
    return bool(names.get(type(value)) == kind)


def check_disjoint(options: Sequence[Any]) -> None:
    """oneOf is anyOf only where no value can be valid twice."""
    kinds = [option.get("type") if isinstance(option, dict) else None for option in options]
    known = all(isinstance(kind, str) for kind in kinds)
    apart = known and len(set(kinds)) == len(kinds) and not {"integer", "number"} <= set(kinds)
    consts = [json.dumps(o["const"]) for o in options if isinstance(o, dict) and "const" in o]
    if not apart and not (len(set(consts)) == len(options)):
        raise SchemaError("oneOf: use anyOf, or options of different types")

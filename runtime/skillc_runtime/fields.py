"""Reading the fields of a JSON request: each a value of the right kind, or a 400 that names it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from skillc_runtime.api_error import ApiError, invalid

Body = Mapping[str, Any]


def parse_json(data: bytes) -> Any:
    """The JSON value of a request; ApiError 400 when it is none."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object of a request; ApiError 400 when it is none."""
    body = parse_json(data)
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return body


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def number(body: Body, key: str, default: float, low: float, high: float) -> float:
    """A number within bounds; null and absence mean the default."""
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(key, "must be a number")
    if not low <= value <= high:
        raise invalid(key, f"must be between {low:g} and {high:g}")
    return float(value)


def integer(body: Body, key: str, low: int, high: int | None = None) -> int | None:
    """A whole number of at least `low`; larger ones than `high` are cut to it."""
    value = body.get(key)
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not math.isfinite(value):
        raise invalid(key, "must be a whole number")
    if value < low:
        raise invalid(key, f"must be at least {low}")
    return int(value) if high is None else min(int(value), high)


def flag(body: Body, key: str) -> bool:
    """A boolean; null and absence mean false."""
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise invalid(key, "must be true or false")
    return bool(value)


def text(body: Body, key: str) -> str:
    """A string that must be there."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise invalid(key, "must be a string")
    return value


def strings(body: Body, key: str, most: int) -> tuple[str, ...]:
    """A string or a list of a few; null and absence mean none."""
    value = body.get(key)
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise invalid(key, "must be a string or a list of strings")
    if len(found) > most:
        raise invalid(key, f"at most {most} strings")
    return tuple(item for item in found if item)


def objects(body: Body, key: str) -> list[dict[str, Any]]:
    """A list of objects; null and absence mean an empty one."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(key, "must be a list of objects")
    return value

"""Grammars for the integers between two bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DIGITS = 16


def integers(schema: Mapping[str, Any]) -> str:
    """A GBNF expression for the integers within a schema's bounds; ValueError when there is none.

    Where a side is open it ends at 16 digits.
    """
    low = _bound(schema, "minimum", "exclusiveMinimum", math.ceil, 1)
    high = _bound(schema, "maximum", "exclusiveMaximum", math.floor, -1)
    if low is None and high is None:
        return "integer"
    most = 10**MAX_DIGITS - 1
    low, high = (
        max(-most, low if low is not None else -most),
        min(most, most if high is None else high),
    )
    if low > high:
        raise ValueError("minimum, maximum: no integer is between them")
    options: list[str] = []
    if low < 0:
        options += (f'"-" {part}' for part in _positive(max(1, -high), -low))
    if high >= 0:
        options += _positive(max(0, low), high)
    return " | ".join(options)


def _bound(schema: Mapping[str, Any], key: str, beyond: str, whole: Any, step: int) -> int | None:
    """The tighter one of the inclusive and the exclusive bound on one side."""
    found: list[int] = []
    for name in (key, beyond):
        value = schema.get(name)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise ValueError(f"{name}: must be a number")
        limit = int(whole(value))
        found.append(limit + step if name == beyond and limit == value else limit)
    if not found:
        return None
    return max(found) if step > 0 else min(found)


def _positive(low: int, high: int) -> Iterator[str]:
    """Expressions that together are the numbers low..high, both at least 0, in decimal."""
    for size in range(len(str(low)), len(str(high)) + 1):
        start = max(low, 10 ** (size - 1) if size > 1 else 0)
        end = min(high, 10**size - 1)
        yield from _same_length(str(start), str(end))


def _same_length(low: str, high: str) -> Iterator[str]:
    """The numbers between two of the same number of digits."""
    rest = len(low) - 1
    if low == high:
        yield f'"{low}"'
    elif low[0] == high[0]:
        yield from (f'"{low[0]}" {part}' for part in _same_length(low[1:], high[1:]))
    else:
        first, last = int(low[0]), int(high[0])
        if rest and low[1:] != "0" * rest:
            yield from (f'"{low[0]}" {part}' for part in _same_length(low[1:], "9" * rest))
            first += 1
        partial = bool(rest) and high[1:] != "9" * rest
        last -= partial
        if first <= last:
            yield f"[{first}-{last}]" + (f" [0-9]{{{rest}}}" if rest else "")
        if partial:
            yield from (f'"{high[0]}" {part}' for part in _same_length("0" * rest, high[1:]))

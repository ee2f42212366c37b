"""How a request names the skills it wants: model name, body field or header.

nano    nano:deploy    nano+deploy    nano:deploy+style@0.5    deploy    deploy:0.5,style
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skillc_runtime.api_error import ApiError, invalid

MAX_SKILLS = 8
MAX_SCALE = 10.0
BASE_ALIAS = "base"
SKILLS_HEADER = "x-skillc-skills"

_ITEM = re.compile(r"\s*([^\s@:+,]+)\s*(?:[@:]\s*([^\s@:+,]+))?\s*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A skill asked for, and how strongly."""

    name: str
    scale: float = 1.0


def from_model(model: str, base: str) -> list[Wanted]:
    """The skills that a model name asks for, none for the base itself.

    Raises ApiError 404: a name that cannot be understood is a model that does not exist.
    """
    for head in (base, BASE_ALIAS):
        if model == head:
            return []
        if model.startswith((f"{head}:", f"{head}+")):
            return _items(model[len(head) + 1 :], model)
    return _items(model, model)


def from_header(value: str) -> list[Wanted]:
    """The skills that the X-Skillc-Skills header asks for; an empty one asks for none."""
    return _items(value, value) if value.strip() else []


def _items(text: str, model: str) -> list[Wanted]:
    found = []
    for item in re.split("[+,]", text):
        match = _ITEM.fullmatch(item)
        scale = _scale(match[2]) if match else None
        if match is None or scale is None:
            raise unknown_model(model, "use BASE:SKILL or BASE:SKILL+OTHER@0.5")
        found.append(Wanted(match[1], scale))
    return found


def _scale(text: str | None) -> float | None:
    try:
        scale = 1.0 if text is None else float(text)
    except ValueError:
        return None
    return scale if math.isfinite(scale) and abs(scale) <= MAX_SCALE else None


def from_body(value: Any, param: str, ids: Sequence[str] = ()) -> list[Wanted]:
    """The skills of body field `param`: names, or objects with name (or id) and scale.

    In `lora` a whole number is a place in `ids`.
    """
    if not isinstance(value, list):
        raise invalid(param, 'must be a list such as [{"name": "deploy", "scale": 1.0}]')
    found = []
    for item in value:
        if isinstance(item, str):
            found.append(Wanted(item))
            continue
        name = item.get("name", item.get("id")) if isinstance(item, dict) else None
        if param == "lora" and isinstance(name, int) and not isinstance(name, bool):
            name = by_id(name, param, ids)
        if not isinstance(name, str):
            raise invalid(param, "each entry needs the name of a skill")
        scale = item.get("scale", 1.0)
        good = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not good or not abs(scale) <= MAX_SCALE:
            raise invalid(param, f"the scale of {name} must be a number up to {MAX_SCALE:g}")
        found.append(Wanted(name, float(scale)))
    return found


def by_id(number: int, param: str, ids: Sequence[str]) -> str:
    """The skill at place `number` of `ids`; ApiError 404 when there is none."""
    if not 0 <= number < len(ids):
        line = f"{param}: there is no adapter {number}; see /lora-adapters"
        raise ApiError(404, line, code="model_not_found", param=param)
    return ids[number]


def check_set(wanted: Sequence[Wanted]) -> None:
    """ApiError unless the set is small enough and names each skill once."""
    names = [skill.name for skill in wanted]
    if len(names) > MAX_SKILLS:
        raise invalid("skills", f"{len(names)} skills; at most {MAX_SKILLS} a request")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid("skills", f"{', '.join(twice)} named twice; set its scale instead")


def unknown_model(model: str, hint: str) -> ApiError:
    """The 404 for a model or skill that there is not."""
    line = f"the model {model[:100]!r} does not exist: {hint}"
    return ApiError(404, line, code="model_not_found", param="model")

"""A request for an upstream: skills resolved, their texts elided, everything else as it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillc_runtime.api_error import ApiError
from skillc_runtime.elision import elide, find_mentions
from skillc_runtime.fields import Body, objects, text
from skillc_runtime.messages import with_skill_texts
from skillc_runtime.names import from_model
from skillc_runtime.registry import Registry
from skillc_runtime.service import asked_skills, wants_elision
from skillc_runtime.skill_set import SkillSet

OWN_FIELDS = ("skills", "lora", "model")
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client called the model, the skills to attach, and the rest for the upstream."""

    model: str
    skills: SkillSet
    body: dict[str, Any]
    tokens_elided: int = 0


def read_chat(
    body: Body, headers: Mapping[str, str], registry: Registry, count: Callable[[str], int]
) -> Asked:
    """A chat request; `count` gives the tokens of a text. Raises ApiError."""
    model = text(body, "model")
    asked = asked_skills(body, headers, registry.ids)
    skills = registry.resolve(model, asked)
    messages = objects(body, "messages")
    elided = 0
    if wants_elision(headers) and (known := registry.known()):
        named = from_model(model, registry.name) if asked is None else asked
        # A skill that the request itself switches off or turns round is not meant to be attached.
        refused = {skill.name for skill in named if skill.scale <= 0}
        seen = [_plain(message) for message in messages]
        mentions = find_mentions(seen, known)
        # A listing says what there is; a request that names its skills has made the choice.
        chosen = asked is not None or bool(named)
        mentioned = mentions.used if chosen else mentions.used + mentions.listed
        wanted = [name for name in mentioned if name not in refused]
        with_them = registry.with_mentioned(skills, wanted)
        active = {
            m.name: known[m.name] for m in with_them.members if m.name in known and m.scale > 0
        }
        found = elide(seen, active)
        if found.gone:
            skills = with_them
            pairs = zip(messages, seen, found.messages, strict=True)
            messages = [_changed(*three) for three in pairs]
            elided = max(0, sum(map(count, found.gone)) - sum(map(count, found.left)))
    rest = {key: value for key, value in body.items() if key not in OWN_FIELDS}
    return Asked(model, skills, {**rest, "messages": _with_texts(messages, skills.texts)}, elided)


def read_completion(body: Body, headers: Mapping[str, str], registry: Registry) -> Asked:
    """A plain completion request. Raises ApiError."""
    model = text(body, "model")
    skills = registry.resolve(model, asked_skills(body, headers, registry.ids))
    if skills.texts:
        line = "a skill of this set is served as text: use /v1/chat/completions"
        raise ApiError(400, line, code="skill_needs_chat")
    rest = {key: value for key, value in body.items() if key not in OWN_FIELDS}
    return Asked(model, skills, rest)


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as elision reads it: a role and a text; what is no text is empty."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(map(str, parts)) if all(isinstance(p, str) for p in parts) else ""
    role = message.get("role")
    role = "system" if role in _SYSTEM else role
    return {"role": role, "content": content if isinstance(content, str) else ""}


def _changed(
    message: dict[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """The client's message, with its new text where elision took something out of it."""
    same = before["content"] == after["content"]
    return message if same else {**message, "content": after["content"]}


def _with_texts(messages: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[dict[str, Any]]:
    first = messages[0] if messages else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return with_skill_texts(messages, texts)
    own = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return [*own, *messages]

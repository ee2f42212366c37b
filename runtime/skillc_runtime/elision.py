"""Elision: the text of a skill that is served as an adapter leaves the prompt.

Agents put skills into the messages as text: what their skill tool returned (`<skill_content>`), a
pasted SKILL.md, the listing in the system message.  Only text that is word for word what the
adapter was compiled from is taken out; everything else stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import Any

from skillc_runtime.template import normalise

ELIDE_HEADER = "x-skillc-elide"
MIN_BODY = 200  # characters; shorter texts may be quoted without meaning the skill

_BLOCK = re.compile(r'<skill_content name="([^"<>]{1,256})">(.*?)</skill_content>', re.DOTALL)
_LISTING = re.compile(
    r"(?:Skills provide specialized instructions[^<]{0,1000})?"
    r"<available_skills>(.*?)</available_skills>",
    re.DOTALL,
)
_ENTRY = re.compile(r"<skill>(.*?)</skill>\s*", re.DOTALL)
_BLOCK_END, _LISTING_END = "</skill_content>", "</available_skills>"
_HEAD = re.compile(r"---[ \t]*\r?\n(?:(?!---)[^\n]*\n){1,100}---\s*\Z")
_HEAD_ROOM = 4096
_BLANKS = " \t\r"


@dataclass(frozen=True, slots=True)
class KnownSkill:
    """A skill whose adapter may stand for its text; `file_sha256` is of its SKILL.md as it is."""

    name: str
    description: str
    body: str
    file_sha256: str = ""
    anchor: str = field(init=False)
    inner: str = field(init=False)
    """A line that a text with the body in it has as a line of its own; empty if there is none."""
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        lines = self.body.split("\n")
        object.__setattr__(self, "anchor", max(lines, key=len))
        object.__setattr__(self, "inner", max(lines[1:-1], key=len, default="").rstrip(_BLANKS))
        # A file on disk may end its lines otherwise than the canonical text does.
        body = r"[ \t]*\r?\n".join(map(re.escape, lines))
        object.__setattr__(self, "pattern", re.compile(rf"{body}[ \t]*"))

    def find(self, text: str) -> tuple[int, int] | None:
        """Where the body stands in `text`."""
        if not self.body or self.anchor not in text:
            return None
        hit = self.pattern.search(text)
        return hit.span() if hit else None


@dataclass(frozen=True, slots=True)
class Mentions:
    """The skills whose text is in the messages: `used` as a text to follow, `listed` by name."""

    used: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()


@dataclass(slots=True)
class Elided:
    """Messages without the texts, the texts that went and what stands for them."""

    messages: list[dict[str, Any]]
    gone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def find_mentions(
    messages: Sequence[Mapping[str, Any]], known: Mapping[str, KnownSkill]
) -> Mentions:
    """Which of the `known` skills the messages hold the text of, in the order of their names."""
    used: set[str] = set()
    listed: set[str] = set()
    by_line = _by_line(_long(known.values()))
    for message in messages:
        text = normalise(message["content"])
        for name, inside in _BLOCK.findall(_up_to(_BLOCK_END, text)):
            skill = known.get(unescape(name))
            if skill and skill.find(inside):
                used.add(skill.name)
        if len(text) > MIN_BODY:
            lines = {line.rstrip(_BLANKS) for line in text.split("\n")} & by_line.keys() - {""}
            candidates = (skill for line in (*lines, "") for skill in by_line[line])
            used |= {skill.name for skill in candidates if skill.find(text)}
        if message["role"] == "system":
            for block in _LISTING.finditer(_up_to(_LISTING_END, text)):
                entries = _ENTRY.findall(_up_to("</skill>", block[1]))
                listed |= {skill.name for entry in entries if (skill := _listed(entry, known))}
    return Mentions(tuple(sorted(used)), tuple(sorted(listed - used)))


def _by_line(skills: Iterable[KnownSkill]) -> dict[str, list[KnownSkill]]:
    """The skills by a line to look for; under "" those without one."""
    found: dict[str, list[KnownSkill]] = {"": []}
    for skill in skills:
        found.setdefault(skill.inner, []).append(skill)
    return found


def elide(messages: Sequence[Mapping[str, Any]], active: Mapping[str, KnownSkill]) -> Elided:
    """`messages` without the text of the skills that are `active`."""
    result = Elided([])
    # The longest first, for bodies in bodies.
    long = sorted(_long(active.values()), key=lambda skill: (-len(skill.body), skill.name))
    for message in messages:
        text = original = normalise(message["content"])
        text = _replace(_BLOCK, _BLOCK_END, lambda hit: _block(hit, active, result), text)
        for skill in long:
            text = _without_body(text, skill, result)
        if message["role"] == "system":
            text = _replace(_LISTING, _LISTING_END, lambda hit: _listing(hit, active, result), text)
        changed = text != original
        result.messages.append({**message, "content": text} if changed else dict(message))
    return result


def _up_to(end: str, text: str) -> str:
    """`text` up to its last `end`: a search for pairs must not run on from every open one."""
    at = text.rfind(end)
    return text[: at + len(end)] if at >= 0 else ""


def _replace(
    pattern: re.Pattern[str], end: str, change: Callable[[re.Match[str]], str], text: str
) -> str:
    head = _up_to(end, text)
    return pattern.sub(change, head) + text[len(head) :]


def _long(skills: Iterable[KnownSkill]) -> list[KnownSkill]:
    """The skills that can be told by their body."""
    return [skill for skill in skills if len(skill.body) > MIN_BODY]


def _block(block: re.Match[str], active: Mapping[str, KnownSkill], result: Elided) -> str:
    skill = active.get(unescape(block[1]))
    span = skill.find(block[2]) if skill else None
    if skill is None or span is None:
        return block[0]
    before = block[2][: span[0]].strip().removesuffix(f"# Skill: {block[1]}").strip()
    after = block[2][span[1] :].strip()
    rest = "".join(f"{part}\n" for part in (before, after) if part)
    # The files and their folder stay: no adapter knows where a skill lies on this machine.
    kept = f'<skill_content name="{block[1]}">\n{marker(skill)}\n{rest}</skill_content>'
    result.gone.append(block[0])
    result.left.append(kept)
    return kept


def _without_body(text: str, skill: KnownSkill, result: Elided) -> str:
    while span := skill.find(text):
        start, end = span
        head = _HEAD.search(text[max(0, start - _HEAD_ROOM) : start])
        if head is not None and re.search(rf"^name:.*{re.escape(skill.name)}", head[0], re.M):
            start -= len(head[0])
        result.gone.append(text[start:end])
        result.left.append(marker(skill))
        text = text[:start] + marker(skill) + text[end:]
    return text


def _listing(block: re.Match[str], active: Mapping[str, KnownSkill], result: Elided) -> str:
    """A listing without the active skills; nothing at all when no other is listed."""
    entries = _ENTRY.findall(_up_to("</skill>", block[1]))
    others = [entry for entry in entries if not _listed(entry, active)]
    if len(others) == len(entries):
        return block[0]
    kept = ""
    if others:
        kept = _replace(
            _ENTRY, "</skill>", lambda hit: "" if _listed(hit[1], active) else hit[0], block[0]
        )
    result.gone.append(block[0])
    result.left.append(kept)
    return kept


def _listed(entry: str, known: Mapping[str, KnownSkill]) -> KnownSkill | None:
    """The skill that an entry of a listing describes: same name and same description."""
    skill = known.get(_field(entry, "name"))
    if skill is None or _field(entry, "description") != " ".join(skill.description.split()):
        return None
    return skill


def _field(entry: str, tag: str) -> str:
    hit = re.search(rf"<{tag}>(.*?)</{tag}>", entry, re.DOTALL)
    return " ".join(unescape(hit[1]).split()) if hit else ""


def marker(skill: KnownSkill) -> str:
    """The line that stands where the text was."""
    return f"[skill {skill.name} is active]"

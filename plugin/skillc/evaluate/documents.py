"""Real SKILL.md files as documents: read from JSON lines, cut to a context, split into sections."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skillc_compiler.errors import ProjectError, SkillError
from skillc_compiler.skill import Skill, parse_skill

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r"#{1,6} +\S")

Tokenize = Callable[[str], list[int]]
Detokenize = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Section:
    """A heading's line and the lines below it, up to the next heading; they join to the text."""

    heading: str
    body: str


def read_documents(path: Path, count: int) -> list[Skill]:
    """`count` skills spread evenly over a JSONL file (plain or .xz) with a key `text`.

    Texts that are no skills are left out. Raises ProjectError in one line.
    """
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            texts = [str(json.loads(line)["text"]) for line in lines if line.strip()]
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{path}: not JSON lines with a key text ({type(error).__name__}: {error})"
        ) from error
    skills = [skill for number, text in enumerate(texts) if (skill := _parse(text, number))]
    if not skills:
        raise ProjectError(f"{path}: no SKILL.md text in it")
    count = min(count, len(skills))
    return [skills[number * len(skills) // count] for number in range(count)]


def _parse(text: str, number: int) -> Skill | None:
    try:
        return parse_skill(text.encode(), folder=f"document-{number}")
    except SkillError:
        return None


def cut(skill: Skill, limit: int, tokenize: Tokenize, detokenize: Detokenize) -> Skill:
    """The skill with at most `limit` tokens of its text, cut after a whole line."""
    tokens = tokenize(skill.text)
    if len(tokens) <= limit:
        return skill
    text = detokenize(tokens[:limit]).rpartition("\n")[0].rstrip() + "\n"
    return replace(skill, text=text, hash=hashlib.sha256(text.encode()).hexdigest())


def sections(text: str) -> list[Section]:
    """The parts of a Markdown text; what stands before the first heading has an empty one.

    Lines in fenced blocks are no headings.
    """
    found: list[Section] = []
    heading, body = "", ""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
        if not fence and not mark and _HEADING.match(line):
            found.append(Section(heading, body))
            heading, body = line, ""
        else:
            body += line
    found.append(Section(heading, body))
    return [section for section in found if section.heading or section.body]


def middle(text: str) -> tuple[str, str]:
    """The text cut in two where a section begins, nearest its middle; at a line without sections.

    The first half is never empty unless the text has a single line.
    """
    parts = sections(text)
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part.heading) + len(part.body)
    inner = [start for start in starts if len(text) // 4 <= start <= 3 * len(text) // 4]
    if not inner:
        inner = [match.end() for match in re.finditer(r"\n", text)][:-1] or [0]
    begin = min(inner, key=lambda start: abs(start - len(text) // 2))
    return text[:begin], text[begin:]

"""Reads SKILL.md: leniently (faults of form are warnings), bounded, and into one canonical text."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from skillc_compiler.errors import SkillError
from skillc_compiler.find import Found, find_skills
from skillc_compiler.frontmatter import (
    TEXT_KEYS,
    Frontmatter,
    FrontmatterError,
    Value,
    parse_frontmatter,
    split_frontmatter,
)
from skillc_compiler.hidden_text import Hidden, find_hidden, visible
from skillc_compiler.skill_file import FILE_NAMES, LIMIT, choose_name, read_bounded

__all__ = [
    "Found",
    "Skill",
    "canonical_text",
    "find_skills",
    "parse_skill",
    "read_skill",
]

_DESCRIPTION_LENGTH = 1024
_KNOWN_KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BREAKS = re.compile("[ \t\n\u2028\u2029]+")
_STRAYS = 3
_DELETE = "delete those characters"
_STRAY = re.compile("[\u200b\u2060\ufeff](?=[ \t]*(?:[\r\n]|$))")
_LISTED = (
    ("HTML comments", re.compile("<!--")),
    ("data URIs", re.compile(r"data:[\w.+-]{1,80}/[\w.+-]{1,80}[;,]")),
    ("long base64", re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{200,}")),
)


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill: `text` is what is compiled, `hash` the sha256 of its UTF-8 bytes in hex.

    `body` is the Markdown after the frontmatter with LF line ends, `metadata` every other key as a
    string (nested ones dotted, those of the `metadata` map by their own names), and each warning
    reads "reason (line N): detail".
    """

    name: str
    description: str
    body: str
    text: str
    hash: str
    path: Path | None
    metadata: Mapping[str, str]
    warnings: tuple[str, ...]


def read_skill(path: Path) -> Skill:
    """Read a SKILL.md, given the file or its folder; raises SkillError with one line."""
    file = path
    if path.is_dir():
        names = (path / name for name in FILE_NAMES)
        file = next((name for name in names if name.exists()), path / FILE_NAMES[0])
    folder = file.parent.name or file.absolute().parent.name
    return parse_skill(read_bounded(file), folder=folder, path=file)


def parse_skill(data: bytes, *, folder: str, path: Path | None = None) -> Skill:
    """Parse the bytes of a SKILL.md in a folder named `folder`.

    Raises SkillError "path:line: what is wrong; what to do" when the text has no description, has
    frontmatter that cannot be parsed, is not UTF-8, is over LIMIT bytes, or hides text; lesser
    faults become warnings.
    """
    where = visible(str(path) if path else f"{folder}/SKILL.md", 300)
    warnings: list[str] = []
    try:
        text = _decode(data, warnings)
        lines, first, body = split_frontmatter(text)
        front = parse_frontmatter(lines, first)
        warnings += front.warnings
        description = _description(front, first, warnings)
    except FrontmatterError as error:
        raise SkillError(f"{where}:{error.line}: {error.what}; {error.todo}") from error
    name, problem = choose_name(front.values.get("name"), folder)
    if problem:
        warnings.append(problem)
    _check_keys(front, warnings)
    body = _strip_lines(body)
    if not body:
        warnings.append(f"no instructions (line {first + len(lines)}): the body is empty")
    _list_suspects(text, warnings)
    text = canonical_text(name, description, body)
    for hidden in find_hidden(text):  # Only where Unicode's normal form moved characters together.
        raise SkillError(f"{where}:{first}: hidden text: {_says(hidden)}; {_DELETE}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    metadata = MappingProxyType(_metadata(front))
    return Skill(name, description, body, text, digest, path, metadata, tuple(warnings))


def canonical_text(name: str, description: str, body: str) -> str:
    """The text that is compiled; parsing it again gives the same name, description and body.

    The description is quoted only where a reader of YAML would otherwise lose a part of it.
    """
    if not _reads_back(description):
        description = json.dumps(description, ensure_ascii=False)
    head = f"---\nname: {name}\ndescription: {description}\n---\n"
    return f"{head}\n{body}\n" if body else head


def _decode(data: bytes, warnings: list[str]) -> str:
    """UTF-8 to NFC text with LF line ends and without hidden or control characters."""
    if len(data) > LIMIT:
        raise FrontmatterError(1, f"is over {LIMIT} bytes", "move detail into references/")
    mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    if mark:
        warnings.append("byte order mark (line 1): dropped")
    try:
        text = data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, mark + error.start) + 1
        what = f"is not UTF-8 at byte {mark + error.start} (0x{data[mark + error.start]:02x})"
        raise FrontmatterError(line, what, "save the file as UTF-8") from error
    if control := _CONTROLS.search(text):
        line = text.count("\n", 0, control.start()) + 1
        warnings.append(f"control characters (line {line}): read as spaces")
    text = _drop_unseen(text, mark, warnings)
    if "\r" in text:
        warnings.append("line ends of Windows (line 1): read as LF")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def _drop_unseen(text: str, mark: int, warnings: list[str]) -> str:
    """Refuse hidden text; control characters become spaces, a few strays at line ends go.

    `mark` is the length in bytes of what stood before `text`.
    """
    clean = _CONTROLS.sub(" ", text)
    strays = [match.start() for match in _STRAY.finditer(clean)]
    for hidden in find_hidden(clean):
        if len(strays) <= _STRAYS and hidden.at in strays:
            continue
        line = text.count("\n", 0, hidden.at) + 1
        byte = mark + len(text[: hidden.at].encode())
        raise FrontmatterError(line, f"hidden text at byte {byte}: {_says(hidden)}", _DELETE)
    if not strays:
        return clean
    line = clean.count("\n", 0, strays[0]) + 1
    warnings.append(f"zero-width character at a line's end (line {line}): dropped")
    return _STRAY.sub("", clean)


def _says(hidden: Hidden) -> str:
    return f"{hidden.kind} that say '{visible(hidden.payload)}'"


def _description(front: Frontmatter, first: int, warnings: list[str]) -> str:
    """The description on one line; raises FrontmatterError when there is none."""
    value = front.values.get("description", Value("", first - 1))
    text = unicodedata.normalize("NFC", _CONTROLS.sub(" ", value.text))
    text = _BREAKS.sub(" ", text).strip()
    if not text:
        what = "description is " + ("empty" if "description" in front.values else "missing")
        raise FrontmatterError(value.line, what, "add 'description: what the skill is for'")
    for hidden in find_hidden(text):
        raise FrontmatterError(value.line, f"hidden text: {_says(hidden)}", _DELETE)
    if len(text) > _DESCRIPTION_LENGTH:
        reason = f"description is over {_DESCRIPTION_LENGTH} characters"
        warnings.append(f"{reason} (line {value.line}): {len(text)}")
    return text


def _reads_back(description: str) -> bool:
    front = parse_frontmatter([f"description: {description}"])
    return front.values["description"].text == description and not front.warnings


def _strip_lines(body: str) -> str:
    return "\n".join(line.rstrip(" \t") for line in body.split("\n")).strip("\n")


def _check_keys(front: Frontmatter, warnings: list[str]) -> None:
    tops = {key.partition(".")[0]: value.line for key, value in reversed(front.values.items())}
    unknown = [key for key in reversed(tops) if key not in _KNOWN_KEYS]
    if unknown:
        names = visible(", ".join(unknown), 200)
        warnings.append(f"keys the format does not know (line {tops[unknown[0]]}): {names}")


def _list_suspects(text: str, warnings: list[str]) -> None:
    for kind, pattern in _LISTED:
        if found := [match.start() for match in pattern.finditer(text)]:
            line = text.count("\n", 0, found[0]) + 1
            shown = visible(text[found[0] : found[0] + 60], 50)
            warnings.append(f"{kind} (line {line}): {len(found)}, the first: {shown}")


def _metadata(front: Frontmatter) -> dict[str, str]:
    """Every key but name and description; those under `metadata` lose that prefix."""
    out: dict[str, str] = {}
    for nested in (False, True):
        for key, value in front.values.items():
            if key.startswith("metadata.") == nested and key not in TEXT_KEYS:
                out.setdefault(key.removeprefix("metadata."), value.text)
    return out

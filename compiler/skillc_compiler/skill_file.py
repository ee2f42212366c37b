"""The file of a skill: which name it has, how its bytes are read, what the skill is called."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from pathlib import Path

from skillc_compiler.errors import SkillError
from skillc_compiler.frontmatter import Value
from skillc_compiler.hidden_text import visible

LIMIT = 256 * 1024
"""Most bytes of a SKILL.md."""

FILE_NAMES = ("SKILL.md", "skill.md")

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
NAME_LENGTH = 64


def read_bounded(path: Path, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file of at most `limit`; raises SkillError, never waits on a FIFO."""
    data = read_head(path, limit + 1)
    if len(data) > limit:
        raise SkillError(f"{_shown(path)}: is over {limit} bytes; move detail into references/")
    return data


def read_head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a regular file, or all it has; raises SkillError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SkillError(f"{_shown(path)}: cannot be opened: {reason}; check the path") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SkillError(f"{_shown(path)}: is not a regular file; put a SKILL.md there")
        data = os.read(handle, size)
        # One read gives a small file whole; the size that stat gives is never relied on.
        while data and len(data) < size and (more := os.read(handle, size - len(data))):
            data += more
    except OSError as error:
        reason = error.strerror
        raise SkillError(f"{_shown(path)}: cannot be read: {reason}; check the disk") from error
    finally:
        os.close(handle)
    return data


def choose_name(declared: Value | None, folder: str) -> tuple[str, str]:
    """The skill's name (1 to 64 of a-z, 0-9 and single hyphens: safe in a path), and a warning."""
    given = declared.text.strip() if declared else ""
    if declared is None or not given:
        name = _slug(folder)
        return name, f"no name (line 1): the folder's is used: {name}"
    if len(given) > NAME_LENGTH or not NAME.fullmatch(given):
        name = _slug(given, folder)
        return (
            name,
            f"name is not lower-case words with hyphens (line {declared.line}): read as {name}",
        )
    if given != folder:
        detail = f"{given} in {visible(folder)}"
        return given, f"name differs from the folder (line {declared.line}): {detail}"
    return given, ""


def _slug(*candidates: str) -> str:
    for text in candidates:
        plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode()
        slug = re.sub("[^a-z0-9]+", "-", plain.lower()).strip("-")[:NAME_LENGTH].strip("-")
        if slug:
            return slug
    # A name in another script has no spelling in a-z: it stays itself, under its hash.
    return "skill-" + hashlib.sha256(candidates[0].encode("utf-8", "replace")).hexdigest()[:8]


def _shown(path: Path) -> str:
    return visible(str(path), 300)

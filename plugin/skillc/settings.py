"""A project's settings: skillc.toml, or [tool.skillc] in pyproject.toml, over the defaults."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from skillc_compiler.errors import ProjectError

SETTINGS_FILE = "skillc.toml"
SOURCES = (".skills", ".agents/skills", ".opencode/skills", ".claude/skills")
MAX_RANK = 256

TEMPLATE = f"""\
# Settings of skillc; what is commented out is the default.

# base = "nano"       # the language model the skills are compiled for
# rank = 64           # of the adapters: higher keeps more of a long skill and costs more bytes
# sources = {list(SOURCES)}
# extra_sources = []  # folders searched after those
# user_skills = false # also search your own folders, such as ~/.agents/skills
# store = ""          # a folder or URL where adapters are shared with others
# store_mb = 0        # megabytes of adapters out of use that 'skillc prune' leaves
""".replace("'", '"')

_FOLDERS = {"type": "array", "items": {"type": "string", "minLength": 1}}

SCHEMA: Mapping[str, Mapping[str, Any]] = {
    "base": {
        "type": "string",
        "pattern": r"\S",
        "description": "The language model the skills are compiled for.",
        "must": 'be a name, such as base = "nano"',
    },
    "rank": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_RANK,
        "description": "Rank of the adapters: higher keeps more of a long skill, in more bytes.",
        "must": f"be a whole number from 1 to {MAX_RANK}",
    },
    "sources": {
        **_FOLDERS,
        "description": "Folders with skills, nearest first; replaces the default list.",
        "must": 'be folder names, such as [".skills"]',
    },
    "extra_sources": {
        **_FOLDERS,
        "description": "Folders with skills, searched after `sources`.",
        "must": 'be folder names, such as ["docs/skills"]',
    },
    "user_skills": {
        "type": "boolean",
        "description": "Whether to search the user's own folders too, such as ~/.agents/skills.",
        "must": "be true or false",
    },
    "store": {
        "type": "string",
        "description": "A folder or URL (fsspec) where adapters are shared; empty for none.",
        "must": 'be a folder or a URL, such as "s3://bucket/skills"',
    },
    "store_mb": {
        "type": "integer",
        "minimum": 0,
        "description": "Megabytes of adapters out of use that `skillc prune` leaves in the store.",
        "must": "be a whole number of megabytes, 0 or more",
    },
}
"""What each key may hold, as JSON schema; `must` ends the error for a value that does not fit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project may choose; every field has a default."""

    base: str = "nano"
    rank: int = 64
    sources: tuple[str, ...] = SOURCES
    extra_sources: tuple[str, ...] = ()
    user_skills: bool = False
    store: str = ""
    store_mb: int = 0


def read_settings(root: Path) -> Settings:
    """Settings of the project at `root`; ProjectError names the file and the key at fault."""
    path = root / SETTINGS_FILE
    if path.is_file():
        return check(load_toml(path), path.name)
    if has_tool_table(root):
        path = root / "pyproject.toml"
        return check(load_toml(path)["tool"]["skillc"], f"{path.name} [tool.skillc]")
    return Settings()


def has_tool_table(folder: Path) -> bool:
    """Whether pyproject.toml in `folder` has a [tool.skillc] table."""
    try:
        text = (folder / "pyproject.toml").read_text("utf-8", errors="replace")
    except OSError:
        return False
    # A look at the lines, not a parse: this runs on every folder on the way up.
    return any(line.strip().startswith("[tool.skillc]") for line in text.splitlines())


def load_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path.name}: not valid TOML: {error}") from error


def check(table: Mapping[str, Any], where: str) -> Settings:
    """`table` as Settings; ProjectError on an unknown key or a value of the wrong kind."""
    known = [field.name for field in fields(Settings)]
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise ProjectError(f"{where}: unknown key '{key}': {hint}")
        if not fits(value, SCHEMA[key]):
            raise ProjectError(f"{where}: {key} must {SCHEMA[key]['must']}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    return Settings(**values)


def fits(value: object, rule: Mapping[str, Any]) -> bool:
    """Whether `value` keeps a rule of SCHEMA."""
    kind = rule["type"]
    if kind == "array":
        return isinstance(value, list) and all(fits(item, rule["items"]) for item in value)
    if kind == "string":
        blank = "pattern" in rule and isinstance(value, str) and not value.strip()
        return isinstance(value, str) and len(value) >= rule.get("minLength", 0) and not blank
    if kind == "boolean":
        return isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and rule["minimum"] <= value <= rule.get("maximum", value)


def json_schema() -> dict[str, Any]:
    """The JSON schema of skillc.toml."""
    default = Settings()
    properties = {}
    for key, rule in SCHEMA.items():
        value = getattr(default, key)
        shown = {name: part for name, part in rule.items() if name != "must"}
        properties[key] = {**shown, "default": list(value) if isinstance(value, tuple) else value}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "skillc.toml",
        "description": "Settings of skillc; the same keys work under [tool.skillc].",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }

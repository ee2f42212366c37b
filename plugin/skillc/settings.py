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
# rank = 32           # of the adapters: higher keeps more of a long skill and costs more bytes
# sources = {list(SOURCES)}
""".replace("'", '"')


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project may choose; every field has a default."""

    base: str = "nano"
    rank: int = 32
    sources: tuple[str, ...] = SOURCES


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
    default = Settings()
    known = [field.name for field in fields(default)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise ProjectError(f"{where}: unknown key '{key}': {hint}")
    base = table.get("base", default.base)
    if not isinstance(base, str) or not base.strip():
        raise ProjectError(f'{where}: base must be a name, such as base = "nano"')
    rank = table.get("rank", default.rank)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise ProjectError(f"{where}: rank must be a whole number from 1 to {MAX_RANK}")
    sources = table.get("sources", list(default.sources))
    if not isinstance(sources, list) or not all(isinstance(s, str) and s for s in sources):
        raise ProjectError(f'{where}: sources must be folder names, such as [".skills"]')
    return Settings(base=base, rank=rank, sources=tuple(sources))

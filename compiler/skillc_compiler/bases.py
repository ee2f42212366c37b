"""Where bases and their compilers are found: embedded in the package, or in the user's home."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from skillc_compiler.errors import BaseModelError

DEFAULT_BASE = "nano"
BASE_FILE = "base.gguf"
COMPILER_FILES = ("compiler.safetensors", "compiler.json")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Base:
    """A base on disk: its GGUF, and the folder of the compiler bound to it, if there is one."""

    name: str
    gguf: Path
    compiler_dir: Path | None


def find_base(name: str = DEFAULT_BASE) -> Base:
    """The base called `name`: embedded first, then $SKILLC_HOME/bases/NAME/.

    Raises BaseModelError when there is none.
    """
    if not _NAME.fullmatch(name):
        raise BaseModelError(f"{name!r} is not the name of a base")
    for root in _roots():
        base = _open(root / name)
        if base is not None:
            return base
    known = ", ".join(base.name for base in list_bases()) or "none"
    raise BaseModelError(
        f"no base called {name!r} (found: {known}); put {BASE_FILE} in {_home() / 'bases' / name}"
    )


def list_bases() -> list[Base]:
    """All bases, sorted by name; an embedded one hides another of the same name."""
    found: dict[str, Base] = {}
    for root in _roots():
        for folder in _folders(root):
            base = _open(folder)
            if base is not None:
                found.setdefault(base.name, base)
    return [found[name] for name in sorted(found)]


def _open(folder: Path) -> Base | None:
    gguf = folder / BASE_FILE
    if not gguf.is_file():
        return None
    complete = all((folder / name).is_file() for name in COMPILER_FILES)
    return Base(folder.name, gguf, folder if complete else None)


def _folders(root: Path) -> Iterator[Path]:
    try:
        yield from (entry for entry in root.iterdir() if _NAME.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BaseModelError(f"{root}: cannot be read ({error.strerror})") from error


def _roots() -> tuple[Path, Path]:
    return Path(str(files("skillc_compiler"))) / "assets", _home() / "bases"


def _home() -> Path:
    own = os.environ.get("SKILLC_HOME")
    if own:
        return Path(own)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "skillc"

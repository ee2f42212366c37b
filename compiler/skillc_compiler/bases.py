"""Where bases and their compilers are found: embedded in the package, or in the user's home."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from skillc_compiler.errors import BaseModelError

DEFAULT_BASE = "nano"
BASE_FILE = "base.gguf"
RECORD_FILE = "base.json"
COMPILER_FILES = ("compiler.safetensors", "compiler.json")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Base:
    """A base on disk: its GGUF, and the folder of the compiler bound to it, if there is one.

    `hf` is the folder of the same model as Hugging Face keeps it, where `skillc base add` was given
    one, and `load` how it is to be loaded (`torch_base.load_hf`).
    """

    name: str
    gguf: Path
    compiler_dir: Path | None
    hf: Path | None = None
    load: Mapping[str, Any] = field(default_factory=dict)


def find_base(name: str = DEFAULT_BASE) -> Base:
    """The base called `name`: embedded first, then $SKILLC_HOME/bases/NAME/.

    Raises BaseModelError when there is none.
    """
    base_folder(name)
    for root in _roots():
        base = _open(root / name)
        if base is not None:
            return base
    known = ", ".join(base.name for base in list_bases()) or "none"
    raise BaseModelError(
        f"no base called {name!r} (found: {known}); put {BASE_FILE} in {base_folder(name)}"
        " or run 'skillc base add'"
    )


def list_bases() -> list[Base]:
    """All usable bases, sorted by name; an embedded one hides another of the same name."""
    found: dict[str, Base] = {}
    for root in _roots():
        for folder in _folders(root):
            with contextlib.suppress(BaseModelError):
                base = _open(folder)
                if base is not None:
                    found.setdefault(base.name, base)
    return [found[name] for name in sorted(found)]


def base_folder(name: str) -> Path:
    """Where the user's base `name` is or would be. Raises BaseModelError for no good name."""
    if not _NAME.fullmatch(name):
        raise BaseModelError(f"{name!r} is not the name of a base")
    return _home() / "bases" / name


def read_record(folder: Path) -> dict[str, Any]:
    """What `skillc base add` wrote of the base in `folder`, if it did. Raises BaseModelError."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path}: cannot be used: run 'skillc base add' again") from error
    return found


def _open(folder: Path) -> Base | None:
    gguf, record = folder / BASE_FILE, read_record(folder)
    if not gguf.is_file():
        if record:
            raise BaseModelError(
                f"base {folder.name!r}: its GGUF {gguf.resolve()} is gone: put it back, "
                "or run 'skillc base add' again"
            )
        return None
    complete = all((folder / name).is_file() for name in COMPILER_FILES)
    hf = record.get("hf") or {}
    return Base(
        folder.name,
        gguf,
        folder if complete else None,
        Path(hf["folder"]) if isinstance(hf.get("folder"), str) else None,
        record.get("load") or {},
    )


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

"""What OpenCode's configuration gets from skillc, and how it is taken back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillc import jsonc
from skillc_compiler.errors import ProjectError

NAMES = ("opencode.jsonc", "opencode.json")
PLUGIN = "skillc.js"
PLUGIN_FILES = (
    "skillc.js",
    "active.js",
    "config.js",
    "server.js",
    "slim.js",
    "slim.json",
    "package.json",  # says that these are modules
)
RECORD = "written.json"
LARGE = 16384  # tokens of context from which OpenCode's own prompt and tools leave room
STUB = '{"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}\n'


@dataclass(frozen=True, slots=True)
class Place:
    """Where one OpenCode configuration lives: its file, and the folder for the plugin's files."""

    config: Path
    plugin: Path

    @classmethod
    def of_project(cls, root: Path, state: Path) -> Place:
        return cls(existing(root), state / "opencode")

    @classmethod
    def of_user(cls) -> Place:
        return cls(existing(user_folder()), user_folder() / "skillc")

    @property
    def record(self) -> Path:
        return self.plugin / RECORD

    @property
    def reference(self) -> str:
        """The plugin as the configuration names it."""
        path = (self.plugin / PLUGIN).relative_to(self.config.parent)
        return f"./{path.as_posix()}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to write: a member at `path`, or with `item` one entry of the list there."""

    path: tuple[str, ...]
    value: Any
    item: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(slots=True)
class Record:
    """What was written: the text before (None: there was no file) and after, and the entries."""

    before: str | None = None
    after: str = ""
    entries: list[Entry] = field(default_factory=list)

    def wrote(self, entry: Entry, value: Any) -> bool:
        return any((old.path, old.value) == (entry.path, value) for old in self.entries)


@dataclass(frozen=True, slots=True)
class Merged:
    """A configuration with the entries in it, and the names of what the user has otherwise."""

    text: str
    kept: tuple[str, ...]
    entries: tuple[Entry, ...]


def user_folder() -> Path:
    """OpenCode's folder of the user's own configuration."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "opencode"


def existing(folder: Path) -> Path:
    """The configuration file of `folder`, opencode.json when there is none yet."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    return folder / NAMES[-1]


def entries(place: Place, base: str, context: int, url: str, *, fresh: bool) -> Iterator[Entry]:
    """What is wanted in the configuration; with `fresh` (nobody has one) also the defaults."""
    model = f"skillc/{base}"
    limit = {"context": context, "output": min(2048, context // 4)}
    if fresh:
        yield Entry(("$schema",), "https://opencode.ai/config.json")
        yield Entry(("model",), model)
        yield Entry(("small_model",), model)
        if context < LARGE:
            yield Entry(("default_agent",), "slim")
    yield Entry(
        ("provider", "skillc"),
        {
            "npm": "@ai-sdk/openai-compatible",
            "name": "skillc",
            "options": {"baseURL": url, "apiKey": "local"},
            "models": {base: {"tool_call": True, "temperature": True, "limit": limit}},
        },
    )
    yield Entry(
        ("agent", "slim"),
        {
            "mode": "primary",
            "description": "Small models: a short prompt, few tools, compiled skills.",
            "model": model,
            # The plugin gives it bash, edit and read under the user's own rules for these.
            "permission": {"*": "deny", "use_skill": "allow"},
        },
    )
    yield Entry(("plugin",), place.reference, item=True)


def merge(text: str, wanted: Sequence[Entry], record: Record) -> Merged:
    """`text` with what is `wanted`; only what is missing or was written before is written.

    Raises JsoncError.
    """
    kept, ours = [], []
    for entry in wanted:
        there = jsonc.get(text, entry.path)
        if entry.item:
            if isinstance(there, list) and entry.value in there:
                if record.wrote(entry, entry.value):
                    ours.append(entry)
                continue
            text = jsonc.append(text, entry.path, entry.value)
        elif there == entry.value:
            if record.wrote(entry, there):
                ours.append(entry)
            continue
        elif there is not None and not record.wrote(entry, there):
            kept.append(entry.name)
            continue
        else:
            text = jsonc.put(text, entry.path, entry.value)
        ours.append(entry)
    return Merged(text, tuple(kept), tuple(ours))


def without(text: str, record: Record) -> tuple[str | None, list[str]]:
    """`text` as it was before (None: no file), and the names of what has been changed since.

    Raises JsoncError.
    """
    if text == record.after:
        return record.before, []
    kept = []
    for entry in reversed(record.entries):
        if entry.item:
            text = jsonc.remove_item(text, entry.path, entry.value)
        elif jsonc.get(text, entry.path) == entry.value:
            text = jsonc.remove(text, entry.path)
        else:
            kept.append(entry.name)
            continue
        parent = entry.path if entry.item else entry.path[:-1]
        if parent and not jsonc.get(text, parent) and not _was_there(record.before, parent):
            text = jsonc.remove(text, parent)
    empty = record.before is None and jsonc.get(text, ()) == {} and text.strip() == "{}"
    return (None if empty else text), kept


def _was_there(before: str | None, path: Sequence[str]) -> bool:
    return before is not None and jsonc.get(before, path) is not None


def load_record(path: Path) -> Record:
    """The record at `path`, an empty one when there is none; ProjectError when it is damaged."""
    if not path.is_file():
        return Record()
    try:
        data = json.loads(path.read_text("utf-8"))
        found = [Entry(tuple(one["path"]), one["value"], one["item"]) for one in data["entries"]]
        return Record(data["before"], data["after"], found)
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{path}: is damaged: delete it, then run this again") from error


def dump_record(path: Path, record: Record) -> None:
    written = [
        {"path": list(one.path), "value": one.value, "item": one.item} for one in record.entries
    ]
    data = {"before": record.before, "after": record.after, "entries": written}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")


def plugin_source() -> Path:
    """The folder with the plugin's files: in the installed package, or in the repository."""
    here = Path(__file__).resolve().parent
    for folder in (here / "opencode_plugin", here.parent / "opencode"):
        if (folder / PLUGIN).is_file():
            return folder
    raise ProjectError("the OpenCode plugin is not part of this installation: install skillc again")

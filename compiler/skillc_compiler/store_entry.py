"""One entry of the store: a folder of files, and a manifest with the size and hash of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skillc_compiler.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Adapter,
    Manifest,
    load_peft,
    save_peft,
)
from skillc_compiler.durable import flush_file, flush_folder, store_error, write_flushed
from skillc_compiler.errors import AdapterError, StoreError

GGUF_FILE = "adapter.gguf"
MANIFEST_FILE = "manifest.json"
FORMAT = 1

_FILES = (GGUF_FILE, WEIGHTS_FILE, CONFIG_FILE)
ENTRY_FILES = (*_FILES, MANIFEST_FILE)
"""The files of an entry; the manifest is written last."""

_MANIFEST_LIMIT = 1 << 20


class DamageError(Exception):
    """An entry is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class _File:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter whose files had the sizes and hashes of its manifest when it was opened.

    `sha256` and `size` are those of `gguf_path`.
    """

    key: str
    folder: Path
    manifest: Manifest
    sha256: str
    size: int

    @property
    def gguf_path(self) -> Path:
        return self.folder / GGUF_FILE

    def gguf_bytes(self) -> bytes:
        """The GGUF, checked again: exactly these bytes are safe to load. Raises StoreError."""
        try:
            data = self.gguf_path.read_bytes()
        except OSError as error:
            raise store_error(self.gguf_path, "be read", error) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise StoreError(f"{self.gguf_path}: is damaged; run 'skillc build' again")
        return data

    def adapter(self) -> Adapter:
        """The factors, from the PEFT files. Raises AdapterError."""
        return load_peft(self.folder, self.manifest)


def write_entry(folder: Path, key: str, adapter: Adapter, gguf: bytes) -> StoredAdapter:
    """Write all files into `folder`, the manifest last, and flush them. Raises OSError."""
    save_peft(adapter, folder)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        flush_file(folder / name)
    write_flushed(folder / GGUF_FILE, gguf)
    files = {name: _measure(folder / name) for name in _FILES}
    record: dict[str, Any] = {
        "adapter": adapter.manifest.to_dict(),
        "files": {name: asdict(file) for name, file in files.items()},
        "format": FORMAT,
        "key": key,
    }
    record["sha256"] = _seal(record)
    text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    write_flushed(folder / MANIFEST_FILE, text.encode())
    flush_folder(folder)
    gguf_file = files[GGUF_FILE]
    return StoredAdapter(key, folder, adapter.manifest, gguf_file.sha256, gguf_file.size)


def copy_entry(folder: Path, key: str, files: Mapping[str, bytes]) -> StoredAdapter:
    """Write the files of another entry into `folder`. Raises OSError, or DamageError."""
    missing = [name for name in ENTRY_FILES if name not in files]
    if missing:
        raise DamageError(f"{missing[0]} is missing")
    for name in ENTRY_FILES:
        write_flushed(folder / name, files[name])
    flush_folder(folder)
    return open_entry(folder, key)


def open_entry(folder: Path, key: str) -> StoredAdapter:
    """Read the manifest and check every file against it. Raises OSError or DamageError."""
    record = _read_record(folder, key)
    try:
        manifest = Manifest.from_dict(record.get("adapter"))
    except AdapterError as error:
        raise DamageError(str(error)) from error
    measured = {name: _measure(folder / name) for name in _FILES}
    for name, file in measured.items():
        if asdict(file) != record["files"][name]:
            raise DamageError(f"{name} is not what was written")
    gguf = measured[GGUF_FILE]
    return StoredAdapter(key, folder, manifest, gguf.sha256, gguf.size)


def has_entry(folder: Path, key: str) -> bool:
    """Whether the manifest fits `key` and every file has its size; reads only the manifest."""
    try:
        files = _read_record(folder, key)["files"]
        return all((folder / name).stat().st_size == files[name]["size"] for name in _FILES)
    except (OSError, DamageError):
        return False


def _read_record(folder: Path, key: str) -> dict[str, Any]:
    """The checked outer part of manifest.json. Raises OSError or DamageError."""
    with (folder / MANIFEST_FILE).open("rb") as file:
        data = file.read(_MANIFEST_LIMIT + 1)
    try:
        record = json.loads(data) if len(data) <= _MANIFEST_LIMIT else None
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{MANIFEST_FILE} is not JSON") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DamageError(f"{MANIFEST_FILE} is of another version")
    if record.get("key") != key:
        raise DamageError(f"{MANIFEST_FILE} belongs to another entry")
    if record.pop("sha256", "") != _seal(record):
        raise DamageError(f"{MANIFEST_FILE} is not what was written")
    files = record.get("files")
    if not isinstance(files, dict) or any(
        not isinstance(files.get(name), dict) or set(files[name]) != {"size", "sha256"}
        for name in _FILES
    ):
        raise DamageError(f"{MANIFEST_FILE} does not list its files")
    return record


def _seal(record: dict[str, Any]) -> str:
    """The hash of a manifest's own content, so that a flipped bit in it shows too."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _measure(path: Path) -> _File:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        size = 0
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return _File(digest.hexdigest(), size)

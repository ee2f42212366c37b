"""SHA-256 of files, remembered so that a base of several GB is not read at every command."""

from __future__ import annotations

import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path

# Below this, hashing is quicker than it is worth remembering on disk.
REMEMBER_BYTES = 64 << 20
# A file changed this recently may change again without its time stamp showing it.
SETTLED_SECONDS = 2.0


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, kept by (real path, inode, size, mtime). Raises OSError."""
    real = path.resolve()
    status = real.stat()
    if abs(time.time() - status.st_mtime_ns / 1e9) < SETTLED_SECONDS:
        return _digest(str(real))
    return _by_identity(str(real), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _by_identity(path: str, inode: int, size: int, mtime_ns: int) -> str:
    if size < REMEMBER_BYTES:
        return _digest(path)
    name = hashlib.sha256(f"{path}\0{inode}\0{size}\0{mtime_ns}".encode()).hexdigest()
    note = _cache_home() / "sha256" / f"{name}.json"
    known = _recall(note)
    if known is None:
        known = _digest(path)
        _remember(note, known)
    return known


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with Path(path).open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def _cache_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "skillc"


def _recall(note: Path) -> str | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if isinstance(known, str) and len(known) == 64 else None


def _remember(note: Path, digest: str) -> None:
    """Best effort: without a writable cache the next command hashes again."""
    temporary = note.with_suffix(f".{os.getpid()}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
        temporary.replace(note)
    except OSError:
        return

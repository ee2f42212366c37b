"""The store: a folder of compiled adapters, each under the key of what it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from skillc_compiler.adapter import Adapter
from skillc_compiler.durable import flush_folder, store_error
from skillc_compiler.errors import StoreError
from skillc_compiler.file_lock import hold
from skillc_compiler.store_entry import (
    FORMAT,
    MANIFEST_FILE,
    DamageError,
    StoredAdapter,
    copy_entry,
    has_entry,
    open_entry,
    write_entry,
)

__all__ = ["ORPHAN_SECONDS", "Store", "StoredAdapter", "build_key", "key_maker"]

ORPHAN_SECONDS = 3600.0
"""Age at which a temporary folder belongs to no running process any more."""

_KEY = re.compile(r"[0-9a-f]{8,128}")
_TEMPORARY = ".tmp-"
_LOCKED = ".lock-"


def build_key(
    skill_hash: str, base_hash: str, compiler_hash: str, options: Mapping[str, object]
) -> str:
    """The sha256 hex of all that decides an adapter's bytes; `options` holds plain JSON values."""
    return key_maker(base_hash, compiler_hash, options)(skill_hash)


def key_maker(
    base_hash: str, compiler_hash: str, options: Mapping[str, object]
) -> Callable[[str], str]:
    """`build_key` of many skills with the other three parts the same."""
    parts = {
        "base": base_hash,
        "compiler": compiler_hash,
        "format": FORMAT,
        "options": dict(options),
        "skill": "",
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # The skill comes last: all before it is hashed once.
    begun = hashlib.sha256(text.removesuffix('""}').encode())

    def key(skill_hash: str) -> str:
        digest = begun.copy()
        digest.update(f"{json.dumps(skill_hash)}}}".encode())
        return digest.hexdigest()

    return key


class Store:
    """The folder `root`, made when something is published; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the entry of `key` is or would be; StoreError when `key` is no hex hash."""
        if not _KEY.fullmatch(key):
            raise StoreError(f"{key!r} is not a build key; run 'skillc build' again")
        return self.root / key

    def keys(self) -> list[str]:
        """The keys of all entries, sorted, without a look inside."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(entry.name for entry in entries if _KEY.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise store_error(self.root, "be listed", error) from error

    def has(self, key: str) -> bool:
        """Whether `key` has an entry whose files have the right sizes; reads only its manifest."""
        return has_entry(self.folder(key), key)

    def open(self, key: str) -> StoredAdapter:
        """The entry of `key`, every size and hash checked.

        Raises StoreError when there is none or it is damaged; a damaged entry is taken out of the
        store, so that the next build makes it again.
        """
        folder = self.folder(key)
        try:
            return open_entry(folder, key)
        except FileNotFoundError as error:
            if not folder.is_dir():
                raise StoreError(f"{folder}: not in the store; run 'skillc build'") from error
            problem = f"{Path(error.filename or MANIFEST_FILE).name} is missing"
        except DamageError as damage:
            problem = str(damage)
        except OSError as error:
            raise store_error(folder, "be read", error) from error
        self._discard(folder)
        raise StoreError(f"{folder}: is damaged ({problem}); run 'skillc build' again")

    def publish(self, key: str, adapter: Adapter, gguf: bytes) -> StoredAdapter:
        """Write an adapter's files and move them to `key` by one rename.

        Whoever publishes a key first wins; others get that entry. Raises StoreError, and then the
        store is as it was before.
        """
        return self._publish(key, lambda beside: write_entry(beside, key, adapter, gguf))

    def adopt(self, key: str, files: Mapping[str, bytes]) -> StoredAdapter:
        """Take over the files of another store's entry, as `publish` does.

        Raises StoreError, also for files that are not what their manifest says.
        """
        try:
            return self._publish(key, lambda beside: copy_entry(beside, key, files))
        except DamageError as damage:
            raise StoreError(f"{key}: is damaged ({damage}); delete it where it is from") from None

    def building(self, key: str, *, wait: bool) -> AbstractContextManager[bool]:
        """Be the only builder of `key` for a block; False inside when another is and not `wait`."""
        self.folder(key)
        return hold(self.root / f"{_LOCKED}{key}", wait=wait)

    def _publish(self, key: str, write: Callable[[Path], StoredAdapter]) -> StoredAdapter:
        folder = self.folder(key)
        beside = self._beside(key)
        try:
            beside.mkdir(parents=True)
            stored = write(beside)
            if folder.exists():
                try:
                    return open_entry(folder, key)
                except (OSError, DamageError):
                    self._discard(folder)
            if not _move(beside, folder):
                return self.open(key)  # Another publisher was between the two lines above.
            flush_folder(self.root)
        except OSError as error:
            raise store_error(folder, "be published", error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return replace(stored, folder=folder)

    def remove(self, key: str) -> int:
        """Take the entry of `key` out of the store; returns the bytes freed, 0 when it had none."""
        folder = self.folder(key)
        freed = self.size(key)
        self._discard(folder)
        if folder.exists():
            raise StoreError(f"{folder}: cannot be removed; check who owns the folder")
        return freed

    def size(self, key: str) -> int:
        """Bytes of the entry of `key`; 0 when there is none."""
        return _folder_size(self.folder(key))

    def total_size(self) -> int:
        """Bytes of all entries."""
        return sum(map(self.size, self.keys()))

    def sweep(self, older_than: float = ORPHAN_SECONDS) -> int:
        """Delete what killed processes left over `older_than` seconds ago; returns bytes freed."""
        freed = 0
        orphans = [*self.root.glob(f"{_TEMPORARY}*"), *self.root.glob(f"{_LOCKED}*")]
        for orphan in sorted(orphans):
            try:
                # The distance, not the age: a clock that was set back must not keep it for ever.
                if abs(time.time() - orphan.stat().st_mtime) <= older_than:
                    continue
            except FileNotFoundError:
                continue
            freed += _folder_size(orphan)
            _delete(orphan)
        return freed

    def _beside(self, key: str) -> Path:
        return self.root / f"{_TEMPORARY}{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"

    def _discard(self, folder: Path) -> None:
        """Move an entry out of sight in one step, then delete it; best effort."""
        beside = self._beside(folder.name)
        try:
            folder.rename(beside)
        except OSError:
            return
        _delete(beside)


def _move(beside: Path, folder: Path) -> bool:
    """Rename unless the place is taken; a folder is only ever moved onto nothing."""
    try:
        beside.rename(folder)
    except OSError:
        if folder.exists():
            return False
        raise
    return True


def _delete(path: Path) -> None:
    """Delete a folder or file that nobody looks at any more; what cannot be is swept later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _folder_size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except OSError:
        return 0

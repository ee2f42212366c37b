"""A store that several people use: a folder, or a URL that fsspec can open; entries by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from skillc_compiler.durable import store_error
from skillc_compiler.errors import StoreError
from skillc_compiler.store import Store
from skillc_compiler.store_entry import ENTRY_FILES, MANIFEST_FILE

ENTRY_LIMIT = 1 << 30
"""Most bytes of an entry that is fetched."""


class Share(Protocol):
    """Entries by build key; what is read is checked by whoever adopts it."""

    def read(self, key: str) -> Mapping[str, bytes] | None:
        """The files of an entry, or None when there is none. Raises StoreError."""
        ...

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Add an entry unless it is there. Raises StoreError."""
        ...


def open_share(where: str, root: Path) -> Share:
    """The share at a path (from `root`) or a URL. Raises StoreError, as when fsspec is missing."""
    if "://" in where:
        return UrlShare(where)
    return FolderShare(root / Path(where).expanduser())


def read_entry(store: Store, key: str) -> dict[str, bytes] | None:
    """The files of an entry of a store, None when it has none or one too large."""
    folder = store.folder(key)
    if not store.has(key) or store.size(key) > ENTRY_LIMIT:
        return None
    try:
        return {name: (folder / name).read_bytes() for name in ENTRY_FILES}
    except OSError as error:
        raise store_error(folder, "be read", error) from error


class FolderShare:
    """A folder that others see too, such as one on a file server."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)

    def read(self, key: str) -> Mapping[str, bytes] | None:
        """See `Share`."""
        return read_entry(self._store, key)

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """See `Share`."""
        if not self._store.has(key):
            self._store.adopt(key, files)


class UrlShare:
    """Any file system of fsspec, such as s3://bucket/folder."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise StoreError(
                f"{url}: needs fsspec: pip install 'skillc[share]', or use a folder"
            ) from error
        self._url = url
        try:
            self._files: Any
            self._files, self._root = url_to_fs(url)
        except Exception as error:  # Each backend has errors of its own, also for what is missing.
            raise self._error("be opened", error) from error

    def read(self, key: str) -> Mapping[str, bytes] | None:
        """See `Share`."""
        paths = {name: f"{self._root}/{key}/{name}" for name in ENTRY_FILES}
        try:
            if sum(int(self._files.size(path) or 0) for path in paths.values()) > ENTRY_LIMIT:
                return None
            return {name: bytes(self._files.cat_file(path)) for name, path in paths.items()}
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error("be read", error) from error

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """See `Share`; the manifest, without which there is no entry, is written last."""
        folder = f"{self._root}/{key}"
        try:
            if self._files.exists(f"{folder}/{MANIFEST_FILE}"):
                return
            self._files.makedirs(folder, exist_ok=True)
            for name in ENTRY_FILES:
                self._files.pipe_file(f"{folder}/{name}", files[name])
        except Exception as error:
            raise self._error("be written", error) from error

    def _error(self, doing: str, error: Exception) -> StoreError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return StoreError(f"{self._url}: cannot {doing}: {reason}; check the address and your key")

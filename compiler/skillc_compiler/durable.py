"""Files that survive a crash: written beside their place, flushed, moved there by one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from skillc_compiler.errors import StoreError

_ADVICE = {
    errno.ENOSPC: "no space left on the disk; free some, then run this again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run this again",
    errno.EACCES: "no permission; check who owns the folder",
    errno.EPERM: "no permission; check who owns the folder",
    errno.EROFS: "the file system is read-only; use a folder that can be written",
    errno.EEXIST: "a file is where a folder should be; move it away",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
}


def store_error(path: Path, doing: str, error: OSError) -> StoreError:
    """The one line that says what could not be done to `path`, and what to do about it."""
    known = _ADVICE.get(error.errno or 0)
    return StoreError(f"{path}: cannot {doing}: {known or f'{error.strerror}; check the path'}")


def write_durable(path: Path, data: bytes) -> None:
    """Replace the file at `path` in one step, so that a reader sees old bytes or new, never both.

    Raises StoreError; the old file is then untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_flushed(beside, data)
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise store_error(path, "be written", error) from error


def write_flushed(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Wait until the disk has a file that something else wrote. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until the disk has a folder's entries. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

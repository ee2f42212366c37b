"""Locks between processes: a file that one of them holds, free as soon as its holder is dead."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skillc_compiler.durable import store_error


@contextmanager
def hold(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` for the block; yields False when another holds it and not `wait`.

    The kernel frees it when its holder dies, however that happens, so nothing is ever left locked.
    Threads of one process exclude each other too. Raises StoreError when it cannot be made.
    """
    try:
        handle = _acquire(path, wait)
    except OSError as error:
        raise store_error(path, "be locked", error) from error
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        # Deleted while held: whoever waits for this file sees that it is gone and makes a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path, wait: bool) -> int | None:
    """A handle that holds the lock, or None when it is taken. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(handle, path):
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) and not wait:
                return None
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

"""Hints that files changed: events of the system where it has them, else the time that passes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from skillc.project import LOCK_FILE, STATE_FOLDER

# Reading a file is no change; watchdog reports it all the same.
CHANGES = {"created", "deleted", "modified", "moved", "closed", "attrib"}
# Each folder here takes an inotify instance, of which a user has 128 by default.
MOST_FOLDERS = 48
RESTARTS = 3
LIMITS = {
    errno.ENOSPC: "sudo sysctl fs.inotify.max_user_watches=1048576",
    errno.EMFILE: "sudo sysctl fs.inotify.max_user_instances=1024",
    errno.ENFILE: "sudo sysctl fs.inotify.max_user_instances=1024",
}


class Hints:
    """Says when to look. `lines` collects what a user should know, `polling` is on without events.

    What it misses (the queue of events is bounded, file servers send none) a scan has to find.
    """

    def __init__(self, *, polling: bool = False) -> None:
        self.polling = polling
        self.lines: list[str] = []
        self._changed = threading.Event()
        self._watches: dict[tuple[str, bool, int], object] = {}
        self._deaths = 0
        self._handler = FileSystemEventHandler()
        self._handler.on_any_event = self._heard
        self._observer: Any = None if polling else self._start()

    def _heard(self, event: FileSystemEvent) -> None:
        """What watchdog calls, in a thread of its own."""
        # A folder's entries have events of their own.
        if event.is_directory and event.event_type == "modified":
            return
        if event.event_type in CHANGES and not is_ours(str(event.src_path)):
            self._changed.set()

    def hint(self) -> None:
        """Look now."""
        self._changed.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a hint, at most `seconds`; the hint is used up."""
        came = self._changed.wait(seconds)
        self._changed.clear()
        return came

    def watch(self, folders: Mapping[Path, bool]) -> None:
        """Watch these folders and no others; the value says whether with all that is below them."""
        if self._observer is None:
            return
        # With its inode: a folder that was deleted and made again is another one.
        wanted = {
            (str(path), below, inode_of(path))
            for path, below in sorted(folders.items())[:MOST_FOLDERS]
        }
        try:
            for gone in self._watches.keys() - wanted:
                self._observer.unschedule(self._watches.pop(gone))
            if not self._alive():
                self._revive()
            for one in sorted(wanted - self._watches.keys()):
                self._add(*one)
        except OSError as error:
            self._give_up(error)

    def stop(self) -> None:
        """End the threads that listen."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _add(self, path: str, below: bool, inode: int) -> None:
        if self._observer is None:
            return
        try:
            watch = self._observer.schedule(self._handler, path, recursive=below)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return  # Gone since it was listed, or not ours to watch: the scan will tell.
        self._watches[path, below, inode] = watch

    def _start(self) -> Any:
        observer = Observer()
        observer.daemon = True
        try:
            observer.start()
        except (OSError, RuntimeError) as error:
            self._give_up(error)
            return None
        return observer

    def _alive(self) -> bool:
        observer = self._observer
        threads = (observer, *(observer.emitters if observer is not None else ()))
        return all(thread is not None and thread.is_alive() for thread in threads)

    def _revive(self) -> None:
        """Start anew after a thread of watchdog died; poll when that happens again and again."""
        self._deaths += 1
        if self._deaths > RESTARTS:
            self._give_up(RuntimeError("its thread keeps dying"))
            return
        if self._observer is not None:
            self._observer.stop()
        self._watches.clear()
        self._observer = self._start()
        self._changed.set()

    def _give_up(self, error: Exception) -> None:
        """Poll from now on, and say so in one line."""
        number = error.errno if isinstance(error, OSError) else None
        remedy = LIMITS.get(number or 0)
        advice = f"raise the limit with '{remedy}'" if remedy else "changes take a little longer"
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        self.lines.append(f"cannot watch for changes ({reason}): polling instead; {advice}")
        self.polling = True
        if self._observer is not None:
            self._observer.stop()
            self._observer = None


def inode_of(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def is_ours(path: str) -> bool:
    """Whether a change is one that a build makes itself."""
    name = Path(path).name
    return name == STATE_FOLDER or name.startswith((LOCK_FILE, f".{LOCK_FILE}."))

"""Deletes adapters that the lock does not name, the oldest first, down to a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skillc.project import Project
from skillc_compiler.file_lock import hold
from skillc_compiler.store import Store

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go: keys with their bytes, bytes of orphans, and what is left."""

    keys: dict[str, int]
    orphans: int
    kept: int
    kept_bytes: int
    dry_run: bool

    @property
    def freed(self) -> int:
        return sum(self.keys.values()) + self.orphans

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "keys": dict(self.keys),
            "freed_bytes": self.freed,
            "kept": self.kept,
            "kept_bytes": self.kept_bytes,
            "dry_run": self.dry_run,
        }

    def line(self) -> str:
        """The result for people."""
        would = "would free" if self.dry_run else "freed"
        return (
            f"{would} {self.freed / MEGABYTE:.1f} MB ({len(self.keys)} adapters); "
            f"{self.kept} left, {self.kept_bytes / MEGABYTE:.1f} MB"
        )


def prune(project: Project, budget: int, *, dry_run: bool = False) -> Pruned:
    """Delete adapters out of use until those that are left of them take at most `budget` bytes.

    Nothing that the lock names is deleted. A build that runs meanwhile builds again what it lost.
    Raises StoreError.
    """
    if not project.store_path.is_dir():
        return Pruned({}, 0, 0, 0, dry_run)
    if dry_run:
        return _prune(project, budget, dry_run=True)
    with hold(project.state / "lock.lock"):
        return _prune(project, budget, dry_run=False)


def _prune(project: Project, budget: int, *, dry_run: bool) -> Pruned:
    store, lock = project.store(), project.lock()
    used = {entry.key for entry in lock.skills.values()} if lock is not None else set()
    keys = store.keys()
    sizes = {key: store.size(key) for key in keys}
    spare = sorted((key for key in sizes if key not in used), key=lambda key: _age(store, key))
    left = sum(sizes[key] for key in spare)
    gone: dict[str, int] = {}
    for key in spare:
        if left <= budget:
            break
        left -= sizes[key]
        gone[key] = sizes[key]
        if not dry_run:
            store.remove(key)
    orphans = 0 if dry_run else store.sweep()
    kept = [size for key, size in sizes.items() if key not in gone]
    return Pruned(gone, orphans, len(kept), sum(kept), dry_run)


def _age(store: Store, key: str) -> tuple[int, str]:
    """What sorts the oldest first."""
    try:
        return store.folder(key).stat().st_mtime_ns, key
    except OSError:
        return 0, key

"""Adapters of the store that clients load while the server runs, by vLLM's endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from skillc_compiler.errors import StoreError
from skillc_compiler.lock import LockedSkill
from skillc_compiler.store import Store
from skillc_runtime.api_error import ApiError, invalid
from skillc_runtime.names import BASE_ALIAS

_NAME = re.compile(r"[^\s@:+,/\\\x00-\x1f]{1,128}")


class RuntimeAdapters:
    """What was loaded beside the lock; the caller takes turns."""

    def __init__(self, store: Store, base_name: str) -> None:
        self.skills: dict[str, LockedSkill] = {}
        self._store = store
        self._base_name = base_name

    def load(
        self, name: str, path: str, locked: Mapping[str, LockedSkill], *, in_place: bool
    ) -> None:
        """Serve the store's entry at `path` as `name`; ApiError 400 when that cannot be.

        `locked` are the lock's skills, whose names are taken; `in_place` replaces a loaded one.
        """
        if not _NAME.fullmatch(name) or name in (self._base_name, BASE_ALIAS):
            raise invalid("lora_name", "must be a name without spaces and @ : + , / that is free")
        if name in locked:
            raise invalid("lora_name", f"{name!r} is a skill of skillc.lock")
        if name in self.skills and not in_place:
            raise invalid("lora_name", f"the adapter {name!r} is loaded already")
        try:
            stored = self._store.open(self._key(path))
        except StoreError as error:
            raise invalid("lora_path", f"the entry cannot be opened: {error}") from error
        self.skills[name] = LockedSkill("", stored.manifest.skill_hash, stored.key)

    def unload(self, name: str, locked: Mapping[str, LockedSkill]) -> None:
        """Serve `name` no more; ApiError 404 when it was not loaded, 400 for a lock's skill."""
        if name in locked:
            raise invalid("lora_name", f"{name!r} is a skill of skillc.lock; delete it there")
        if self.skills.pop(name, None) is None:
            line = f"the adapter {name[:100]!r} is not loaded"
            raise ApiError(404, line, code="model_not_found", param="lora_name")

    def _key(self, path: str) -> str:
        """The key of the entry that `path` names: inside the store once links are followed."""
        root = self._store.root.resolve()
        for start in (root, root.parent.parent):  # a key, or a path from the project's root
            try:
                found = Path(start, path).resolve()
            except (OSError, ValueError, RuntimeError):
                continue
            if found.parent == root and found.name in set(self._store.keys()):
                return found.name
        # The same answer for all other paths: nobody learns which files there are.
        raise invalid("lora_path", "must name an entry of this project's store")

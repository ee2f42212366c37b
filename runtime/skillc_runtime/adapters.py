"""Which adapters are in memory: loaded from checked bytes, the least recently used freed first."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.errors import AdapterError
from skillc_runtime.llama import LoadedAdapter, Model

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter to attach: the file it is read from, the hash its bytes must have, its scale."""

    path: Path
    sha256: str
    scale: float = 1.0


SetKey = tuple[tuple[str, float], ...]


def set_key(refs: Iterable[AdapterRef]) -> SetKey:
    """What tells one skill set's KV cache from another's: ordered (adapter sha256, scale)."""
    return tuple((ref.sha256, ref.scale) for ref in refs)


class AdapterCache:
    """The adapters loaded on one model.  Merely loaded ones slow every switch, so keep few."""

    def __init__(self, model: Model, base: BaseInfo, capacity: int) -> None:
        self._model = model
        self._base = base
        self._capacity = capacity
        self._loaded: OrderedDict[str, LoadedAdapter] = OrderedDict()
        self._quarantined: set[frozenset[str]] = set()
        self.loads = 0

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, refs: Sequence[AdapterRef]) -> list[tuple[LoadedAdapter, float]]:
        """The adapters of `refs`, loading what is missing; AdapterError names the refused one."""
        self._refuse_quarantined(refs)
        scales: dict[str, float] = {}
        for ref in refs:
            if ref.sha256 not in self._loaded:
                self._loaded[ref.sha256] = self._load(ref)
            self._loaded.move_to_end(ref.sha256)
            # llama.cpp counts an adapter named twice once; two deltas of it add up.
            scales[ref.sha256] = scales.get(ref.sha256, 0.0) + ref.scale
        return [(self._loaded[sha256], scale) for sha256, scale in scales.items()]

    def trim(self, keep: Sequence[AdapterRef] = ()) -> None:
        """Free the oldest above capacity; call once only `keep` is attached to a context."""
        kept = {ref.sha256 for ref in keep}
        for sha256 in [sha256 for sha256 in self._loaded if sha256 not in kept]:
            if len(self._loaded) <= self._capacity:
                return
            self._loaded.pop(sha256).free()

    def quarantine(self, refs: Sequence[AdapterRef]) -> None:
        """Refuse this combination from now on: its logits were not finite."""
        if refs:
            self._quarantined.add(frozenset(ref.sha256 for ref in refs))

    def close(self) -> None:
        """Free all; no context may hold one any more."""
        while self._loaded:
            self._loaded.popitem()[1].free()

    def _refuse_quarantined(self, refs: Sequence[AdapterRef]) -> None:
        wanted = {ref.sha256 for ref in refs}
        for bad in self._quarantined:
            if bad <= wanted:
                names = " + ".join(sorted(sha256[:12] for sha256 in bad))
                raise AdapterError(
                    f"adapter {names} is set aside: it made the base compute NaN or infinity; "
                    "rebuild the skill"
                )

    def _load(self, ref: AdapterRef) -> LoadedAdapter:
        from skillc_compiler.gguf_check import validate_adapter

        data = read_adapter(ref)
        try:
            validate_adapter(data, self._base)
            adapter = LoadedAdapter(self._model, data)
        except AdapterError as error:
            raise AdapterError(f"{ref.path}: {error}") from error
        self.loads += 1
        return adapter


def read_adapter(ref: AdapterRef) -> bytes:
    """The bytes of an adapter file; AdapterError unless they have the hash that was promised."""
    try:
        # A FIFO must not block; what is looked at is what is then read.
        number = os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise AdapterError(f"{ref.path}: not a regular file; run skillc build")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AdapterError(f"{ref.path}: {error.strerror}; run skillc build") from error
    if len(data) > MAX_BYTES or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise AdapterError(f"{ref.path}: not the adapter that was built; run skillc build")
    return data

"""Which adapters are in memory: loaded from checked bytes, the least recently used freed first."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.errors import AdapterError
from skillc_runtime.llama import LoadedAdapter, Model
from skillc_runtime.stack import Layer, stack

if TYPE_CHECKING:
    from skillc_compiler.gguf_base import BaseInfo

MAX_BYTES = 2 << 30


class BadAdapterError(AdapterError):
    """An adapter is refused for what it is; reading it again would not help."""


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


def not_finite(key: Iterable[tuple[str, float]]) -> BadAdapterError:
    """What is said of adapters, as in a set key, with which the base computes NaN."""
    names = " + ".join(f"{sha256[:12]}@{scale:g}" for sha256, scale in key)
    return BadAdapterError(f"with adapter {names} the base computes NaN or infinity; set aside")


class AdapterCache:
    """The adapters loaded on one model, sets of several stacked into one.

    Merely loaded ones slow every switch, so keep few.
    """

    def __init__(self, model: Model, base: BaseInfo, capacity: int) -> None:
        self._model = model
        self._base = base
        self._capacity = capacity
        self._loaded: OrderedDict[SetKey, LoadedAdapter] = OrderedDict()
        self._quarantined: set[frozenset[tuple[str, float]]] = set()
        self.loads = 0

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, refs: Sequence[AdapterRef]) -> tuple[LoadedAdapter, float] | None:
        """What to attach for a set, loaded now if it is not yet; None for the bare base.

        Raises AdapterError for bytes that are not what was promised, malformed, or set aside.
        """
        self._refuse_quarantined(refs)
        acting = [ref for ref in refs if ref.scale]
        if not acting:
            return None
        alone = len(acting) == 1
        # One adapter is loaded once for all its scales; in a stack they are part of the weights.
        key = ((acting[0].sha256, 1.0),) if alone else set_key(acting)
        if key not in self._loaded:
            self._loaded[key] = self._load(acting)
            self.loads += 1
        self._loaded.move_to_end(key)
        return self._loaded[key], acting[0].scale if alone else 1.0

    def trim(self, keep: Set[LoadedAdapter]) -> None:
        """Free the oldest above capacity, but none of `keep`: what is attached or soon will be."""
        for key in [key for key, loaded in self._loaded.items() if loaded not in keep]:
            if len(self._loaded) <= self._capacity:
                return
            self._loaded.pop(key).free()

    def quarantine(self, refs: Sequence[AdapterRef]) -> None:
        """Refuse this combination, at these scales, from now on: its logits were not finite."""
        if refs:
            self._quarantined.add(frozenset(set_key(refs)))

    def close(self) -> None:
        """Free all; no context may hold one any more."""
        while self._loaded:
            self._loaded.popitem()[1].free()

    def _refuse_quarantined(self, refs: Sequence[AdapterRef]) -> None:
        wanted = set(set_key(refs))
        for bad in self._quarantined:
            if bad <= wanted:
                raise not_finite(sorted(bad))

    def _load(self, refs: Sequence[AdapterRef]) -> LoadedAdapter:
        layers = [self._read(ref) for ref in refs]
        data = layers[0].data if len(layers) == 1 else stack(layers, self._base.arch)
        return LoadedAdapter(self._model, data)

    def _read(self, ref: AdapterRef) -> Layer:
        from skillc_compiler.gguf_check import validate_adapter

        data = read_adapter(ref)
        try:
            return Layer(data, validate_adapter(data, self._base), ref.scale)
        except AdapterError as error:
            raise BadAdapterError(f"{ref.path}: {error}") from error


def read_adapter(ref: AdapterRef) -> bytes:
    """The bytes of an adapter file; AdapterError unless they have the hash that was promised."""
    try:
        data = _read_regular(ref.path)
    except OSError as error:
        raise AdapterError(f"{ref.path}: {error.strerror}; run skillc build") from error
    if data is None:
        raise AdapterError(f"{ref.path}: not a regular file; run skillc build")
    if len(data) > MAX_BYTES or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise AdapterError(f"{ref.path}: not the adapter that was built; run skillc build")
    return data


def _read_regular(path: Path) -> bytes | None:
    # A FIFO must not block, and what is looked at must be what is then read.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return None
        with os.fdopen(number, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(number)

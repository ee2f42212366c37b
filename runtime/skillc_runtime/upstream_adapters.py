"""Skill sets as adapters of an upstream server: one PEFT folder a set, loaded by its content.

vLLM attaches one adapter to a request, so the skills of a set are joined into one. Its name is
made of what is in it: the same name never stands for two contents, whose cached prefixes a server
might mix up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.adapter import Adapter, LoraPair, load_peft, save_peft
from skillc_compiler.errors import AdapterError, SkillcError
from skillc_compiler.store import Store
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.registry import unusable

if TYPE_CHECKING:
    from skillc_compiler.adapter import Matrix
    from skillc_runtime.upstream_client import UpstreamClient

PREFIX = "skillc-"


def set_name(refs: Sequence[AdapterRef]) -> str:
    """What the upstream calls a set: a hash of its adapters and scales, in order."""
    told = json.dumps([[ref.sha256, ref.scale] for ref in refs])
    return PREFIX + hashlib.sha256(told.encode()).hexdigest()[:24]


def joined(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """One adapter that changes every weight by the sum of what the parts do at their scales.

    Ranks are put one after the other; every module gets the same rank, as servers with fixed slots
    need it, and alpha equals it.
    """
    import numpy as np

    modules = sorted({module for adapter, _ in parts for module in adapter.pairs})
    found: dict[str, tuple[list[Matrix], list[Matrix]]] = {module: ([], []) for module in modules}
    for adapter, scale in parts:
        for module, pair in adapter.pairs.items():
            found[module][0].append(pair.a)
            found[module][1].append(pair.b * np.float32(scale * adapter.alpha / pair.rank))
    stacked = {
        module: (np.concatenate(a, axis=0), np.concatenate(b, axis=1))
        for module, (a, b) in found.items()
    }
    rank = max(len(a) for a, _ in stacked.values())
    pairs = {
        module: LoraPair(
            np.pad(a, ((0, rank - len(a)), (0, 0))), np.pad(b, ((0, 0), (0, rank - b.shape[1])))
        )
        for module, (a, b) in stacked.items()
    }
    manifest = replace(
        parts[0][0].manifest, rank=rank, alpha=float(rank), targets=tuple(pairs), probe={}
    )
    return Adapter(pairs, float(rank), manifest)


class UpstreamAdapters:
    """Which sets the upstream has loaded; at most `most` of them, the oldest go first.

    `folder` holds their PEFT folders and must be the same path for the upstream.
    """

    def __init__(self, client: UpstreamClient, folder: Path, most: int = 16) -> None:
        self._client, self._folder, self._most = client, folder, most
        self._loaded: OrderedDict[str, Path] = OrderedDict()
        self._turn = asyncio.Lock()

    async def name_of(self, refs: Sequence[AdapterRef]) -> str:
        """The upstream's model for a set, loaded there if it was not. Raises ApiError."""
        name = set_name(refs)
        async with self._turn:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return name
            path = await asyncio.to_thread(self._written, name, refs)
            await self._client.load(name, path)
            self._loaded[name] = path
            while len(self._loaded) > self._most:
                await self._drop(next(iter(self._loaded)))
        return name

    async def reload(self, refs: Sequence[AdapterRef]) -> str:
        """As `name_of` for a set that the upstream has lost, as it does when it is restarted."""
        async with self._turn:
            self._loaded.pop(set_name(refs), None)
        return await self.name_of(refs)

    async def close(self) -> None:
        """Unload all that was loaded here, and delete its folders."""
        async with self._turn:
            for name in list(self._loaded):
                await self._drop(name)

    async def _drop(self, name: str) -> None:
        path = self._loaded.pop(name)
        await self._client.unload(name)
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def _written(self, name: str, refs: Sequence[AdapterRef]) -> Path:
        """The PEFT folder of a set; a reader sees it whole or not at all."""
        path = self._folder / name
        if path.is_dir():
            return path
        beside = self._folder / f".{name}.{os.getpid()}"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            save_peft(joined([(stored_adapter(ref), ref.scale) for ref in refs]), beside)
            beside.replace(path)
        except SkillcError as error:
            raise unusable(str(error)) from error
        except OSError as error:
            raise unusable(f"{path}: cannot be written ({error.strerror})") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return path


def stored_adapter(ref: AdapterRef) -> Adapter:
    """The factors beside an adapter's GGUF in the store, whose hashes are checked."""
    folder = ref.path.parent
    stored = Store(folder.parent).open(folder.name)
    if stored.sha256 != ref.sha256:
        raise AdapterError(f"{folder}: has changed; run skillc build")
    return load_peft(stored.folder, stored.manifest)

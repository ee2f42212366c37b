"""What the benchmarks of the engine share: nano or a 4B-shaped base, and adapters of any values."""

from __future__ import annotations

import hashlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine

_RANK = 32


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def spread(seconds: Sequence[float]) -> str:
    """The median and the quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle * 1e3:.2f} ms ({low * 1e3:.2f} to {high * 1e3:.2f})"


@contextmanager
def nano(**options: Any) -> Iterator[Engine]:
    """An engine of the base that ships with skillc, with one thread."""
    engine = Engine(find_base().gguf, n_threads=1, **options)
    try:
        yield engine
    finally:
        engine.close()


def random_refs(
    folder: Path, base: BaseInfo, count: int, *, rank: int = _RANK, dtype: str = "f16"
) -> list[AdapterRef]:
    """Adapters of small random weights on the `down_proj` of every layer, where nano's are."""
    return [random_ref(folder, base, seed, rank, dtype) for seed in range(count)]


def random_ref(folder: Path, base: BaseInfo, seed: int, rank: int, dtype: str) -> AdapterRef:
    """One of `random_refs`."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for layer in range(base.n_layers):
        out, wide = base.tensors[f"blk.{layer}.ffn_down.weight"]
        a = rng.standard_normal((rank, wide), np.float32) * np.float32(0.02)
        b = rng.standard_normal((out, rank), np.float32) * np.float32(0.02)
        pairs[f"model.layers.{layer}.mlp.down_proj"] = LoraPair(a, b)
    manifest = Manifest(
        skill_name=f"skill-{seed}",
        skill_hash="5" * 64,
        base_name=base.name,
        base_hash=base.hash,
        compiler_id="random",
        compiler_hash="c" * 64,
        rank=rank,
        alpha=float(rank),
        targets=("mlp.down_proj",),
    )
    adapter = Adapter(pairs, float(rank), manifest)
    data = adapter_to_gguf(adapter, base, dtype=dtype)
    path = folder / f"skill-{seed}.gguf"
    path.write_bytes(data)
    return AdapterRef(path, hashlib.sha256(data).hexdigest())

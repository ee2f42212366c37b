"""Arithmetic on adapters: sums, means and truncations of what they add to the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from skillc_compiler.adapter import Adapter, LoraPair

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]
    Deltas = Mapping[str, Matrix]

MEAN_FOLDS = 12


def from_deltas(deltas: Deltas, rank: int, like: Adapter, name: str) -> Adapter:
    """The best adapter of rank `rank` for dense deltas [out, in] by module (Eckart-Young)."""
    import numpy as np

    pairs = {}
    for module, delta in deltas.items():
        left, weight, right = np.linalg.svd(delta, full_matrices=False)
        kept = min(rank, len(weight))
        root = np.sqrt(weight[:kept])
        pairs[module] = LoraPair(
            np.ascontiguousarray(root[:, None] * right[:kept], np.float32),
            np.ascontiguousarray(left[:, :kept] * root, np.float32),
        )
    size = max(pair.rank for pair in pairs.values())
    manifest = replace(like.manifest, skill_name=name, rank=size, alpha=float(size))
    # Every pair of a smaller rank would be scaled by its own rank: all have the same one.
    padded = {module: _padded(pair, size) for module, pair in pairs.items()}
    return Adapter(padded, float(size), manifest)


def truncated(adapter: Adapter, rank: int) -> Adapter:
    """The same adapter with at most `rank` directions a module, the strongest ones."""
    import numpy as np

    pairs = {}
    for module, pair in adapter.pairs.items():
        q_a, r_a = np.linalg.qr(pair.a.T.astype(np.float64))
        q_b, r_b = np.linalg.qr(pair.b.astype(np.float64))
        scale = adapter.alpha / pair.rank
        left, weight, right = np.linalg.svd(scale * (r_b @ r_a.T), full_matrices=False)
        kept = min(rank, len(weight))
        root = np.sqrt(weight[:kept])
        pairs[module] = _padded(
            LoraPair(
                (root[:, None] * (right[:kept] @ q_a.T)).astype(np.float32),
                ((q_b @ left[:, :kept]) * root).astype(np.float32),
            ),
            rank,
        )
    manifest = replace(adapter.manifest, rank=rank, alpha=float(rank))
    return Adapter(pairs, float(rank), manifest)


def summed(adapters: Sequence[Adapter], rank: int) -> Adapter:
    """The sum of several adapters as one of rank `rank`."""
    return from_deltas(_total(adapters), rank, adapters[0], "sum")


def means(adapters: Sequence[Adapter], rank: int) -> Iterator[tuple[range, Adapter]]:
    """For each of at most 12 folds of the adapters: which it holds, and the mean of all others.

    Needs two adapters at least.
    """
    import numpy as np

    total = _total(adapters)
    size = -(-len(adapters) // MEAN_FOLDS)
    for start in range(0, len(adapters), size):
        fold = range(start, min(start + size, len(adapters)))
        own = _total([adapters[number] for number in fold])
        others = len(adapters) - len(fold)
        deltas = {
            module: (value - own[module] if module in own else value) * np.float32(1 / others)
            for module, value in total.items()
        }
        yield fold, from_deltas(deltas, rank, adapters[0], "mean")


def cosines(adapters: Sequence[Adapter]) -> list[float]:
    """The cosine of every two adapters' deltas, all modules taken as one vector."""
    norms = [inner(one, one) ** 0.5 for one in adapters]
    return [
        inner(one, other) / max(norms[i] * norms[j], 1e-30)
        for i, one in enumerate(adapters)
        for j, other in enumerate(adapters[:i])
    ]


def inner(one: Adapter, other: Adapter) -> float:
    """The inner product of two adapters' deltas, from their factors."""
    found = 0.0
    for module in one.pairs.keys() & other.pairs.keys():
        p, q = one.pairs[module], other.pairs[module]
        scale = (one.alpha / p.rank) * (other.alpha / q.rank)
        found += scale * float(((p.b.T @ q.b) * (p.a @ q.a.T)).sum())
    return found


def stable_rank(adapter: Adapter) -> float:
    """The mean over modules of ||D||_F^2 / ||D||_2^2: how many directions carry the delta."""
    import numpy as np

    found = []
    for pair in adapter.pairs.values():
        core = np.linalg.qr(pair.b).R @ np.linalg.qr(pair.a.T).R.T
        weight = np.linalg.svd(core).S
        found.append(float((weight**2).sum() / max(float(weight[0]) ** 2, 1e-30)))
    return sum(found) / len(found)


def _total(adapters: Sequence[Adapter]) -> dict[str, Matrix]:
    total: dict[str, Matrix] = {}
    for adapter in adapters:
        for module in adapter.pairs:
            delta = adapter.delta(module)
            total[module] = total[module] + delta if module in total else delta
    return total


def _padded(pair: LoraPair, rank: int) -> LoraPair:
    """`pair` with zero directions up to `rank`."""
    import numpy as np

    extra = rank - pair.rank
    if extra <= 0:
        return pair
    return LoraPair(np.pad(pair.a, ((0, extra), (0, 0))), np.pad(pair.b, ((0, 0), (0, extra))))

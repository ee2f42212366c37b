"""Several adapters of one compiler solved for together, where their sum would not do.

Each is the solution C (I + alpha G)^-1 of a ridge regression on its own skill's keys (Gram matrix
G). The solution for all skills has the sums of all C and G. With a Gram matrix that is known where
the adapter acts, G = A^T M A, it has the same `a` as the adapters side by side, and another `b`:
A (I + alpha A^T M A)^-1 = (I + alpha A A^T M)^-1 A.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from skillc_compiler.errors import AdapterError

if TYPE_CHECKING:
    from skillc_compiler.ridge import Ridge

_Matrix = npt.NDArray[np.float32]
_Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter's change of a module, b @ a: a [r, in], b [out, r], and what it solves."""

    a: _Matrix
    b: _Matrix
    ridge: Ridge | None


def solved_together(parts: Sequence[Part]) -> list[_Matrix]:
    """Each part's `b` in the solution for all; as it was where nothing else solves the same.

    AdapterError when there is no solution, as there is for what a compiler has written.
    """
    found = [part.b for part in parts]
    for places in _alike(parts):
        members = [parts[place] for place in places]
        for place, b in zip(places, _solution(members), strict=True):
            found[place] = b
    return found


def _alike(parts: Sequence[Part]) -> list[list[int]]:
    """The places of parts that regress on the same inputs, as strongly, where there are several."""
    groups: dict[tuple[float, bytes], list[int]] = {}
    for place, part in enumerate(parts):
        if part.ridge is not None:
            key = part.ridge.alpha, part.ridge.spread.tobytes()
            groups.setdefault(key, []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def _solution(parts: Sequence[Part]) -> list[_Matrix]:
    ridges = [part.ridge for part in parts if part.ridge is not None]
    alpha, spread = ridges[0].alpha, ridges[0].spread.astype(np.float64)
    rows = np.concatenate([part.a.astype(np.float64) * spread for part in parts])
    edges = np.cumsum([0, *(len(part.a) for part in parts)])
    spans = [slice(start, end) for start, end in itertools.pairwise(edges)]
    alike: _Wide = rows @ rows.T
    grams, own = np.zeros_like(alike), np.zeros_like(alike)
    for span, ridge in zip(spans, ridges, strict=True):
        grams[span, span] = ridge.gram
        own[span, span] = alike[span, span] @ ridge.gram
    one = np.eye(len(alike))
    wanted = np.concatenate([part.b.astype(np.float64) for part in parts], axis=1)
    wanted = wanted @ (one + alpha * own)
    try:
        mixed = np.linalg.solve((one + alpha * alike @ grams).T, wanted.T).T
    except np.linalg.LinAlgError:
        mixed = np.full_like(wanted, np.nan)
    if not np.isfinite(mixed).all():
        raise AdapterError("these adapters cannot be solved for together: build them again")
    return [np.ascontiguousarray(mixed[:, span], dtype=np.float32) for span in spans]

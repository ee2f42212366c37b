"""What solving for an adapter together with others takes, kept in its GGUF's header.

A `writer`'s change of a module is a ridge regression in closed form: of values on keys. The sum of
two such solutions is not the solution of both, as each disturbs what the other answers; but the
other's keys need not be known one by one for that, only their Gram matrix where the adapter acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillc_compiler.gguf_types import Array, Field, GgufError, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from skillc_compiler.gguf_header import Header

    Floats = npt.NDArray[np.float32]

PREFIX = "skillc.ridge."


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """The regression that one module's factors `a` [r, in] and `b` [out, r] solve.

    Keys are inputs divided by `spread`, float32 [in]; with a's columns times `spread` the keys'
    Gram matrix is `a^T gram a`, gram float32 [r, r]. `alpha` is the regression's strength: the
    solution minimises |dW k - v|^2 over all keys k and values v, plus |dW|^2 / alpha.
    """

    alpha: float
    spread: Floats
    gram: Floats


def ridge_field(ridge: Ridge) -> Field:
    """A header entry: float32 alpha, spread and gram, one after the other."""
    import numpy as np

    alpha = np.array([ridge.alpha])
    values = np.concatenate((alpha, ridge.spread, ridge.gram.ravel())).astype("<f4")
    return Field(Kind.ARRAY, Array(Kind.F32, len(values), values.tobytes()))


def read_ridge(header: Header, target: str, rank: int, width: int) -> Ridge | None:
    """That of a target with factors of this rank and `width` inputs; None where it has none.

    Raises GgufError for one that cannot belong to them.
    """
    import numpy as np

    array = header.get(f"{PREFIX}{target}", Kind.ARRAY)
    if array is None:
        return None
    if array.item is not Kind.F32 or array.count != 1 + width + rank * rank:
        raise GgufError(f"{PREFIX}{target} does not fit rank {rank} and {width} inputs")
    values = np.frombuffer(array.raw, "<f4").astype(np.float32)
    alpha, spread, gram = float(values[0]), values[1 : 1 + width], values[1 + width :]
    if not (np.isfinite(values).all() and alpha > 0 and (spread > 0).all()):
        raise GgufError(f"{PREFIX}{target} has values that are not finite, or not above 0")
    return Ridge(alpha, spread, gram.reshape(rank, rank))

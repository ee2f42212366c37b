"""Several adapters as one: ranks concatenated, scales folded into B, solved for together.

Attached one by one, llama.cpp adds their deltas in the order of a hash table of addresses, so the
last bits of an answer would change from run to run, and each adapter would cost a product a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from skillc_compiler.gguf_base import tensor_values
from skillc_compiler.gguf_encode import Tensor, encode_gguf, encode_tensor
from skillc_compiler.gguf_types import DType, Field, Kind
from skillc_runtime.solve import Part, solved_together

if TYPE_CHECKING:
    from skillc_compiler.gguf_check import CheckedAdapter

_F16_MAX = 65504.0

_Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """An adapter's checked bytes, and how strongly it acts."""

    data: bytes
    checked: CheckedAdapter
    scale: float

    @property
    def wide(self) -> bool:
        """Whether float16 would lose something of it."""
        return any(info.dtype == DType.F32 for info in self.checked.tensors.values())

    def targets(self) -> set[str]:
        """Names of the base's tensors that it changes."""
        return {name.rpartition(".")[0] for name in self.checked.tensors}

    def factors(self, target: str) -> tuple[_Matrix, _Matrix]:
        """A float32 [r, in], and B float32 [out, r] with all scaling in it."""
        a, b = self._values(f"{target}.lora_a"), self._values(f"{target}.lora_b")
        alpha = self.checked.alpha
        return a, b * np.float32(self.scale * (alpha / a.shape[0] if alpha else 1.0))

    def part(self, target: str) -> Part:
        """The factors, and the regression that they solve."""
        return Part(*self.factors(target), self.checked.ridges.get(target))

    def _values(self, name: str) -> _Matrix:
        info = self.checked.tensors[name]
        return tensor_values(info, self.data[info.offset : info.offset + info.size])


def stack(layers: Sequence[Layer], arch: str) -> bytes:
    """One adapter for what `layers` do together; equal input gives equal bytes.

    It is float32 if one of them is, or where scaled values need it; else float16 with ranks padded
    to a multiple of 32, which is what the fast kernels take.
    """
    fields = {
        "general.architecture": Field(Kind.STRING, arch),
        "general.type": Field(Kind.STRING, "adapter"),
        "adapter.type": Field(Kind.STRING, "lora"),
        # 0 means that scaling is part of B; without the key a reader could not tell.
        "adapter.lora.alpha": Field(Kind.F32, 0.0),
    }
    tensors: list[Tensor] = []
    wide = any(layer.wide for layer in layers)
    for target in sorted(set().union(*(layer.targets() for layer in layers))):
        parts = [layer.part(target) for layer in layers if target in layer.targets()]
        a = np.concatenate([part.a for part in parts], axis=0)
        b = np.concatenate(solved_together(parts), axis=1)
        dtype = DType.F32 if wide or np.abs(b).max() > _F16_MAX else DType.F16
        if dtype == DType.F16:
            a, b = np.pad(a, ((0, -len(a) % 32), (0, 0))), np.pad(b, ((0, 0), (0, -len(a) % 32)))
        tensors.append(encode_tensor(f"{target}.lora_a", a, dtype))
        tensors.append(encode_tensor(f"{target}.lora_b", b, dtype))
    return b"".join(encode_gguf(fields, tensors))

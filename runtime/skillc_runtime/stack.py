"""Several adapters as one: ranks concatenated, scales folded into B.

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

if TYPE_CHECKING:
    from skillc_compiler.gguf_check import CheckedAdapter

_Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """An adapter's checked bytes, and how strongly it acts."""

    data: bytes
    checked: CheckedAdapter
    scale: float

    def targets(self) -> set[str]:
        """Names of the base's tensors that it changes."""
        return {name.rpartition(".")[0] for name in self.checked.tensors}

    def factors(self, target: str) -> tuple[_Matrix, _Matrix]:
        """A float32 [r, in], and B float32 [out, r] with all scaling in it."""
        a, b = self._values(f"{target}.lora_a"), self._values(f"{target}.lora_b")
        alpha = self.checked.alpha
        return a, b * np.float32(self.scale * (alpha / a.shape[0] if alpha else 1.0))

    def _values(self, name: str) -> _Matrix:
        info = self.checked.tensors[name]
        return tensor_values(info, self.data[info.offset : info.offset + info.size])


def stack(layers: Sequence[Layer], arch: str) -> bytes:
    """One float32 adapter that does what `layers` do together; equal input gives equal bytes."""
    fields = {
        "general.architecture": Field(Kind.STRING, arch),
        "general.type": Field(Kind.STRING, "adapter"),
        "adapter.type": Field(Kind.STRING, "lora"),
        # 0 means that scaling is part of B; without the key a reader could not tell.
        "adapter.lora.alpha": Field(Kind.F32, 0.0),
    }
    tensors: list[Tensor] = []
    for target in sorted(set().union(*(layer.targets() for layer in layers))):
        pairs = [layer.factors(target) for layer in layers if target in layer.targets()]
        a = np.concatenate([a for a, _ in pairs], axis=0)
        b = np.concatenate([b for _, b in pairs], axis=1)
        tensors.append(encode_tensor(f"{target}.lora_a", a, DType.F32))
        tensors.append(encode_tensor(f"{target}.lora_b", b, DType.F32))
    return b"".join(encode_gguf(fields, tensors))

"""Adapters as bytes, checked before llama.cpp sees them.

Many malformed files kill llama.cpp's process or give NaN logits with a good return code. What
passes here loads; exactly the checked bytes must then be loaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_adapter import MAX_ALPHA, MAX_RANK
from skillc_compiler.gguf_base import BaseInfo, tensor_values
from skillc_compiler.gguf_header import Header, TensorInfo, read_header
from skillc_compiler.gguf_types import DType, GgufError, Kind
from skillc_compiler.ridge import Ridge, read_ridge

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CheckedAdapter", "GgufError", "read_header", "validate_adapter"]

MAX_ADAPTER_BYTES = 1 << 30
MAX_ADAPTER_STRINGS = 4096
# Trained factors stay below 100. F16 kernels also round activations to F16, so that products
# with larger factors pass 65,504 and turn infinite.
MAX_WEIGHT = 1e4
MAX_WEIGHT_F16 = 1e3

_DTYPES = (DType.F32, DType.F16, DType.BF16, DType.Q8_0)
_KINDS = {
    "general.type": Kind.STRING,
    "general.architecture": Kind.STRING,
    "adapter.type": Kind.STRING,
    "adapter.lora.alpha": Kind.F32,
    "adapter.lora.task_name": Kind.STRING,
    "adapter.lora.prompt_prefix": Kind.STRING,
    "adapter.alora.invocation_tokens": Kind.ARRAY,
    "skillc.base_hash": Kind.STRING,
}


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter's bytes that passed: largest rank, alpha, tensors by name, SHA-256 of the bytes.

    `tensors` are the halves "<base tensor>.lora_a" and ".lora_b". The factor on `b @ a` is
    alpha / rank of the pair, or 1 when alpha is 0. `ridges` are those of base tensors that have
    one.
    """

    rank: int
    alpha: float
    tensors: Mapping[str, TensorInfo]
    sha256: str
    ridges: Mapping[str, Ridge]


def validate_adapter(data: bytes, base: BaseInfo) -> CheckedAdapter:
    """Check that these bytes are a LoRA for this base that llama.cpp loads and applies soundly.

    Raises AdapterError with one line that says what is wrong.
    """
    try:
        if len(data) > MAX_ADAPTER_BYTES:
            raise GgufError(f"{len(data)} bytes; the limit is {MAX_ADAPTER_BYTES}")
        header = read_header(data, max_items=MAX_ADAPTER_STRINGS)
        alpha = _check_entries(header, base)
        ranks = _check_shapes(header.tensors, base)
        _check_values(header.tensors, list(ranks), data)
        ridges = _ridges(header, ranks)
    except GgufError as error:
        raise AdapterError(f"adapter refused: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    return CheckedAdapter(max(ranks.values()), alpha, header.tensors, digest, ridges)


def _ridges(header: Header, ranks: Mapping[str, int]) -> dict[str, Ridge]:
    found = {}
    for target, rank in ranks.items():
        width = header.tensors[f"{target}.lora_a"].shape[1]
        if (ridge := read_ridge(header, target, rank, width)) is not None:
            found[target] = ridge
    return found


def _check_entries(header: Header, base: BaseInfo) -> float:
    for key, kind in _KINDS.items():
        header.get(key, kind)
    for key, wanted in (
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("general.architecture", base.arch),
    ):
        found = header.need(key, Kind.STRING)
        if found != wanted:
            raise GgufError(f"{key} is {found[:40]!r}, not {wanted!r}")
    made_for = header.get("skillc.base_hash", Kind.STRING)
    if made_for not in (None, base.hash):
        raise GgufError(
            f"made for base {made_for[:12]!r}, not {base.name} ({base.hash[:12]}): build it again"
        )
    tokens = header.get("adapter.alora.invocation_tokens", Kind.ARRAY)
    if tokens is not None and (
        tokens.item is not Kind.U32 or not all(t < base.vocab_size for t in tokens.numbers())
    ):
        raise GgufError("adapter.alora.invocation_tokens must be U32 ids of the base's vocabulary")
    alpha = float(header.need("adapter.lora.alpha", Kind.F32))
    if not math.isfinite(alpha) or not 0 <= alpha <= MAX_ALPHA:
        raise GgufError(f"adapter.lora.alpha is {alpha}, not between 0 and {MAX_ALPHA:g}")
    return alpha


def _check_shapes(tensors: Mapping[str, TensorInfo], base: BaseInfo) -> dict[str, int]:
    """Base tensor -> rank, when all tensors form pairs that fit 2-D tensors of the base."""
    if not tensors:
        raise GgufError("it holds no tensors")
    ranks = {}
    for name, info in tensors.items():
        target, dot, half = name.rpartition(".")
        if not dot or half not in ("lora_a", "lora_b"):
            raise GgufError(f"tensor {name} is not half of a LoRA pair")
        if f"{target}.lora_a" not in tensors or f"{target}.lora_b" not in tensors:
            raise GgufError(f"tensor {name} lacks its other half")
        shape = base.tensors.get(target)
        if shape is None or len(shape) != 2 or target == "token_embd.weight":
            raise GgufError(f"{target} is not a matrix of base {base.name} that takes an adapter")
        if len(info.shape) != 2 or info.dtype not in _DTYPES:
            raise GgufError(f"tensor {name} is {info.dtype.name} with shape {info.shape}")
        ranks[target] = tensors[f"{target}.lora_a"].shape[0]
    for target, rank in ranks.items():
        a, b = tensors[f"{target}.lora_a"].shape, tensors[f"{target}.lora_b"].shape
        if (b[0], a[-1]) != base.tensors[target] or b[-1] != rank:
            raise GgufError(f"{target} is {base.tensors[target]}, its factors {a} and {b}")
        if rank > MAX_RANK:
            raise GgufError(f"{target} has rank {rank}; the limit is {MAX_RANK}")
    return ranks


def _check_values(tensors: Mapping[str, TensorInfo], targets: list[str], data: bytes) -> None:
    acts = False
    for target in targets:
        a = _peaks(tensors[f"{target}.lora_a"], data, 1)
        b = _peaks(tensors[f"{target}.lora_b"], data, 0)
        acts = acts or bool(((a > 0) & (b > 0)).any())
    if not acts:
        raise GgufError("all its factors are zero")


def _peaks(info: TensorInfo, data: bytes, axis: int) -> npt.NDArray[np.float32]:
    """The largest magnitude of each rank component, float32 [rank]."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        values = tensor_values(info, data[info.offset : info.offset + info.size])
        peaks: npt.NDArray[np.float32] = np.abs(values).max(axis=axis)
    highest = float(peaks.max())
    if not math.isfinite(highest):
        raise GgufError(f"tensor {info.name} has values that are not finite")
    limit = MAX_WEIGHT_F16 if info.dtype is DType.F16 else MAX_WEIGHT
    if highest > limit:
        raise GgufError(f"tensor {info.name} reaches {highest:g}; the limit is {limit:g}")
    return peaks

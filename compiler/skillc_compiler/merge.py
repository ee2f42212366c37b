"""A base with an adapter merged into its weights, as one GGUF that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import AdapterError, BaseModelError
from skillc_compiler.gguf_adapter import adapter_targets, arranged_pair
from skillc_compiler.gguf_base import BaseInfo, tensor_values
from skillc_compiler.gguf_encode import DTYPES, Planned, encode_tensor, stream_gguf
from skillc_compiler.gguf_header import ALIGNMENT_KEY, TensorInfo, read_header
from skillc_compiler.gguf_types import BLOCKS, DType, Field, GgufError, Kind
from skillc_compiler.gguf_write import write_whole

if TYPE_CHECKING:
    from skillc_compiler.adapter import LoraPair

# Bytes of a tensor that are read at a time.
_PIECE = 1 << 24
_WRITTEN = tuple(DTYPES.values())


def write_merged(base: BaseInfo, adapter: Adapter, path: Path, *, name: str) -> int:
    """Write the base's GGUF with `adapter` added to its weights; returns how many were changed.

    Weights that change keep their type if it is F32, F16 or Q8_0; those of other types become Q8_0,
    which rounds less than they do. Everything else is copied. Raises AdapterError, BaseModelError.
    """
    targets = {tensor: module for module, tensor in adapter_targets(adapter, base).items()}
    try:
        header = read_header(base.path)
        fields = {k: v for k, v in header.fields.items() if k != ALIGNMENT_KEY}
        fields["general.name"] = Field(Kind.STRING, name)
        fields.setdefault("general.quantization_version", Field(Kind.U32, 2))
        plan = []
        for tensor, info in header.tensors.items():
            if tensor in targets:
                module = targets[tensor]
                pair = arranged_pair(module, adapter.pairs[module], base)
                plan.append(_merged(base.path, info, pair, adapter.alpha / pair.rank))
            else:
                plan.append(_copied(base.path, info))
        write_whole(path, stream_gguf(fields, plan))
    except OSError as error:
        raise BaseModelError(f"{base.path}: cannot be read ({error.strerror})") from error
    except GgufError as error:
        raise AdapterError(f"{path}: {error}") from error
    return len(targets)


def _copied(path: Path, info: TensorInfo) -> Planned:
    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(info.offset)
            left = info.size
            while left:
                data = file.read(min(_PIECE, left))
                if not data:
                    raise GgufError(f"tensor {info.name} is cut off")
                left -= len(data)
                yield data

    return Planned(info.name, info.shape, info.dtype, pieces)


def _merged(path: Path, info: TensorInfo, pair: LoraPair, scale: float) -> Planned:
    dtype = info.dtype if info.dtype in _WRITTEN else DType.Q8_0
    if info.shape[-1] % BLOCKS[dtype][0]:
        dtype = DType.F16
    per_row = info.size // info.shape[0]
    step = max(1, _PIECE // (4 * info.shape[-1]))

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(info.offset)
            for start in range(0, info.shape[0], step):
                rows = min(step, info.shape[0] - start)
                part = replace(info, shape=(rows, info.shape[-1]), size=rows * per_row)
                values = tensor_values(part, file.read(rows * per_row))
                change = pair.b[start : start + rows] @ pair.a
                merged = values + change * change.dtype.type(scale)
                yield encode_tensor(info.name, merged, dtype).data

    return Planned(info.name, info.shape, dtype, pieces)

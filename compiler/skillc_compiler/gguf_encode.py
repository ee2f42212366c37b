"""GGUF bytes: a writer whose output depends on nothing but its input."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillc_compiler.gguf_types import (
    BLOCKS,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_STRING_BYTES,
    STRUCTS,
    VERSION,
    Array,
    DType,
    Field,
    GgufError,
    Kind,
    tensor_size,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DTYPES = {"f32": DType.F32, "f16": DType.F16, "q8_0": DType.Q8_0}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor ready to be written: shape in numpy order, `data` encoded as `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    data: bytes


def string_array(values: Sequence[str]) -> Field:
    """A header entry that holds these strings."""
    return Field(Kind.ARRAY, Array(Kind.STRING, len(values), b"".join(map(_string, values))))


def number_array(item: Kind, values: Sequence[int | float]) -> Field:
    """A header entry that holds these numbers as type `item`."""
    raw = b"".join(map(STRUCTS[item].pack, values))
    return Field(Kind.ARRAY, Array(item, len(values), raw))


def encode_tensor(name: str, values: npt.NDArray[np.float32], dtype: DType) -> Tensor:
    """Encode float32 values [.., n] as F32, F16 or Q8_0; rows of Q8_0 are multiples of 32.

    Raises GgufError when a value is not finite or leaves the range of the type.
    """
    import numpy as np

    per_block, _ = BLOCKS[dtype]
    if values.shape[-1] % per_block:
        raise GgufError(f"tensor {name}: rows of {values.shape[-1]} are no multiple of {per_block}")
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype is DType.Q8_0:
            encoded, check = _encode_q8_0(values)
        else:
            encoded = values.astype("<f4" if dtype is DType.F32 else "<f2")
            check = encoded
    if not np.isfinite(check).all():
        raise GgufError(f"tensor {name} has values that {dtype.name} cannot hold")
    return Tensor(name, values.shape, dtype, encoded.tobytes())


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is encoded while it is written: `pieces` yields its bytes, in order."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    pieces: Callable[[], Iterable[bytes]]


def encode_gguf(fields: dict[str, Field], tensors: Sequence[Tensor]) -> Iterator[bytes]:
    """The GGUF file in pieces: entries and tensors in the given order, alignment 32."""

    def planned(tensor: Tensor) -> Planned:
        return Planned(tensor.name, tensor.shape, tensor.dtype, lambda: [tensor.data])

    return stream_gguf(fields, [planned(tensor) for tensor in tensors])


def stream_gguf(fields: dict[str, Field], tensors: Sequence[Planned]) -> Iterator[bytes]:
    """As `encode_gguf`, with no more than a piece of a tensor in memory. Raises GgufError."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(fields))]
    for key, field in fields.items():
        parts += [_string(key), struct.pack("<I", field.kind), _value(field)]
    offset = 0
    for tensor in tensors:
        shape = tensor.shape
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        parts += [_string(tensor.name), dims, struct.pack("<IQ", tensor.dtype, offset)]
        size = tensor_size(tensor.name, shape, tensor.dtype)
        offset += size + _padding(size)
    header = b"".join(parts)
    yield header + bytes(_padding(len(header)))
    for tensor in tensors:
        size = 0
        for piece in tensor.pieces():
            size += len(piece)
            yield piece
        if size != tensor_size(tensor.name, tensor.shape, tensor.dtype):
            raise GgufError(f"tensor {tensor.name}: {size} bytes for shape {tensor.shape}")
        yield bytes(_padding(size))


def _encode_q8_0(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Blocks of Q8_0 as bytes, and their scales, which show an overflow."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    encoded: npt.NDArray[np.uint8] = quantize(values, GGMLQuantizationType.Q8_0)
    scales = encoded.reshape(-1, BLOCKS[DType.Q8_0][1])[:, :2].copy().view("<f2")
    return encoded, scales


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    if len(data) > MAX_STRING_BYTES:
        raise GgufError(f"a string of {len(data)} bytes; the limit is {MAX_STRING_BYTES}")
    return struct.pack("<Q", len(data)) + data


def _value(field: Field) -> bytes:
    if field.kind is Kind.STRING:
        return _string(field.value)
    if field.kind is Kind.ARRAY:
        array: Array = field.value
        return struct.pack("<IQ", array.item, array.count) + array.raw
    return STRUCTS[field.kind].pack(field.value)


def _padding(size: int) -> int:
    return -size % DEFAULT_ALIGNMENT

"""The vocabulary of the GGUF format: value types, tensor types, and how each is encoded.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32
MAX_STRING_BYTES = 64 * 1024


class GgufError(ValueError):
    """A file is not GGUF that we accept; the message is one line without the file's name."""


class Kind(IntEnum):
    """Types of header values."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


class DType(IntEnum):
    """Types of tensors that we read or write, by ggml's numbers."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    BF16 = 30


STRUCTS: Mapping[int, struct.Struct] = {
    Kind.U8: struct.Struct("<B"),
    Kind.I8: struct.Struct("<b"),
    Kind.U16: struct.Struct("<H"),
    Kind.I16: struct.Struct("<h"),
    Kind.U32: struct.Struct("<I"),
    Kind.I32: struct.Struct("<i"),
    Kind.F32: struct.Struct("<f"),
    Kind.BOOL: struct.Struct("<?"),
    Kind.U64: struct.Struct("<Q"),
    Kind.I64: struct.Struct("<q"),
    Kind.F64: struct.Struct("<d"),
}
# Values per block and bytes per block.
BLOCKS: Mapping[int, tuple[int, int]] = {
    DType.F32: (1, 4),
    DType.F16: (1, 2),
    DType.BF16: (1, 2),
    DType.F64: (1, 8),
    DType.I8: (1, 1),
    DType.I16: (1, 2),
    DType.I32: (1, 4),
    DType.I64: (1, 8),
    DType.Q4_0: (32, 18),
    DType.Q4_1: (32, 20),
    DType.Q5_0: (32, 22),
    DType.Q5_1: (32, 24),
    DType.Q8_0: (32, 34),
    DType.Q2_K: (256, 84),
    DType.Q3_K: (256, 110),
    DType.Q4_K: (256, 144),
    DType.Q5_K: (256, 176),
    DType.Q6_K: (256, 210),
}


@dataclass(frozen=True, slots=True)
class Array:
    """An array in a header, still encoded: `count` values of type `item`."""

    item: Kind
    count: int
    raw: bytes

    def strings(self) -> list[str]:
        """The values of an array of strings; bytes that are not UTF-8 become U+FFFD."""
        if self.item is not Kind.STRING:
            raise GgufError("an array holds numbers where strings belong")
        found, at = [], 0
        for _ in range(self.count):
            end = at + 8 + STRUCTS[Kind.U64].unpack_from(self.raw, at)[0]
            found.append(self.raw[at + 8 : end].decode("utf-8", "replace"))
            at = end
        return found

    def numbers(self) -> list[Any]:
        """The values of an array of numbers."""
        if self.item is Kind.STRING:
            raise GgufError("an array holds strings where numbers belong")
        return [value for (value,) in STRUCTS[self.item].iter_unpack(self.raw)]


@dataclass(frozen=True, slots=True)
class Field:
    """One header entry: its type and its value (str, int, float, bool or Array)."""

    kind: Kind
    value: Any


def tensor_size(name: str, shape: tuple[int, ...], number: int) -> int:
    """Bytes of a tensor of this shape (numpy order) and ggml type. Raises GgufError."""
    if number not in BLOCKS:
        raise GgufError(f"tensor {name} has the type {number}, which is not supported")
    per_block, block_bytes = BLOCKS[number]
    if shape[-1] % per_block:
        raise GgufError(f"tensor {name}: rows of {shape[-1]} values in blocks of {per_block}")
    size = block_bytes
    for n in (*shape[:-1], shape[-1] // per_block):
        size *= n
    return size

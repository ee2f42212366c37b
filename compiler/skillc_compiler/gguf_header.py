"""Headers of GGUF files, read by a parser whose every step is bounded by the file's own size.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian.
The rules on names, offsets and padding are those of llama.cpp's own reader, or stricter.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
MAX_TENSORS = 4096
MAX_FIELDS = 256
MAX_STRING_BYTES = 64 * 1024
MAX_ITEMS = 1 << 21
MAX_NAME_BYTES = 63


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
_U32, _U64 = STRUCTS[Kind.U32], STRUCTS[Kind.U64]


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
            end = at + 8 + _U64.unpack_from(self.raw, at)[0]
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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: shape in numpy order, type, absolute offset and size in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header entries and the tensors of one GGUF file, in the file's order."""

    fields: Mapping[str, Field]
    tensors: Mapping[str, TensorInfo]

    def get(self, key: str, *kinds: Kind) -> Any:
        """The value of `key`, or None without it. Raises GgufError when its type is another."""
        field = self.fields.get(key)
        if field is not None and field.kind not in kinds:
            wanted = " or ".join(kind.name for kind in kinds)
            raise GgufError(f"{key} is {field.kind.name}, not {wanted}")
        return None if field is None else field.value

    def need(self, key: str, *kinds: Kind) -> Any:
        """As `get`, but a missing key raises GgufError too."""
        value = self.get(key, *kinds)
        if value is None:
            raise GgufError(f"{key} is missing")
        return value


def read_header(source: bytes | Path, *, max_items: int = MAX_ITEMS) -> Header:
    """Read the header of a GGUF file, or of its bytes, without touching tensor data.

    `max_items` bounds the strings in all arrays together. Raises GgufError for anything malformed
    and for a path that is no regular file; OSError as `open` does.
    """
    if isinstance(source, bytes):
        return _Cursor(source, max_items).header()
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise GgufError("not a regular file")
        if status.st_size == 0:
            raise GgufError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Cursor(view, max_items).header()


class _Cursor:
    """A position in the file; it never passes the end."""

    def __init__(self, data: bytes | mmap.mmap, max_items: int) -> None:
        self.data = data
        self.at = 0
        self.items_left = max_items

    def header(self) -> Header:
        if self.take(4) != MAGIC:
            raise GgufError("not a GGUF file")
        version = self.number(_U32)
        if version != VERSION:
            raise GgufError(f"GGUF version {version}; only {VERSION} is read")
        n_tensors, n_fields = self.number(_U64), self.number(_U64)
        if n_tensors > MAX_TENSORS or n_fields > MAX_FIELDS:
            raise GgufError(
                f"{n_tensors} tensors and {n_fields} header entries; "
                f"the limits are {MAX_TENSORS} and {MAX_FIELDS}"
            )
        fields: dict[str, Field] = {}
        for _ in range(n_fields):
            key = self.name("header entry", MAX_STRING_BYTES, fields)
            fields[key] = self.field(key)
        stubs: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(n_tensors):
            name = self.name("tensor", MAX_NAME_BYTES, stubs)
            stubs[name] = self.shape(name), self.number(_U32), self.number(_U64)
        return Header(fields, self.place(stubs, _alignment(fields)))

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise GgufError(f"the file ends early ({len(self.data)} bytes)")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def name(self, what: str, limit: int, taken: Mapping[str, object]) -> str:
        raw = self.take(min(self.number(_U64), limit + 1))
        # A NUL would let llama.cpp, which compares C strings, see another name than we do.
        text = raw.decode("ascii", "replace")
        if not 1 <= len(raw) <= limit or not text.isascii() or not text.isprintable():
            raise GgufError(f"a {what}'s name is empty, longer than {limit} bytes or not ASCII")
        if text in taken:
            raise GgufError(f"{what} {text} occurs twice")
        return text

    def kind(self, key: str) -> Kind:
        number = self.number(_U32)
        if number > Kind.F64:
            raise GgufError(f"{key} has the unknown type {number}")
        return Kind(number)

    def field(self, key: str) -> Field:
        kind = self.kind(key)
        if kind is Kind.ARRAY:
            return Field(kind, self.array(key))
        if kind is not Kind.STRING:
            return Field(kind, self.number(STRUCTS[kind]))
        size = self.number(_U64)
        if size > MAX_STRING_BYTES:
            raise GgufError(f"{key} is a string of {size} bytes; the limit is {MAX_STRING_BYTES}")
        try:
            return Field(kind, self.take(size).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise GgufError(f"{key} is not UTF-8") from error

    def array(self, key: str) -> Array:
        item, count = self.kind(key), self.number(_U64)
        if item is Kind.ARRAY:
            raise GgufError(f"{key} is an array of arrays")
        if item is not Kind.STRING:
            return Array(item, count, self.take(count * STRUCTS[item].size))
        self.items_left -= count
        if self.items_left < 0:
            raise GgufError(f"{key} holds too many strings ({count})")
        data, start, at, end = self.data, self.at, self.at, len(self.data)
        for _ in range(count):
            size = _U64.unpack_from(data, at)[0] if end - at >= 8 else end
            at += 8 + size
            if size > MAX_STRING_BYTES or at > end:
                raise GgufError(f"{key} holds a string that is too long or passes the file's end")
        return Array(item, count, self.take(at - start))

    def shape(self, name: str) -> tuple[int, ...]:
        n_dims = self.number(_U32)
        if not 1 <= n_dims <= 4:
            raise GgufError(f"tensor {name} has {n_dims} dimensions")
        shape = tuple(self.number(_U64) for _ in range(n_dims))[::-1]
        if 0 in shape:
            raise GgufError(f"tensor {name} is empty: {shape}")
        return shape

    def place(
        self, stubs: Mapping[str, tuple[tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, TensorInfo]:
        """Check that the tensors follow each other, padded, and lie inside the file."""
        start = _pad(self.at, alignment)
        expected = 0
        tensors = {}
        for name, (shape, number, offset) in stubs.items():
            size = tensor_size(name, shape, number)
            if offset != expected:
                raise GgufError(f"tensor {name} lies at {offset}, not at {expected}")
            if start + offset + size > len(self.data):
                raise GgufError(f"tensor {name} passes the file's end ({len(self.data)} bytes)")
            tensors[name] = TensorInfo(name, shape, DType(number), start + offset, size)
            expected = offset + _pad(size, alignment)
        return tensors


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


def _alignment(fields: Mapping[str, Field]) -> int:
    field = fields.get(ALIGNMENT_KEY)
    if field is None:
        return DEFAULT_ALIGNMENT
    value = field.value
    if field.kind is not Kind.U32 or not 1 <= value <= 65536 or value & (value - 1):
        raise GgufError(f"{ALIGNMENT_KEY} must be a U32 that is a power of two up to 65536")
    return int(value)


def _pad(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment

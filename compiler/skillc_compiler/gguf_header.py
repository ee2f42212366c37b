"""Headers of GGUF files, read by a parser whose every step is bounded by the file's own size.

The rules on names, offsets and padding are those of llama.cpp's own reader, or stricter.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillc_compiler.gguf_types import (
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

ALIGNMENT_KEY = "general.alignment"
MAX_TENSORS = 4096
MAX_FIELDS = 256
MAX_ITEMS = 1 << 21
MAX_NAME_BYTES = 63
MAX_KEY_BYTES = 256

_U32, _U64 = STRUCTS[Kind.U32], STRUCTS[Kind.U64]


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
            key = self.name("header entry", MAX_KEY_BYTES, fields)
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

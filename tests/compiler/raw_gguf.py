"""GGUF adapters as loose parts, so that tests can write every kind of wrong file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from skillc_compiler.gguf_types import STRUCTS, Kind

Values = npt.NDArray[np.float32]


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def text(value: str) -> bytes:
    """A STRING value with its type."""
    return struct.pack("<I", Kind.STRING) + string(value)


def number(kind: Kind, value: float) -> bytes:
    """A number with its type."""
    value = value if kind in (Kind.F32, Kind.F64) else int(value)
    return struct.pack("<I", kind) + STRUCTS[kind].pack(value)


def array(item: int, count: int, raw: bytes = b"") -> bytes:
    """An ARRAY value with its type, whatever it claims."""
    return struct.pack("<IIQ", Kind.ARRAY, item, count) + raw


@dataclass(frozen=True)
class Part:
    """A tensor as the file states it; `dims` in ggml's order, `offset` None for the right one."""

    name: str | bytes
    dims: tuple[int, ...]
    dtype: int
    data: bytes
    offset: int | None = None


def part(name: str, values: Values, dtype: int = 0) -> Part:
    """A tensor that is what it says, stored as F32 (0), F16 (1), Q8_0 (8) or BF16 (30)."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    data = quantize(values, GGMLQuantizationType(dtype)).tobytes()
    return Part(name, values.shape[::-1], dtype, data)


def pair(name: str, shape: tuple[int, int], rank: int = 4, dtype: int = 0) -> list[Part]:
    """A sound pair for a base tensor of this shape (out, in)."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((rank, shape[1])).astype(np.float32) * np.float32(0.1)
    b = rng.standard_normal((shape[0], rank)).astype(np.float32) * np.float32(0.1)
    return [part(f"{name}.lora_a", a, dtype), part(f"{name}.lora_b", b, dtype)]


@dataclass(frozen=True)
class File:
    """A whole file; every count can be made to lie."""

    entries: tuple[tuple[str | bytes, bytes], ...]
    parts: tuple[Part, ...]
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_entries: int | None = None
    alignment: int = 32
    order: str = field(default="<")

    def put(self, key: str, value: bytes | None) -> File:
        """This file with one header entry replaced, added, or (None) dropped."""
        known: Mapping[str | bytes, bytes] = dict(self.entries)
        entries = {k: v for k, v in known.items() if k != key}
        return replace(self, entries=(*entries.items(), *([(key, value)] if value else [])))

    def encode(self) -> bytes:
        """The bytes."""
        n_tensors = len(self.parts) if self.n_tensors is None else self.n_tensors
        n_entries = len(self.entries) if self.n_entries is None else self.n_entries
        out = self.magic + struct.pack(f"{self.order}IQQ", self.version, n_tensors, n_entries)
        for key, value in self.entries:
            out += string(key) + value
        body = b""
        for tensor in self.parts:
            offset = len(body) if tensor.offset is None else tensor.offset
            out += string(tensor.name) + struct.pack("<I", len(tensor.dims))
            out += struct.pack(f"<{len(tensor.dims)}Q", *tensor.dims)
            out += struct.pack("<IQ", tensor.dtype, offset)
            body += tensor.data + bytes(-len(tensor.data) % self.alignment)
        return out + bytes(-len(out) % self.alignment) + body


def good(parts: list[Part]) -> File:
    """A sound adapter for a qwen3 base with these tensors."""
    entries: tuple[tuple[str | bytes, bytes], ...] = (
        ("general.type", text("adapter")),
        ("general.architecture", text("qwen3")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", number(Kind.F32, 8.0)),
    )
    return File(entries, tuple(parts))

"""Adapters, sound and wrong in every way that is known to matter, by name."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
from tests.compiler.raw_gguf import File, Part, array, good, number, pair, part, text

from skillc_compiler.gguf_types import Kind

UP, DOWN = "blk.0.ffn_up.weight", "blk.1.ffn_down.weight"
UP_SHAPE, DOWN_SHAPE = (96, 64), (64, 96)
ALPHA = "adapter.lora.alpha"
ALORA = "adapter.alora.invocation_tokens"


def sound(dtype: int = 0, rank: int = 4) -> File:
    return good([*pair(UP, UP_SHAPE, rank, dtype), *pair(DOWN, DOWN_SHAPE, rank, dtype)])


def with_parts(*parts: Part) -> File:
    return good([*pair(UP, UP_SHAPE), *parts])


def spoiled(value: float, dtype: int, half: int) -> File:
    """A pair with one bad value; in Q8_0 it is a block's scale."""
    file = sound(dtype, 32)
    victim = file.parts[half]
    kind = {0: "<f4", 1: "<f2", 8: "<f2", 30: "<u2"}[dtype]
    with np.errstate(over="ignore"):
        raw = np.array(value, kind if dtype != 30 else "<f4").tobytes()
    raw = raw[2:] if dtype == 30 else raw
    parts = list(file.parts)
    parts[half] = replace(victim, data=raw + victim.data[len(raw) :])
    return replace(file, parts=tuple(parts))


def zeros() -> File:
    return good([replace(p, data=bytes(len(p.data))) for p in pair(UP, UP_SHAPE)])


def zero_b() -> File:
    a, b = pair(UP, UP_SHAPE)
    return good([a, replace(b, data=bytes(len(b.data)))])


def disjoint() -> File:
    """No rank component is alive in both factors."""
    a, b = np.ones((2, 64), np.float32), np.ones((96, 2), np.float32)
    a[0], b[:, 1] = 0, 0
    return good([part(f"{UP}.lora_a", a), part(f"{UP}.lora_b", b)])


def of_type(dtype: int, size: int) -> list[Part]:
    """A pair in an integer or double type."""
    return [
        replace(p, dtype=dtype, data=bytes(len(p.data) // 4 * size)) for p in pair(DOWN, DOWN_SHAPE)
    ]


def three_dimensional(half: int) -> list[Part]:
    parts = pair(DOWN, DOWN_SHAPE)
    victim = parts[half]
    parts[half] = replace(victim, dims=(*victim.dims, 2), data=victim.data * 2)
    return parts


def token_embedding(rank_a: int, rank_b: int) -> list[Part]:
    a, b = np.ones((520, rank_a), np.float32), np.ones((64, rank_b), np.float32)
    return [part("token_embd.weight.lora_a", a), part("token_embd.weight.lora_b", b)]


def matrix_pair(name: str, a: tuple[int, int], b: tuple[int, int]) -> list[Part]:
    values = np.ones(a, np.float32), np.ones(b, np.float32)
    return [part(f"{name}.lora_{half}", v) for half, v in zip("ab", values, strict=True)]


def renamed(name: str | bytes) -> File:
    parts = sound().parts
    return replace(sound(), parts=(replace(parts[0], name=name), *parts[1:]))


def entry(key: str | bytes, value: bytes) -> File:
    return replace(sound(), entries=(*sound().entries, (key, value)))


# Each of these kills the process when llama.cpp loads it or decodes with it.
DEADLY = {
    **{f"alpha {k.name}": sound().put(ALPHA, number(k, 8)) for k in (Kind.U32, Kind.I32, Kind.F64)},
    "alpha string": sound().put(ALPHA, text("8")),
    "type array": sound().put("general.type", array(Kind.STRING, 0)),
    "type number": sound().put("general.type", number(Kind.U32, 1)),
    "architecture number": sound().put("general.architecture", number(Kind.U32, 1)),
    "adapter type number": sound().put("adapter.type", number(Kind.U32, 1)),
    "a of three dimensions": with_parts(*three_dimensional(0)),
    "b of three dimensions": with_parts(*three_dimensional(1)),
    "rank 0 beside a good pair": with_parts(
        Part(f"{DOWN}.lora_a", (96, 0), 0, b""), Part(f"{DOWN}.lora_b", (0, 64), 0, b"")
    ),
    **{
        f"type {dtype}": with_parts(*of_type(dtype, size))
        for dtype, size in ((24, 1), (25, 2), (26, 4), (27, 8), (28, 8))
    },
    "token_embd of one rank": with_parts(*token_embedding(4, 4)),
    "token_embd of two ranks": with_parts(*token_embedding(4, 8)),
}
# Each of these loads and gives NaN, or something other than the adapter that was meant.
SILENT = {
    "alpha array": sound().put(ALPHA, array(Kind.F32, 1, struct.pack("<f", 8))),
    "alpha missing": sound().put(ALPHA, None),
    **{f"alpha {a}": sound().put(ALPHA, number(Kind.F32, a)) for a in (-8.0, 2e4)},
    **{f"alpha {a}": sound().put(ALPHA, number(Kind.F32, float(a))) for a in ("nan", "inf")},
    **{
        f"{value} in {half} of type {dtype}": spoiled(float(value), dtype, half)
        for value in ("nan", "inf", "-inf", "3e4")
        for dtype in (0, 1, 8, 30)
        for half in (0, 1)
    },
    "1e30": spoiled(1e30, 0, 0),
    "2e3 in f16": spoiled(2e3, 1, 0),
    "zeros": zeros(),
    "zero b": zero_b(),
    "disjoint": disjoint(),
    "norm": with_parts(*matrix_pair("blk.0.attn_norm.weight", (4, 64), (64, 4))),
    "norm of any shape": with_parts(*matrix_pair("output_norm.weight", (4, 7), (9, 4))),
    "another base": sound().put("skillc.base_hash", text("0" * 64)),
}
# Each of these llama.cpp refuses itself; ours must, without a hang.
REFUSED = {
    "alora strings": sound().put(ALORA, array(Kind.STRING, 0)),
    "alora i32": sound().put(ALORA, array(Kind.I32, 1, bytes(4))),
    "alora scalar": sound().put(ALORA, number(Kind.U32, 1)),
    "task name number": sound().put("adapter.lora.task_name", number(Kind.U32, 1)),
    "architecture": sound().put("general.architecture", text("llama")),
    "architecture missing": sound().put("general.architecture", None),
    "model": sound().put("general.type", text("model")),
    "type with NUL": sound().put("general.type", text("adapter\0")),
    "control vector": sound().put("adapter.type", text("control_vector")),
    "no entries": replace(sound(), entries=()),
    "no tensors": good([]),
    "half": good(pair(UP, UP_SHAPE)[:1]),
    "other half": good(pair(UP, UP_SHAPE)[1:]),
    "shape": with_parts(*matrix_pair(DOWN, (4, 97), (64, 4))),
    "out": with_parts(*matrix_pair(DOWN, (4, 96), (65, 4))),
    "ranks differ": with_parts(*matrix_pair(DOWN, (4, 96), (64, 5))),
    "transposed": with_parts(*matrix_pair(DOWN, (96, 4), (4, 64))),
    "rank 257": with_parts(*matrix_pair(DOWN, (257, 96), (64, 257))),
    "unknown tensor": with_parts(*matrix_pair("blk.2.ffn_up.weight", (4, 64), (96, 4))),
    "output of a tied base": with_parts(*matrix_pair("output.weight", (4, 64), (520, 4))),
    "suffix": renamed(f"{UP}.lora_c"),
    "bare name": renamed("lora_a"),
    "long name": renamed("x" * 57 + ".lora_a"),
    "empty name": renamed(""),
    "name with NUL": renamed(f"{UP}.lora_a\0"),
    "name twice": renamed(f"{UP}.lora_b"),
    "magic": replace(sound(), magic=b"FUGG"),
    **{f"version {v}": replace(sound(), version=v) for v in (0, 1, 2, 99, 3 << 24)},
    "big-endian": replace(sound(), order=">"),
    "more tensors than the file": replace(sound(), n_tensors=5),
    "huge tensors": replace(sound(), n_tensors=1 << 62),
    "negative tensors": replace(sound(), n_tensors=(1 << 64) - 1),
    "huge entries": replace(sound(), n_entries=1 << 62),
    "257 entries": replace(
        sound(), entries=tuple((f"k{i}", number(Kind.U8, 1)) for i in range(257))
    ),
    "huge string": entry("x", struct.pack("<IQ", Kind.STRING, 1 << 60)),
    "string of 65 KiB": entry("x", text("y" * (65 * 1024))),
    "string not UTF-8": entry("x", struct.pack("<IQ", Kind.STRING, 2) + b"\xff\xfe"),
    **{
        f"array of {count} {item.name}": entry("x", array(item, count))
        for item in (Kind.U8, Kind.BOOL, Kind.STRING, Kind.F64)
        for count in (1 << 40, 1 << 61, (1 << 64) - 1)
    },
    "array of a huge string": entry("x", array(Kind.STRING, 1, struct.pack("<Q", 1 << 63))),
    "too many strings": entry("x", array(Kind.STRING, 5000, bytes(8 * 5000))),
    "nested array": entry("x", array(Kind.ARRAY, 1, struct.pack("<IQ", Kind.U8, 0))),
    "unknown item type": entry("x", array(13, 0)),
    "unknown entry type": entry("x", struct.pack("<I", 13) + bytes(8)),
    "key twice": entry("general.type", text("adapter")),
    "key with NUL": entry("adapter.lora.alpha\0", number(Kind.U32, 8)),
    "long key": entry("x" * 257, number(Kind.U32, 8)),
    "long type": sound().put("general.type", text("\n" * 60_000)),
    "empty key": entry("", number(Kind.U32, 8)),
    "key not ASCII": entry("\u00e9", number(Kind.U32, 8)),
    **{
        f"alignment {a}": sound().put("general.alignment", number(Kind.U32, a))
        for a in (0, 3, 1 << 31)
    },
    "alignment string": sound().put("general.alignment", text("32")),
    "alignment U64": sound().put("general.alignment", number(Kind.U64, 32)),
    "offset": with_parts(*[replace(p, offset=64) for p in pair(DOWN, DOWN_SHAPE)]),
    "huge offset": with_parts(*[replace(p, offset=1 << 63) for p in pair(DOWN, DOWN_SHAPE)]),
    "huge dims": with_parts(Part(f"{DOWN}.lora_a", (1 << 62, 1 << 62), 0, b"")),
    "wrapping dims": with_parts(Part(f"{DOWN}.lora_a", (1 << 32, 1 << 32), 0, b"")),
    "no dims": with_parts(Part(f"{DOWN}.lora_a", (), 0, bytes(4))),
    "five dims": with_parts(Part(f"{DOWN}.lora_a", (96, 4, 1, 1, 1), 0, bytes(4 * 96 * 4))),
    "huge number of dims": with_parts(Part(f"{DOWN}.lora_a", (1,) * 999, 0, bytes(4))),
    "narrow q8_0": with_parts(Part(f"{DOWN}.lora_a", (48, 4), 8, bytes(34 * 6))),
    "type 4": with_parts(*of_type(4, 4)),
    "type 2^31": with_parts(*of_type(1 << 31, 4)),
    "q4_0": with_parts(
        Part(f"{DOWN}.lora_a", (96, 32), 2, bytes(18 * 3 * 32)),
        Part(f"{DOWN}.lora_b", (32, 64), 2, bytes(18 * 64)),
    ),
}

SOUND = {
    "f32": sound(0),
    "f16": sound(1),
    "bf16": sound(30),
    "q8_0": sound(8, 32),
    "alpha 0": sound().put(ALPHA, number(Kind.F32, 0.0)),
    "rank 1": sound(0, 1),
    "rank 256": sound(1, 256),
    "ranks 4 and 9": good([*pair(UP, UP_SHAPE, 4), *pair(DOWN, DOWN_SHAPE, 9)]),
    "mixed types": good([*pair(UP, UP_SHAPE, 32, 8), *pair(DOWN, DOWN_SHAPE, 32, 30)]),
    "alora": sound().put(ALORA, array(Kind.U32, 2, struct.pack("<II", 1, 519))),
    "more entries": entry("general.tags", array(Kind.STRING, 2, bytes(16))),
    "alignment 64": replace(sound().put("general.alignment", number(Kind.U32, 64)), alignment=64),
    "trailing bytes": sound(),
}

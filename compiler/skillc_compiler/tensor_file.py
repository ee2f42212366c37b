"""Safetensors bytes: written in one fixed order, read through the library's checked parser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]


def encode_tensors(tensors: Mapping[str, Matrix], metadata: Mapping[str, str]) -> bytes:
    """The safetensors file of these float32 arrays; equal input gives equal bytes.

    The library keeps its metadata in a hash map, whose order changes from process to process.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    chunks = []
    offset = 0
    for name in sorted(tensors):
        data = tensors[name].astype("<f4", copy=False).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def decode_tensors(data: bytes, where: str) -> tuple[dict[str, Matrix], dict[str, str]]:
    """The arrays (F32, F16 or BF16, returned as float32) and metadata of a safetensors file.

    Raises AdapterError, which starts with `where`.
    """
    import safetensors

    parse: Any = safetensors.deserialize
    try:
        tensors = {name: _to_float32(info, name) for name, info in parse(data)}
    except (safetensors.SafetensorError, ValueError) as error:
        raise AdapterError(f"{where}: not a usable safetensors file ({error})") from error
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return tensors, metadata


def _to_float32(info: Mapping[str, Any], name: str) -> Matrix:
    import numpy as np

    raw, shape = info["data"], info["shape"]
    if info["dtype"] in ("F32", "F16"):
        kind = "<f4" if info["dtype"] == "F32" else "<f2"
        return np.frombuffer(raw, kind).reshape(shape).astype(np.float32)
    if info["dtype"] == "BF16":
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(shape)
    raise ValueError(f"tensor {name} is {info['dtype']}, not F32, F16 or BF16")

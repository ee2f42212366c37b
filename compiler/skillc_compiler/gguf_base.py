"""Base models as GGUF files: what a base is, and reading it back for the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler import arch as architectures
from skillc_compiler.arch import Architecture, in_layer
from skillc_compiler.arch.architecture import INVERSE_FREQUENCIES
from skillc_compiler.errors import BaseModelError
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_header import Header, TensorInfo, read_header
from skillc_compiler.gguf_names import ARCHITECTURES
from skillc_compiler.gguf_tokenizer import read_tokenizer
from skillc_compiler.gguf_types import Array, DType, GgufError, Kind
from skillc_compiler.gguf_write import write_base_gguf

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Weights = npt.NDArray[np.float32]

__all__ = [
    "BaseInfo",
    "base_config",
    "read_base_info",
    "read_base_weights",
    "read_tokenizer",
    "tensor_values",
    "write_base_gguf",
]


@dataclass(frozen=True, slots=True)
class BaseInfo:
    """What the rest of skillc needs to know of a base, read from its header alone.

    `hash` is the SHA-256 of the file, `tensors` maps GGUF names to shapes in numpy order, and
    `metadata` holds the header's scalar entries (str, int, float, bool).
    """

    name: str
    path: Path
    arch: str
    hash: str
    n_layers: int
    hidden: int
    context_length: int
    tensors: Mapping[str, tuple[int, ...]]
    chat_template: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tied(self) -> bool:
        """Whether the output layer is the token embedding."""
        return "output.weight" not in self.tensors

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return self.tensors["token_embd.weight"][0]


def read_base_info(path: Path) -> BaseInfo:
    """Read a base's header and hash. Raises BaseModelError with the path in its one line."""
    header = _header(path)
    try:
        if header.get("general.type", Kind.STRING) not in (None, "model"):
            raise GgufError("not a model (general.type)")
        arch = header.need("general.architecture", Kind.STRING)
        if "token_embd.weight" not in header.tensors:
            raise GgufError("token_embd.weight is missing")
        return BaseInfo(
            name=header.get("general.name", Kind.STRING) or path.stem,
            path=path,
            arch=arch,
            hash=file_sha256(path),
            n_layers=header.need(f"{arch}.block_count", Kind.U32),
            hidden=header.need(f"{arch}.embedding_length", Kind.U32),
            context_length=header.need(f"{arch}.context_length", Kind.U32),
            tensors={name: info.shape for name, info in header.tensors.items()},
            chat_template=header.get("tokenizer.chat_template", Kind.STRING),
            metadata=scalars(header),
        )
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error


def read_base_weights(path: Path) -> tuple[dict[str, Any], dict[str, Weights]]:
    """The base as transformers has it: its configuration, and float32 weights.

    Weights are dequantised and keyed by Hugging Face parameter name; `lm_head.weight` only exists
    when it is not tied. Scaled rope frequencies come as `model.rotary_emb.inv_freq`. Raises
    BaseModelError.
    """
    header = _header(path)
    try:
        arch, config = base_config(header)
        by_tensor = {t: p for p, t in arch.parameters(config["num_hidden_layers"]).items()}
        weights = {}
        with path.open("rb") as file:
            for name, info in header.tensors.items():
                if name not in by_tensor:
                    raise GgufError(f"tensor {name} has no place in {config['architectures'][0]}")
                file.seek(info.offset)
                values = tensor_values(info, file.read(info.size))
                weights[by_tensor[name]] = restored(arch, by_tensor[name], values, header)
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error
    return config, weights


def restored(arch: Architecture, parameter: str, values: Weights, header: Header) -> Weights:
    """A tensor's values as the Hugging Face parameter has them: inverse of writing it."""
    import numpy as np

    if parameter == INVERSE_FREQUENCIES:
        width = 2 * values.shape[0]
        theta = arch.real(header, "rope.freq_base", 10000.0)
        plain = 1.0 / theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
        slowed: Weights = (plain / values).astype(np.float32)
        return slowed
    inner, meta = in_layer(parameter), scalars(header)
    values = arch.decode(inner, values)
    for axis, order in ((0, arch.rows(inner, meta)), (1, arch.columns(inner, meta))):
        if order is not None:
            values = values.take(np.argsort(order), axis)
    return values.reshape(arch.original_shape(inner, values.shape))


def base_config(header: Header) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a base's header and its Hugging Face configuration. Raises GgufError."""
    name = header.need("general.architecture", Kind.STRING)
    arch = architectures.by_name(name)
    if arch is None:
        raise GgufError(f"architecture {name} is not supported; {', '.join(ARCHITECTURES)} are")
    if "token_embd.weight" not in header.tensors:
        raise GgufError("token_embd.weight is missing")
    tokens = {
        f"{name}_token_id": header.get(f"tokenizer.ggml.{key}_token_id", Kind.U32)
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return arch, {**arch.hf_config(header), **tokens}


def scalars(header: Header) -> dict[str, Any]:
    """The header's entries that are no arrays."""
    return {
        k: entry.value for k, entry in header.fields.items() if not isinstance(entry.value, Array)
    }


def tensor_values(info: TensorInfo, data: bytes) -> Weights:
    """Decode a tensor's bytes to float32 in numpy order. Raises GgufError for integer types."""
    import numpy as np

    if len(data) != info.size:
        raise GgufError(f"tensor {info.name} is cut off")
    if info.dtype in (DType.F32, DType.F16):
        kind = "<f4" if info.dtype is DType.F32 else "<f2"
        return np.frombuffer(data, kind).reshape(info.shape).astype(np.float32)
    if info.dtype in (DType.I8, DType.I16, DType.I32, DType.I64, DType.F64):
        raise GgufError(f"tensor {info.name} is {info.dtype.name}")
    if info.dtype is DType.Q8_0:
        # What served adapters are in: quicker than the general way below, and the same.
        blocks = np.frombuffer(data, [("scale", "<f2"), ("values", "i1", 32)])
        scaled = blocks["values"] * blocks["scale"].astype(np.float32)[:, None]
        return scaled.reshape(info.shape)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rows = np.frombuffer(data, np.uint8).reshape(*info.shape[:-1], -1)
    values: Weights = dequantize(rows, GGMLQuantizationType(int(info.dtype)))
    return values


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except OSError as error:
        raise BaseModelError(f"{path}: cannot be read ({error.strerror})") from error
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error

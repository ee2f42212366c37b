"""Base models as GGUF files: what a base is, and reading it back for the compiler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import BaseModelError
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_header import Header, TensorInfo, read_header
from skillc_compiler.gguf_names import ARCHITECTURES, tensor_names
from skillc_compiler.gguf_tokenizer import read_tokenizer
from skillc_compiler.gguf_types import Array, DType, GgufError, Kind
from skillc_compiler.gguf_write import write_base_gguf

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Weights = npt.NDArray[np.float32]

__all__ = [
    "BaseInfo",
    "read_base_info",
    "read_base_weights",
    "read_tokenizer",
    "tensor_values",
    "write_base_gguf",
]

# Keys under "<arch>." that change the computation and that `read_base_weights` does not translate.
_UNSUPPORTED = ("rope.scaling.type", "attention.sliding_window", "expert_count")


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
            metadata={
                key: entry.value
                for key, entry in header.fields.items()
                if not isinstance(entry.value, Array)
            },
        )
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error


def read_base_weights(path: Path) -> tuple[dict[str, Any], dict[str, Weights]]:
    """The base as transformers has it: keyword arguments of Qwen3Config, and float32 weights.

    Weights are dequantised and keyed by Hugging Face parameter name; `lm_head.weight` only exists
    when it is not tied. Raises BaseModelError.
    """
    header = _header(path)
    try:
        config = _hf_config(header)
        by_tensor = {
            tensor: f"{module}.weight"
            for module, tensor in tensor_names("qwen3", config["num_hidden_layers"]).items()
        }
        weights = {}
        with path.open("rb") as file:
            for name, info in header.tensors.items():
                if name not in by_tensor:
                    raise GgufError(f"tensor {name} has no place in {config['architectures'][0]}")
                file.seek(info.offset)
                weights[by_tensor[name]] = tensor_values(info, file.read(info.size))
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error
    return config, weights


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


def _hf_config(header: Header) -> dict[str, Any]:
    arch = header.need("general.architecture", Kind.STRING)
    if arch not in ARCHITECTURES:
        raise GgufError(f"architecture {arch} is not supported; {', '.join(ARCHITECTURES)} is")
    for key in _UNSUPPORTED:
        if header.fields.get(f"{arch}.{key}") and header.fields[f"{arch}.{key}"].value != "none":
            raise GgufError(f"{arch}.{key} is not supported")

    def number(key: str) -> int:
        return int(header.need(f"{arch}.{key}", Kind.U32))

    def real(key: str) -> float:
        return _shortest(header.need(f"{arch}.{key}", Kind.F32))

    tokens = {
        f"{name}_token_id": header.get(f"tokenizer.ggml.{key}_token_id", Kind.U32)
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    if "token_embd.weight" not in header.tensors:
        raise GgufError("token_embd.weight is missing")
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": number("attention.key_length"),
        "hidden_act": "silu",
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "num_attention_heads": number("attention.head_count"),
        "num_hidden_layers": number("block_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "rms_norm_eps": real("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_theta": real("rope.freq_base"), "rope_type": "default"},
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        **tokens,
    }


def _shortest(value: float) -> float:
    """The shortest decimal that is this float32: 1e-06 and not 9.999999974752427e-07."""
    import numpy as np

    if not math.isfinite(value):
        raise GgufError(f"a header entry is {value}")
    return float(str(np.float32(value)))

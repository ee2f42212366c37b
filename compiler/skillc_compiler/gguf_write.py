"""Writing a base model as the GGUF file that llama.cpp runs and the compiler reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler import arch as architectures
from skillc_compiler.arch import Architecture, in_layer
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_encode import DTYPES, Planned, encode_tensor, stream_gguf
from skillc_compiler.gguf_tokenizer import tokenizer_fields
from skillc_compiler.gguf_types import BLOCKS, DType, Field, GgufError, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = npt.NDArray[np.float32]

# llama.cpp's LLAMA_FTYPE numbers; informational.
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
_QUANTIZATION_VERSION = 2
# Values of a tensor that are in memory as float32 at a time.
_PIECE = 1 << 24


def write_base_gguf(
    path: Path,
    config: Mapping[str, Any],
    state: Mapping[str, npt.NDArray[Any]],
    tokenizer_json: str | Mapping[str, Any],
    chat_template: str,
    *,
    dtype: str = "f16",
    name: str = "nano",
) -> None:
    """Write a base as GGUF; equal input gives equal bytes, `path` is replaced whole.

    `config` is the Hugging Face configuration, `state` its parameters by name (uint16 stands for
    bfloat16), looked up one by one. Matrices are stored as `dtype` ("f32", "f16", "q8_0"; rows
    that are no multiple of 32 stay f16), vectors as f32. Raises BaseModelError for a configuration,
    tokenizer or state that does not fit.
    """
    if dtype not in DTYPES:
        raise BaseModelError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    arch = architectures.of_config(config)
    checked = arch.config(config)
    fields = _general_fields(arch, dtype, name) | arch.fields(checked)
    specials = {
        "bos": _first_id(config.get("bos_token_id")),
        "eos": _first_id(config.get("eos_token_id")),
        "padding": _first_id(config.get("pad_token_id")),
    }
    fields.update(tokenizer_fields(tokenizer_json, checked["vocab_size"], specials))
    if chat_template:
        fields["tokenizer.chat_template"] = Field(Kind.STRING, chat_template)
    try:
        pieces = stream_gguf(fields, _tensors(arch, checked, fields, state, DTYPES[dtype]))
        write_whole(path, pieces)
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every parameter of the model with this configuration: name -> shape."""
    arch = architectures.of_config(config)
    return arch.shapes(arch.config(config))


def to_float32(values: npt.NDArray[Any]) -> Values:
    """`values` as float32; uint16 holds the bits of bfloat16."""
    import numpy as np

    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.asarray(values, np.float32)


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file piece by piece; readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(pieces)
        temporary.replace(path)
    except OSError as error:
        raise BaseModelError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _general_fields(arch: Architecture, dtype: str, name: str) -> dict[str, Field]:
    fields = {
        "general.architecture": Field(Kind.STRING, arch.name),
        "general.type": Field(Kind.STRING, "model"),
        "general.name": Field(Kind.STRING, name),
        "general.file_type": Field(Kind.U32, _FILE_TYPES[dtype]),
    }
    if dtype == "q8_0":
        fields["general.quantization_version"] = Field(Kind.U32, _QUANTIZATION_VERSION)
    return fields


def _tensors(
    arch: Architecture,
    config: Mapping[str, Any],
    fields: Mapping[str, Field],
    state: Mapping[str, npt.NDArray[Any]],
    dtype: DType,
) -> list[Planned]:
    shapes = arch.shapes(config)
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    for wrong, what in ((shapes.keys() - state.keys(), "lacks"), (state.keys() - shapes, "has")):
        if wrong - tied:
            raise BaseModelError(f"the state {what} the parameter {min(wrong - tied)}")
    meta = {key: field.value for key, field in fields.items()}

    def planned(parameter: str, tensor: str) -> Planned:
        shape, kind = shapes[parameter], _storage(shapes[parameter], dtype)
        stored = arch.stored_shape(in_layer(parameter), shape)
        if in_layer(parameter) in arch.exact:
            kind = DType.F32

        def pieces() -> Iterator[bytes]:
            value = state[parameter]
            if value.shape != shape:
                raise BaseModelError(f"{parameter} has the shape {value.shape}, not {shape}")
            yield from encoded_pieces(tensor, arranged(arch, parameter, value, meta), kind, encode)

        def encode(values: Values) -> Values:
            return arch.encode(in_layer(parameter), values)

        return Planned(tensor, stored, kind, pieces)

    names = arch.parameters(config["num_hidden_layers"])
    plan = [planned(p, tensor) for p, tensor in names.items() if p in shapes]
    for tensor, values in arch.extra_tensors(config).items():
        plan.append(_whole(tensor, values))
    return plan


def _whole(tensor: str, values: Values) -> Planned:
    return Planned(
        tensor, values.shape, DType.F32, lambda: [encode_tensor(tensor, values, DType.F32).data]
    )


def arranged(
    arch: Architecture, parameter: str, value: npt.NDArray[Any], meta: Mapping[str, Any]
) -> npt.NDArray[Any]:
    """A parameter with its rows and columns in the GGUF's order, in its own type."""
    value = value.reshape(arch.stored_shape(in_layer(parameter), value.shape))
    rows = arch.rows(in_layer(parameter), meta)
    columns = arch.columns(in_layer(parameter), meta)
    value = value if rows is None else value[rows]
    return value if columns is None else value[:, columns]


def encoded_pieces(
    tensor: str, value: npt.NDArray[Any], dtype: DType, change: Callable[[Values], Values]
) -> Iterator[bytes]:
    """A tensor's bytes, some rows at a time: as float32, through `change`, encoded."""
    step = max(1, _PIECE // max(1, value.size // len(value)))
    for start in range(0, len(value), step):
        rows = change(to_float32(value[start : start + step]))
        yield encode_tensor(tensor, rows, dtype).data


def _storage(shape: tuple[int, ...], dtype: DType) -> DType:
    if len(shape) != 2:
        return DType.F32
    return dtype if shape[-1] % BLOCKS[dtype][0] == 0 else DType.F16


def _first_id(value: int | list[int] | None) -> int | None:
    return value[0] if isinstance(value, list) else value

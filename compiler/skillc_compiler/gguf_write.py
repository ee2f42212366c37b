"""Writing a base model as the GGUF file that llama.cpp runs and the compiler reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_encode import DTYPES, Tensor, encode_gguf, encode_tensor
from skillc_compiler.gguf_names import tensor_names
from skillc_compiler.gguf_tokenizer import tokenizer_fields
from skillc_compiler.gguf_types import BLOCKS, DType, Field, GgufError, Kind

if TYPE_CHECKING:
    import numpy.typing as npt

# llama.cpp's LLAMA_FTYPE numbers; informational.
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
_QUANTIZATION_VERSION = 2


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
    """Write a Qwen3ForCausalLM as GGUF; equal input gives equal bytes, `path` is replaced whole.

    `config` is the Hugging Face configuration, `state` its parameters by name. Matrices are stored
    as `dtype` ("f32", "f16", "q8_0"; rows that are no multiple of 32 stay f16), vectors as f32.
    Raises BaseModelError for a configuration, tokenizer or state that does not fit.
    """
    if dtype not in DTYPES:
        raise BaseModelError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    _check_config(config)
    fields = _model_fields(config, dtype, name)
    specials = {
        "bos": _first_id(config.get("bos_token_id")),
        "eos": _first_id(config.get("eos_token_id")),
        "padding": _first_id(config.get("pad_token_id")),
    }
    fields.update(tokenizer_fields(tokenizer_json, config["vocab_size"], specials))
    fields["tokenizer.chat_template"] = Field(Kind.STRING, chat_template)
    try:
        pieces = encode_gguf(fields, _tensors(config, state, DTYPES[dtype]))
        _write_whole(path, b"".join(pieces))
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every parameter of a Qwen3ForCausalLM with this configuration: name -> shape."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = _head_dim(config)
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    layer = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        for module, shape in layer.items():
            shapes[f"model.layers.{i}.{module}.weight"] = shape
    return shapes


def _check_config(config: Mapping[str, Any]) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for good, what in (
        (config.get("model_type", "qwen3") == "qwen3", "model_type must be qwen3"),
        (config.get("hidden_act", "silu") == "silu", "hidden_act must be silu"),
        (not config.get("attention_bias"), "attention_bias is not supported"),
        (not config.get("use_sliding_window"), "use_sliding_window is not supported"),
        (rope.get("rope_type", "default") == "default", "scaled rope is not supported"),
    ):
        if not good:
            raise BaseModelError(f"base configuration: {what}")


def _model_fields(config: Mapping[str, Any], dtype: str, name: str) -> dict[str, Field]:
    rope = config.get("rope_parameters") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    head = _head_dim(config)
    numbers = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head,
        "attention.value_length": head,
    }
    fields = {
        "general.architecture": Field(Kind.STRING, "qwen3"),
        "general.type": Field(Kind.STRING, "model"),
        "general.name": Field(Kind.STRING, name),
        "general.file_type": Field(Kind.U32, _FILE_TYPES[dtype]),
    }
    if dtype == "q8_0":
        fields["general.quantization_version"] = Field(Kind.U32, _QUANTIZATION_VERSION)
    fields.update({f"qwen3.{key}": Field(Kind.U32, int(n)) for key, n in numbers.items()})
    eps = float(config.get("rms_norm_eps", 1e-6))
    fields["qwen3.attention.layer_norm_rms_epsilon"] = Field(Kind.F32, eps)
    fields["qwen3.rope.freq_base"] = Field(Kind.F32, float(theta))
    return fields


def _tensors(
    config: Mapping[str, Any], state: Mapping[str, npt.NDArray[Any]], dtype: DType
) -> list[Tensor]:
    import numpy as np

    shapes = parameter_shapes(config)
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    for wrong, what in ((shapes.keys() - state.keys(), "lacks"), (state.keys() - shapes, "has")):
        if wrong - tied:
            raise BaseModelError(f"the state {what} the parameter {min(wrong - tied)}")
    tensors = []
    for module, name in tensor_names("qwen3", config["num_hidden_layers"]).items():
        shape = shapes.get(f"{module}.weight")
        if shape is None:
            continue
        value = np.asarray(state[f"{module}.weight"], np.float32)
        if value.shape != shape:
            raise BaseModelError(f"{module}.weight has the shape {value.shape}, not {shape}")
        tensors.append(encode_tensor(name, value, _storage(shape, dtype)))
    return tensors


def _storage(shape: tuple[int, ...], dtype: DType) -> DType:
    if len(shape) == 1:
        return DType.F32
    return dtype if shape[-1] % BLOCKS[dtype][0] == 0 else DType.F16


def _head_dim(config: Mapping[str, Any]) -> int:
    own = config.get("head_dim")
    return int(own if own else config["hidden_size"] // config["num_attention_heads"])


def _first_id(value: int | list[int] | None) -> int | None:
    return value[0] if isinstance(value, list) else value


def _write_whole(path: Path, data: bytes) -> None:
    """Readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BaseModelError(f"{path}: cannot be written ({error.strerror})") from error

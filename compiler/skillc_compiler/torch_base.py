"""A base as a transformers model: from its Hugging Face folder, or from its GGUF alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler import arch as architectures
from skillc_compiler.arch.architecture import INVERSE_FREQUENCIES
from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.gguf_base import read_base_weights, read_tokenizer
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_types import GgufError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZED = ("4bit", "8bit")
LAYERS = ("auto", "memory", "disk")
# Of the memory that is free, what the weights may take before they stay on the disk.
_SHARE = 0.6
_TEXT_OF_IMAGE_MODELS = {r"^(model\.)?language_model\.(model\.)?": "model."}


def load_base(base: Base, options: Mapping[str, Any] | None = None) -> tuple[Any, Tokenizer]:
    """The base's causal language model (eval mode) and its tokenizer.

    From the Hugging Face folder when the base has one, with `options` over those it was added with
    (`dtype`, `device_map`, `quantize`); from the GGUF otherwise, then float32 on the CPU. Raises
    BaseModelError, and CompilerError without torch and transformers.
    """
    if base.hf is None:
        return load_torch_base(base.gguf)
    chosen = {**base.load, **(options or {})}
    chosen.pop("layers", None)
    return load_hf(base.hf, **chosen), read_tokenizer(base.gguf)


def load_frozen(base: Base) -> tuple[Any, Tokenizer]:
    """As `load_base`, without gradients for its weights: a large base's layers stay on the disk.

    `base.load["layers"]` says where they are to be: "memory", "disk", or (the default) "auto".
    """
    if stays_on_disk(base):
        _transformers()
        from skillc_compiler.streamed import load_streamed

        return load_streamed(base, float_type(base))
    model, tokenizer = load_base(base)
    _recompute_offloaded(model)
    return model.requires_grad_(False), tokenizer


def float_type(base: Base) -> str:
    """The type in which the base's weights are read one by one."""
    dtype = str(base.load.get("dtype", "float32"))
    return "float32" if dtype == "auto" else dtype


def _recompute_offloaded(model: Any) -> None:
    """Layers that a device map leaves on the disk: none waits in memory for a backward pass."""
    from skillc_compiler.recompute import recompute

    if "disk" in (getattr(model, "hf_device_map", None) or {}).values():
        for layer in model.base_model.layers:
            recompute(layer)


def stays_on_disk(base: Base) -> bool:
    """Whether the base is read layer by layer: if asked for, or if memory is short otherwise."""
    where = base.load.get("layers", "auto")
    if where != "auto":
        return bool(where == "disk")
    if base.load.get("device_map") or base.load.get("quantize"):
        return False
    size = 2 if base.load.get("dtype") in ("bfloat16", "float16") else 4
    free = available_memory()
    return free is not None and size * _weights(base.gguf) > _SHARE * free


def available_memory() -> int | None:
    """Bytes that programs can still get, where the system says."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        (found,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(found) << 10
    except (OSError, ValueError):
        return None


def _weights(gguf: Path) -> int:
    """How many weights a GGUF has."""
    try:
        tensors = read_header(gguf).tensors.values()
    except (OSError, GgufError) as error:
        raise BaseModelError(f"{gguf}: {error}") from error
    return sum(math.prod(info.shape) for info in tensors)


def text_model(source: Path | Mapping[str, Any]) -> tuple[Any, Any]:
    """The class of a causal language model and its configuration: of a folder, or of a table."""
    transformers = _transformers()
    if not isinstance(source, Path):
        causal = getattr(transformers, source["architectures"][0])
        return causal, causal.config_class(**{**source, "dtype": "float32"})
    config = transformers.AutoConfig.from_pretrained(source)
    arch = architectures.of_config({"model_type": config.model_type})
    return getattr(transformers, arch.causal), getattr(config, "text_config", None) or config


def load_hf(
    folder: Path,
    *,
    dtype: str = "float32",
    device_map: str | dict[str, str] | None = None,
    quantize: str | None = None,
) -> Any:
    """The causal language model in a Hugging Face folder, in eval mode.

    `dtype` is one of DTYPES, `quantize` one of QUANTIZED (needs bitsandbytes), `device_map` as
    transformers takes it (needs accelerate). Raises BaseModelError or CompilerError.
    """
    transformers = _transformers()
    config = transformers.AutoConfig.from_pretrained(folder)
    chosen: dict[str, Any] = {"dtype": dtype if dtype == "auto" else _torch_dtype(dtype)}
    if device_map:
        chosen["device_map"] = device_map
    if quantize:
        wanted = {f"load_in_{quantize}": True}
        chosen["quantization_config"] = transformers.BitsAndBytesConfig(**wanted)
    loader: Any = transformers.AutoModelForCausalLM
    if getattr(config, "text_config", None) is not None:
        arch = architectures.of_config({"model_type": config.model_type})
        loader, config = getattr(transformers, arch.causal), config.text_config
        chosen["key_mapping"] = _TEXT_OF_IMAGE_MODELS
    try:
        model = loader.from_pretrained(folder, config=config, **chosen)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise CompilerError(f"{folder}: cannot be loaded this way: {reason[:200]}") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BaseModelError(f"{folder}: cannot be loaded: {reason[:200]}") from error
    return model.eval()


def load_torch_base(gguf: Path) -> tuple[Any, Tokenizer]:
    """The base's causal language model (float32, eval mode, CPU) and its tokenizer, from its GGUF.

    Nothing is frozen: callers choose what to train. Raises BaseModelError for a
    file that is not such a base, CompilerError without torch and transformers.
    """
    _transformers()
    import torch
    from transformers.initialization import no_init_weights

    config, weights = read_base_weights(gguf)
    causal, own = text_model(config)
    with no_init_weights():
        model = causal(own)
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    frequencies = state.pop(INVERSE_FREQUENCIES, None)
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BaseModelError(f"{gguf}: weights do not fit the configuration: {reason}") from error
    model.tie_weights()
    if frequencies is not None:
        model.model.rotary_emb.inv_freq = frequencies
    return model.eval(), read_tokenizer(gguf)


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _transformers() -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise CompilerError(
            f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
        ) from error
    assert torch is not None
    return transformers

"""The architectures of bases that are supported, by their names in both worlds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillc_compiler.arch.architecture import LINEARS, Architecture, in_layer
from skillc_compiler.arch.gemma3 import Gemma3
from skillc_compiler.arch.llama import Llama
from skillc_compiler.arch.mistral import Mistral
from skillc_compiler.arch.qwen2 import Qwen2
from skillc_compiler.arch.qwen3 import Qwen3
from skillc_compiler.arch.qwen35 import Qwen35
from skillc_compiler.errors import BaseModelError

__all__ = ["ALL", "LINEARS", "Architecture", "by_name", "in_layer", "of_config", "text_config"]

ALL: tuple[Architecture, ...] = (Qwen3(), Qwen2(), Llama(), Mistral(), Gemma3(), Qwen35())
# Of architectures that share a GGUF name, the first reads it: Mistral files load as Llama.
_BY_NAME: dict[str, Architecture] = {one.name: one for one in reversed(ALL)}


def by_name(name: str) -> Architecture | None:
    """The architecture of a GGUF's `general.architecture`."""
    return _BY_NAME.get(name)


def of_config(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json. Raises BaseModelError for one that is not supported."""
    kind = config.get("model_type", "qwen3")
    for one in ALL:
        if kind in one.model_types:
            return one
    known = ", ".join(one.model_types[0] for one in ALL)
    raise BaseModelError(f"base configuration: model_type {kind} is not supported; {known} are")


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config.json that is about text: all of it, unless the model sees images too."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return dict(config)
    outer = {key: config[key] for key in _SHARED if key in config}
    return {**outer, **inner}


_SHARED = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")

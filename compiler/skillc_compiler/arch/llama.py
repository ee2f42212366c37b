"""Llama 2 and 3: llama.cpp rotates neighbouring pairs, so the rows of q and k change places.

Only an adapter's B is concerned: its rows are the rows of the weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skillc_compiler.arch.architecture import INVERSE_FREQUENCIES, Architecture, Config, rope
from skillc_compiler.gguf_types import Field, Kind

if TYPE_CHECKING:
    from skillc_compiler.arch.architecture import Order, Values

ROPE_FREQS = "rope_freqs.weight"
_HEADS = {"self_attn.q_proj": "attention.head_count", "self_attn.k_proj": "attention.head_count_kv"}


class Llama(Architecture):
    name = "llama"
    model_types = ("llama",)
    causal = "LlamaForCausalLM"

    def rules(self, config: Config) -> list[tuple[bool, str]]:
        scaled = rope(config)["rope_type"]
        plain = super().rules({**config, "rope_parameters": {}, "rope_scaling": {}})
        line = f"rope_type {scaled} is not supported; default and llama3 are"
        return [*plain, (scaled in ("default", "llama3"), line)]

    def parameters(self, n_layers: int) -> dict[str, str]:
        return {**super().parameters(n_layers), INVERSE_FREQUENCIES: ROPE_FREQS}

    def fields(self, config: Config) -> dict[str, Field]:
        return {
            **super().fields(config),
            "llama.vocab_size": Field(Kind.U32, config["vocab_size"]),
            "llama.rope.dimension_count": Field(Kind.U32, config["head_dim"]),
        }

    def extra_tensors(self, config: Config) -> dict[str, Values]:
        import numpy as np

        if rope(config)["rope_type"] == "default":
            return {}
        return {ROPE_FREQS: np.array(llama3_factors(config), np.float32)}

    def rows(self, parameter: str, meta: Mapping[str, Any]) -> Order | None:
        import numpy as np

        key = _HEADS.get(parameter.removesuffix(".weight"))
        if key is None:
            return None
        queries = int(meta["llama.attention.head_count"])
        heads = int(meta.get(f"llama.{key}", queries))
        width = int(
            meta.get("llama.attention.key_length", meta["llama.embedding_length"] // queries)
        )
        order = np.arange(heads * width).reshape(heads, 2, width // 2)
        return order.swapaxes(1, 2).reshape(-1)


def llama3_factors(config: Config) -> list[float]:
    """How much slower each pair of a head turns: Llama 3.1's rope scaling, [head_dim / 2].

    Same as `_compute_llama3_parameters` of transformers.
    """
    options = rope(config)
    factor, theta = float(options["factor"]), float(options["rope_theta"])
    low, high = float(options["low_freq_factor"]), float(options["high_freq_factor"])
    window = float(options["original_max_position_embeddings"])
    found = []
    for i in range(0, config["head_dim"], 2):
        length = 2 * math.pi * theta ** (i / config["head_dim"])
        if length < window / high:
            found.append(1.0)
        elif length > window / low:
            found.append(factor)
        else:
            smooth = (window / length - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found

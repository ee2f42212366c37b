"""Qwen2 and Qwen2.5: biases on queries, keys and values; no norm on the heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from skillc_compiler.arch.architecture import LAYER, Architecture, Config

_BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class Qwen2(Architecture):
    name = "qwen2"
    model_types = ("qwen2",)
    causal = "Qwen2ForCausalLM"
    layer: ClassVar[Mapping[str, str]] = {
        **LAYER,
        **{f"{m}.bias": LAYER[f"{m}.weight"].replace("weight", "bias") for m in _BIASED},
    }

    def rules(self, config: Config) -> list[tuple[bool, str]]:
        # llama.cpp's graph takes the width of a head from the hidden size.
        whole = config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
        return [*super().rules(config), (whole, "head_dim must be hidden_size / heads")]

"""Qwen3: the plain decoder with a norm on every head's queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from skillc_compiler.arch.architecture import LAYER, QK_NORMS, Architecture


class Qwen3(Architecture):
    name = "qwen3"
    model_types = ("qwen3",)
    causal = "Qwen3ForCausalLM"
    layer: ClassVar[Mapping[str, str]] = {
        **{k: v for k, v in LAYER.items() if k.startswith("self_attn.")},
        **QK_NORMS,
        **{k: v for k, v in LAYER.items() if not k.startswith("self_attn.")},
    }

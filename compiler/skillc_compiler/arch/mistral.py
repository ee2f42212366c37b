"""Mistral: Llama's layers and names in GGUF; an own head width, and in v0.1 a sliding window."""

from __future__ import annotations

from typing import Any

from skillc_compiler.arch.architecture import Config
from skillc_compiler.arch.llama import Llama


class Mistral(Llama):
    model_types = ("mistral",)
    causal = "MistralForCausalLM"

    def config(self, values: Config) -> dict[str, Any]:
        made = super().config(values)
        # llama.cpp attends to everything: up to the window both compute the same.
        window = made.get("sliding_window") or made["max_position_embeddings"]
        made["max_position_embeddings"] = min(window, made["max_position_embeddings"])
        return made

"""Gemma 3, its text part: norms that add one, two norms more a layer, five local layers in six."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from skillc_compiler.arch.architecture import LAYER, QK_NORMS, Architecture, Config
from skillc_compiler.gguf_header import Header
from skillc_compiler.gguf_types import Field, GgufError, Kind

if TYPE_CHECKING:
    from skillc_compiler.arch.architecture import Values

_EVERY = 6
_LOCAL_THETA = 10000.0
# llama.cpp knows the 27B by its layers, and scales its queries by another width.
_LAYERS_27B = 62


class Gemma3(Architecture):
    name = "gemma3"
    model_types = ("gemma3_text", "gemma3")
    causal = "Gemma3ForCausalLM"
    activation = "gelu_pytorch_tanh"
    untranslated = ("expert_count", "attn_logit_softcapping", "final_logit_softcapping")
    layer: ClassVar[Mapping[str, str]] = {
        **LAYER,
        **QK_NORMS,
        "post_attention_layernorm.weight": "post_attention_norm.weight",
        "pre_feedforward_layernorm.weight": "ffn_norm.weight",
        "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    }
    # What published configurations leave to transformers.
    defaults: ClassVar[Config] = {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    }

    def rules(self, config: Config) -> list[tuple[bool, str]]:
        plain = super().rules({**config, "rope_parameters": {}, "rope_scaling": {}})
        width = config["hidden_size"] // config["num_attention_heads"]
        scalar = width if config["num_hidden_layers"] == _LAYERS_27B else config["head_dim"]
        whole, local = _ropes(config)
        kinds = config.get("layer_types") or layer_types(config["num_hidden_layers"])
        return [
            *plain,
            (config["query_pre_attn_scalar"] == scalar, f"query_pre_attn_scalar must be {scalar}"),
            (kinds == layer_types(len(kinds)), f"every {_EVERY}th layer must see everything"),
            (not config.get("final_logit_softcapping"), "final_logit_softcapping is not supported"),
            (not config.get("attn_logit_softcapping"), "attn_logit_softcapping is not supported"),
            (not config.get("use_bidirectional_attention"), "the model is no decoder"),
            (whole["rope_type"] in ("default", "linear"), "scaled rope must be linear"),
            (local["rope_type"] == "default", "scaled rope of local layers is not supported"),
        ]

    def fields(self, config: Config) -> dict[str, Field]:
        whole, local = _ropes(config)
        made = super().fields({**config, "rope_parameters": whole, "rope_scaling": None})
        made["gemma3.attention.sliding_window"] = Field(Kind.U32, config["sliding_window"])
        made["gemma3.rope.freq_base_swa"] = Field(Kind.F32, float(local["rope_theta"]))
        if whole["rope_type"] == "linear":
            made["gemma3.rope.scaling.type"] = Field(Kind.STRING, "linear")
            made["gemma3.rope.scaling.factor"] = Field(Kind.F32, float(whole["factor"]))
        return made

    def hf_config(self, header: Header) -> dict[str, Any]:
        made = super().hf_config(header)
        whole: dict[str, Any] = {**made["rope_parameters"]}
        if header.get("gemma3.rope.freq_base", Kind.F32) is None:
            whole["rope_theta"] = 1e6
        scaling = header.get("gemma3.rope.scaling.type", Kind.STRING)
        if scaling not in (None, "none", "linear"):
            raise GgufError(f"gemma3.rope.scaling.type {scaling} is not supported")
        if scaling == "linear":
            whole |= {"rope_type": "linear", "factor": self.real(header, "rope.scaling.factor")}
        local = self.real(header, "rope.freq_base_swa", _LOCAL_THETA)
        n_layers = made["num_hidden_layers"]
        width = made["hidden_size"] // made["num_attention_heads"]
        return {
            **{key: value for key, value in made.items() if key != "hidden_act"},
            "hidden_activation": self.activation,
            "layer_types": layer_types(n_layers),
            "query_pre_attn_scalar": width if n_layers == _LAYERS_27B else made["head_dim"],
            "rope_parameters": {
                "full_attention": whole,
                "sliding_attention": {"rope_theta": local, "rope_type": "default"},
            },
            "sliding_window": self.number(header, "attention.sliding_window"),
        }

    def encode(self, parameter: str, values: Values) -> Values:
        import numpy as np

        return values + np.float32(1) if parameter.endswith("norm.weight") else values

    def decode(self, parameter: str, values: Values) -> Values:
        import numpy as np

        return values - np.float32(1) if parameter.endswith("norm.weight") else values


def layer_types(n_layers: int) -> list[str]:
    """Which layers see everything and which a window, as transformers names them."""
    return ["sliding_attention" if (i + 1) % _EVERY else "full_attention" for i in range(n_layers)]


def _ropes(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rope parameters of the layers that see everything, and of the local ones."""
    own = config.get("rope_parameters") or {}
    whole = {"rope_theta": config.get("rope_theta", 1e6), **(config.get("rope_scaling") or {})}
    local = {"rope_theta": config.get("rope_local_base_freq", _LOCAL_THETA)}
    whole |= own.get("full_attention") or {}
    local |= own.get("sliding_attention") or {}
    for options in (whole, local):
        options["rope_type"] = options.get("rope_type", options.get("type", "default"))
    return whole, local

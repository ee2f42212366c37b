"""How one architecture's modules are called in Hugging Face checkpoints and in GGUF files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_QWEN3_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_QWEN3_GLOBAL = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_ARCHITECTURES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "qwen3": (_QWEN3_GLOBAL, _QWEN3_LAYER),
}
ARCHITECTURES = tuple(_ARCHITECTURES)
# The linear modules of a layer, in the order of the computation: what an adapter may target.
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def tensor_names(arch: str, n_layers: int) -> Mapping[str, str]:
    """Hugging Face module path -> GGUF tensor name, in the order in which a base is written.

    Each module has one weight: "model.layers.0.mlp.down_proj" -> "blk.0.ffn_down.weight".
    Raises KeyError for an architecture not in ARCHITECTURES.
    """
    outer, layer = _ARCHITECTURES[arch]
    names = {module: f"{name}.weight" for module, name in outer.items()}
    for i in range(n_layers):
        for module, name in layer.items():
            names[f"model.layers.{i}.{module}"] = f"blk.{i}.{name}.weight"
    return MappingProxyType(names)

"""Qwen3.5, its text part: three linear-attention layers in four, gated queries, norms that add one.

llama.cpp wants the value heads tiled over the key heads, [k0 k1 .. k0 k1 ..], where transformers
groups them by key head: rows of what makes values, columns of what reads them. An adapter's B and A
change with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from skillc_compiler.arch.architecture import (
    LAYER,
    LINEARS,
    QK_NORMS,
    Architecture,
    Config,
    Shape,
    rope,
)
from skillc_compiler.gguf_encode import number_array
from skillc_compiler.gguf_header import Header
from skillc_compiler.gguf_types import Field, Kind

if TYPE_CHECKING:
    from skillc_compiler.arch.architecture import Order, Values

_CONV = "linear_attn.conv1d.weight"
_SECTIONS = [11, 11, 10]
_LINEAR = {
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.out_proj.weight": "ssm_out.weight",
    _CONV: "ssm_conv1d.weight",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
}
_PER_HEAD = ("linear_attn.in_proj_a.weight", "linear_attn.in_proj_b.weight",
             "linear_attn.A_log", "linear_attn.dt_bias")  # fmt: skip


class Qwen35(Architecture):
    name = "qwen35"
    model_types = ("qwen3_5_text", "qwen3_5")
    causal = "Qwen3_5ForCausalLM"
    linears = (*LINEARS, *(p.removesuffix(".weight") for p in list(_LINEAR)[:5]))
    exact = (_CONV,)
    layer: ClassVar[Mapping[str, str]] = {
        **LAYER,
        "post_attention_layernorm.weight": "post_attention_norm.weight",
        **QK_NORMS,
        **_LINEAR,
    }
    defaults: ClassVar[Config] = {
        "head_dim": 256,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }

    def rules(self, config: Config) -> list[tuple[bool, str]]:
        kinds, every = layer_types(config), interval(config)
        plain = [
            "full_attention" if (i + 1) % every == 0 else "linear_attention"
            for i in range(config["num_hidden_layers"])
        ]
        same = config["linear_key_head_dim"] == config["linear_value_head_dim"]
        whole = config["linear_num_value_heads"] % config["linear_num_key_heads"] == 0
        return [
            *super().rules(config),
            (kinds == plain, f"every {every}th layer must be full attention, the others linear"),
            (same, "linear key and value heads must be of one width"),
            (whole, "linear_num_value_heads must be a multiple of linear_num_key_heads"),
        ]

    def layer_shapes(self, config: Config, index: int) -> dict[str, Shape]:
        hidden, head = config["hidden_size"], config["head_dim"]
        width, heads = config["linear_value_head_dim"], config["linear_num_value_heads"]
        values = width * heads
        mixed = 2 * config["linear_key_head_dim"] * config["linear_num_key_heads"] + values
        special: dict[str, Shape] = {
            "self_attn.q_proj.weight": (2 * config["num_attention_heads"] * head, hidden),
            "linear_attn.in_proj_qkv.weight": (mixed, hidden),
            "linear_attn.in_proj_z.weight": (values, hidden),
            "linear_attn.in_proj_b.weight": (heads, hidden),
            "linear_attn.in_proj_a.weight": (heads, hidden),
            "linear_attn.out_proj.weight": (hidden, values),
            _CONV: (mixed, 1, config["linear_conv_kernel_dim"]),
            "linear_attn.norm.weight": (width,),
            "linear_attn.A_log": (heads,),
            "linear_attn.dt_bias": (heads,),
        }
        absent = (
            "self_attn." if layer_types(config)[index] == "linear_attention" else "linear_attn."
        )
        found = {**super().layer_shapes(config, index), **special}
        return {name: shape for name, shape in found.items() if not name.startswith(absent)}

    def fields(self, config: Config) -> dict[str, Field]:
        options = rope(config)
        numbers = {
            "ssm.conv_kernel": config["linear_conv_kernel_dim"],
            "ssm.state_size": config["linear_key_head_dim"],
            "ssm.group_count": config["linear_num_key_heads"],
            "ssm.time_step_rank": config["linear_num_value_heads"],
            "ssm.inner_size": config["linear_value_head_dim"] * config["linear_num_value_heads"],
            "full_attention_interval": interval(config),
            "rope.dimension_count": int(config["head_dim"] * rotary_part(config)),
        }
        sections = [*(options.get("mrope_section") or _SECTIONS), 0][:4]
        return {
            **super().fields(config),
            **{f"qwen35.{key}": Field(Kind.U32, int(n)) for key, n in numbers.items()},
            "qwen35.rope.dimension_sections": number_array(Kind.I32, sections),
        }

    def hf_config(self, header: Header) -> dict[str, Any]:
        made = super().hf_config(header)
        heads = self.number(header, "ssm.time_step_rank")
        rotary = self.number(header, "rope.dimension_count", made["head_dim"])
        sections = header.need("qwen35.rope.dimension_sections", Kind.ARRAY).numbers()
        every = self.number(header, "full_attention_interval", 4)
        kinds = ["linear_attention" if (i + 1) % every else "full_attention"
                 for i in range(made["num_hidden_layers"])]  # fmt: skip
        return {
            **made,
            "layer_types": kinds,
            "linear_conv_kernel_dim": self.number(header, "ssm.conv_kernel"),
            "linear_key_head_dim": self.number(header, "ssm.state_size"),
            "linear_num_key_heads": self.number(header, "ssm.group_count"),
            "linear_num_value_heads": heads,
            "linear_value_head_dim": self.number(header, "ssm.inner_size") // max(heads, 1),
            "rope_parameters": {
                **made["rope_parameters"],
                "mrope_section": sections[:3],
                "partial_rotary_factor": rotary / made["head_dim"],
            },
        }

    def stored_shape(self, parameter: str, shape: Shape) -> Shape:
        return (shape[0], shape[-1]) if parameter == _CONV else shape

    def original_shape(self, parameter: str, shape: Shape) -> Shape:
        return (shape[0], 1, shape[-1]) if parameter == _CONV else shape

    def rows(self, parameter: str, meta: Mapping[str, Any]) -> Order | None:
        import numpy as np

        if parameter in _PER_HEAD:
            return tiled(meta, 1)
        width = int(meta["qwen35.ssm.state_size"]) if "linear_attn." in parameter else 0
        if parameter == "linear_attn.in_proj_z.weight":
            return tiled(meta, width)
        if parameter in ("linear_attn.in_proj_qkv.weight", _CONV):
            before = 2 * width * int(meta["qwen35.ssm.group_count"])
            return np.concatenate([np.arange(before), before + tiled(meta, width)])
        return None

    def columns(self, parameter: str, meta: Mapping[str, Any]) -> Order | None:
        if parameter == "linear_attn.out_proj.weight":
            return tiled(meta, int(meta["qwen35.ssm.state_size"]))
        return None

    def encode(self, parameter: str, values: Values) -> Values:
        import numpy as np

        if parameter == "linear_attn.A_log":
            return (-np.exp(values.astype(np.float64))).astype(np.float32)
        return values + np.float32(1) if adds_one(parameter) else values

    def decode(self, parameter: str, values: Values) -> Values:
        import numpy as np

        if parameter == "linear_attn.A_log":
            return np.log(-values.astype(np.float64)).astype(np.float32)
        return values - np.float32(1) if adds_one(parameter) else values


def tiled(meta: Mapping[str, Any], width: int) -> Order:
    """Grouped value heads of `width` rows in tiled order."""
    import numpy as np

    keys = int(meta["qwen35.ssm.group_count"])
    values = int(meta["qwen35.ssm.time_step_rank"])
    order = np.arange(values * width).reshape(keys, values // keys, width)
    return order.swapaxes(0, 1).reshape(-1)


def adds_one(parameter: str) -> bool:
    """Whether the norm's weight is stored without its one."""
    return parameter.endswith("norm.weight") and not parameter.startswith("linear_attn.")


def layer_types(config: Config) -> list[str]:
    """Which layers are linear attention and which full, as transformers names them."""
    every = int(config.get("full_attention_interval") or 4)
    return list(config.get("layer_types") or ()) or [
        "linear_attention" if (i + 1) % every else "full_attention"
        for i in range(config["num_hidden_layers"])
    ]


def interval(config: Config) -> int:
    """Every how many layers one is full attention."""
    kinds = layer_types(config)
    return kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1


def rotary_part(config: Config) -> float:
    """The part of a head that rope turns."""
    part = rope(config).get("partial_rotary_factor") or config.get("partial_rotary_factor")
    return float(part or 0.25)

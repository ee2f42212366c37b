"""What one architecture is in a Hugging Face folder and in a GGUF file; each has its own module.

A parameter's way into a GGUF: rows and columns are put into llama.cpp's order, then values are
turned into what llama.cpp expects. An adapter's factors need the orders alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_header import Header
from skillc_compiler.gguf_types import Field, GgufError, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Order = npt.NDArray[np.intp]
    Values = npt.NDArray[np.float32]

Config = Mapping[str, Any]
Shape = tuple[int, ...]

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
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
QK_NORMS = {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
}
INVERSE_FREQUENCIES = "model.rotary_emb.inv_freq"


class Architecture:
    """A plain decoder; the architectures override what differs.

    `meta` arguments are the scalar header entries of the base's GGUF by full key.
    """

    name: ClassVar[str] = ""
    model_types: ClassVar[tuple[str, ...]] = ()
    causal: ClassVar[str] = ""
    linears: ClassVar[tuple[str, ...]] = LINEARS
    layer: ClassVar[Mapping[str, str]] = LAYER
    # Matrices that are never stored in less than float32.
    exact: ClassVar[tuple[str, ...]] = ()
    activation: ClassVar[str] = "silu"
    defaults: ClassVar[Config] = {}
    # Header entries under "<name>." that change the computation and that are not translated.
    untranslated: ClassVar[tuple[str, ...]] = (
        "rope.scaling.type",
        "attention.sliding_window",
        "expert_count",
    )

    def config(self, values: Config) -> dict[str, Any]:
        """The configuration with what published ones leave out. Raises BaseModelError."""
        made = {**self.defaults, **{k: v for k, v in values.items() if v is not None}}
        for key in _NEEDED:
            if not isinstance(made.get(key), int):
                raise BaseModelError(f"base configuration: {key} is missing")
        made.setdefault("num_key_value_heads", made["num_attention_heads"])
        made.setdefault("head_dim", made["hidden_size"] // made["num_attention_heads"])
        made.setdefault("rms_norm_eps", 1e-6)
        for good, what in self.rules(made):
            if not good:
                raise BaseModelError(f"base configuration: {what}")
        return made

    def rules(self, config: Config) -> list[tuple[bool, str]]:
        """What must hold of a configuration, and the line for when it does not."""
        own = config.get("hidden_act", config.get("hidden_activation", self.activation))
        return [
            (own == self.activation, f"hidden_act must be {self.activation}"),
            (not config.get("attention_bias"), "attention_bias is not supported"),
            (not config.get("mlp_bias"), "mlp_bias is not supported"),
            (not config.get("use_sliding_window"), "use_sliding_window is not supported"),
            (not config.get("quantization_config"), "the weights are quantised: use the originals"),
            (rope(config).get("rope_type") == "default", "scaled rope is not supported"),
        ]

    def parameters(self, n_layers: int) -> dict[str, str]:
        """Hugging Face parameter -> GGUF tensor, in the order in which a base is written."""
        names = dict(OUTER)
        for i in range(n_layers):
            for parameter, tensor in self.layer.items():
                names[f"model.layers.{i}.{parameter}"] = f"blk.{i}.{tensor}"
        return names

    def shapes(self, config: Config) -> dict[str, Shape]:
        """Every parameter of the model: name -> shape."""
        hidden = config["hidden_size"]
        found: dict[str, Shape] = {
            "model.embed_tokens.weight": (config["vocab_size"], hidden),
            "model.norm.weight": (hidden,),
        }
        if not config.get("tie_word_embeddings"):
            found["lm_head.weight"] = (config["vocab_size"], hidden)
        for i in range(config["num_hidden_layers"]):
            for parameter, shape in self.layer_shapes(config, i).items():
                found[f"model.layers.{i}.{parameter}"] = shape
        return found

    def layer_shapes(self, config: Config, index: int) -> dict[str, Shape]:
        """The parameters of layer `index`."""
        hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        queries = config["num_attention_heads"] * head
        keys = config["num_key_value_heads"] * head
        special: dict[str, Shape] = {
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.v_proj.bias": (keys,),
            "self_attn.o_proj.weight": (hidden, queries),
            "self_attn.q_norm.weight": (head,),
            "self_attn.k_norm.weight": (head,),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        return {parameter: special.get(parameter, (hidden,)) for parameter in self.layer}

    def fields(self, config: Config) -> dict[str, Field]:
        """The header entries of a checked configuration, by full key."""
        head = config["head_dim"]
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
        made = {f"{self.name}.{key}": Field(Kind.U32, int(n)) for key, n in numbers.items()}
        eps, theta = float(config["rms_norm_eps"]), float(rope(config)["rope_theta"])
        made[f"{self.name}.attention.layer_norm_rms_epsilon"] = Field(Kind.F32, eps)
        made[f"{self.name}.rope.freq_base"] = Field(Kind.F32, theta)
        return made

    def extra_tensors(self, config: Config) -> dict[str, Values]:
        """Tensors that are no parameters, by GGUF name."""
        return {}

    def hf_config(self, header: Header) -> dict[str, Any]:
        """The configuration of a GGUF as transformers has it. Raises GgufError."""
        for key in self.untranslated:
            entry = header.fields.get(f"{self.name}.{key}")
            if entry and entry.value not in ("none", 0):
                raise GgufError(f"{self.name}.{key} is not supported")
        heads = self.number(header, "attention.head_count")
        hidden = self.number(header, "embedding_length")
        theta = self.real(header, "rope.freq_base", 10000.0)
        return {
            "architectures": [self.causal],
            "attention_bias": False,
            "head_dim": self.number(header, "attention.key_length", hidden // max(heads, 1)),
            "hidden_act": self.activation,
            "hidden_size": hidden,
            "intermediate_size": self.number(header, "feed_forward_length"),
            "max_position_embeddings": self.number(header, "context_length"),
            "model_type": self.model_types[0],
            "num_attention_heads": heads,
            "num_hidden_layers": self.number(header, "block_count"),
            "num_key_value_heads": self.number(header, "attention.head_count_kv", heads),
            "rms_norm_eps": self.real(header, "attention.layer_norm_rms_epsilon"),
            "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
            "tie_word_embeddings": "output.weight" not in header.tensors,
            "vocab_size": header.tensors["token_embd.weight"].shape[0],
        }

    def number(self, header: Header, key: str, default: int | None = None) -> int:
        """An integer entry; without a default it must be there."""
        value = header.get(f"{self.name}.{key}", Kind.U32, Kind.I32)
        value = default if value is None else value
        if value is None:
            raise GgufError(f"{self.name}.{key} is missing")
        return int(value)

    def real(self, header: Header, key: str, default: float | None = None) -> float:
        """A float entry; without a default it must be there."""
        value = header.get(f"{self.name}.{key}", Kind.F32)
        value = default if value is None else value
        if value is None:
            raise GgufError(f"{self.name}.{key} is missing")
        return shortest(value)

    def stored_shape(self, parameter: str, shape: Shape) -> Shape:
        """The shape of a parameter's tensor, whose values are in the same sequence."""
        return shape

    def original_shape(self, parameter: str, shape: Shape) -> Shape:
        """Inverse of `stored_shape`."""
        return shape

    def rows(self, parameter: str, meta: Mapping[str, Any]) -> Order | None:
        """Row `i` of the GGUF's tensor is row `order[i]` of the parameter; None: the same order.

        `parameter` is named from its layer on, as in "self_attn.q_proj.weight".
        """
        return None

    def columns(self, parameter: str, meta: Mapping[str, Any]) -> Order | None:
        """As `rows`, of the input side."""
        return None

    def encode(self, parameter: str, values: Values) -> Values:
        """The GGUF's values of a parameter (elementwise)."""
        return values

    def decode(self, parameter: str, values: Values) -> Values:
        """Inverse of `encode`."""
        return values


_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def rope(config: Config) -> dict[str, Any]:
    """The rope parameters of a configuration, as of transformers 5 or before."""
    own = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = own.get("rope_type", own.get("type", "default"))
    theta = own.get("rope_theta", config.get("rope_theta", 10000.0))
    return {**own, "rope_type": kind, "rope_theta": theta}


def in_layer(parameter: str) -> str:
    """A parameter's or module's name from its layer on."""
    return parameter.split(".", 3)[-1] if parameter.startswith("model.layers.") else parameter


def shortest(value: float) -> float:
    """The shortest decimal that is this float32: 1e-06 and not 9.999999974752427e-07."""
    import numpy as np

    if not math.isfinite(value):
        raise GgufError(f"a header entry is {value}")
    return float(str(np.float32(value)))

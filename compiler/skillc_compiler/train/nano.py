"""The embedded base as a plain module, fast to train: Qwen3 with writes at its `down_proj` sites.

Parameter names are those of transformers' `Qwen3ForCausalLM`, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skillc_compiler.families.writer_net import apply_write, rotary
from skillc_compiler.train import ops

Writes = Mapping[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class NanoConfig:
    """Shape of the base, in Qwen3's terms."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096

    def to_hf(self) -> dict[str, Any]:
        """The configuration of the equal `Qwen3ForCausalLM`."""
        values = asdict(self)
        theta = values.pop("rope_theta")
        return values | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_act": "silu",
            "attention_bias": False,
            "tie_word_embeddings": True,
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }


class RMSNorm(nn.Module):
    """A learned scale of what `ops.rms_norm` gives."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with RMS-normalised queries and keys (Qwen3)."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        hidden, dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * dim, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * dim, hidden, bias=False)
        self.q_norm = RMSNorm(dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(dim, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        dim = self.config.head_dim
        eps = self.config.rms_norm_eps
        q, k, v = (f(x).unflatten(-1, (-1, dim)) for f in (self.q_proj, self.k_proj, self.v_proj))
        q = ops.head(q, self.q_norm.weight, cos, sin, eps)
        k = ops.head(k, self.k_norm.weight, cos, sin, eps)
        v = v.transpose(1, 2)
        block = mask.shape[-1]
        q, k, v = (_in_blocks(part, block) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1]
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
        return out


def _in_blocks(x: Tensor, block: int) -> Tensor:
    """[B, heads, L, dim] to [B * L / block, heads, block, dim]: rows attend within blocks only."""
    batch, heads, length, dim = x.shape
    if block == length:
        return x
    return x.view(batch, heads, -1, block, dim).transpose(1, 2).reshape(-1, heads, block, dim)


class Feedforward(nn.Module):
    """SwiGLU; a write adds to what `down_proj` gives, where `keep` [B, L, 1] lets it."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, write: tuple[Tensor, Tensor] | None, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inner = ops.swiglu(self.gate_proj(x), self.up_proj(x))
        out = self.down_proj(inner)
        if write is not None:
            added = apply_write(inner, *write)
            out = out + (added if keep is None else added * keep)
        return out, inner


class Layer(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Feedforward(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        cos: Tensor,
        sin: Tensor,
        write: tuple[Tensor, Tensor] | None = None,
        keep: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = x + self.self_attn(self.input_layernorm(x), mask, cos, sin)
        out, inner = self.mlp(self.post_attention_layernorm(x), write, keep)
        return x + out, inner


class Decoder(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


@dataclass
class Trace:
    """Final hidden states [B, L, hidden] and, when asked for, what a writer reads.

    states: residual stream before every layer and after the last; inputs: by site layer.
    """

    hidden: Tensor
    states: list[Tensor]
    inputs: list[Tensor]


class Nano(nn.Module):
    """The base language model; output embedding tied to the input's."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self._initialise()

    def _initialise(self) -> None:
        config = self.config
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.hidden_size**-0.5 * 0.6)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)
        depth = (2 * config.num_hidden_layers) ** -0.5
        for layer in self.model.layers:
            assert isinstance(layer, Layer)
            layer.self_attn.o_proj.weight.data.mul_(depth)
            layer.mlp.down_proj.weight.data.mul_(depth)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        writes: Writes | None = None,
        sites: Sequence[int] = (),
        keep: Tensor | None = None,
        layers: int | None = None,
    ) -> Trace:
        """tokens, positions [B, L]; mask [B * L / block, 1, block, block], true where allowed.

        Writes act where `keep` [B, L] is true, everywhere without it. Only the first `layers`
        layers are computed, if that is given.
        """
        x = self.model.embed_tokens(tokens)
        cos, sin = rotary(positions, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos[:, None], sin[:, None]
        places = None if keep is None else keep[..., None]
        states, inputs = [], []
        for i, layer in enumerate(self.model.layers[:layers]):
            states.append(x)
            x, inner = layer(x, mask, cos, sin, writes.get(i) if writes else None, places)
            if i in sites:
                inputs.append(inner)
        states.append(x)
        return Trace(self.model.norm(x), states, inputs)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [..., vocab] of the next token."""
        return F.linear(hidden, self.model.embed_tokens.weight)

"""Queries and keys of single attention heads of the base, as its attention uses them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skillc_compiler.families.writer_net import rotary
from skillc_compiler.train import ops
from skillc_compiler.train.nano import Layer, Nano, Trace
from skillc_compiler.train.rows import Rows

Heads = Sequence[tuple[int, int]]


def projected(model: Nano, rows: Rows, trace: Trace, heads: Heads, kind: str) -> list[Tensor]:
    """Queries ("q") or keys ("k") of each head (layer, head), with their positions: [B, L, dim]."""
    config = model.config
    cos, sin = rotary(rows.positions, config.head_dim, config.rope_theta)
    cos, sin = cos[:, None], sin[:, None]
    found = []
    for number, head in heads:
        layer = model.model.layers[number]
        assert isinstance(layer, Layer)
        attention, at = layer.self_attn, head
        project, norm = attention.q_proj, attention.q_norm
        if kind == "k":
            project, norm = attention.k_proj, attention.k_norm
            at = head * config.num_key_value_heads // config.num_attention_heads
        parts = project(layer.input_layernorm(trace.states[number]))
        parts = parts.unflatten(-1, (-1, config.head_dim))
        found.append(ops.head(parts, norm.weight, cos, sin, norm.eps)[:, at])
    return found

"""The network of the `perceiver` family: activations of every layer to LoRA factors (Doc-to-LoRA).

Written from the description of Doc-to-LoRA (arXiv 2602.15902). The states that enter each layer of
the base are compressed by one perceiver, the same for all layers, into n_modules * r vectors; a
head per layer turns each vector into one row of A and one row of B. Attention is the plain one:
no flash-attention, no masks, since one text is read at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


@dataclass(frozen=True)
class PerceiverConfig:
    """Sizes of a perceiver compiler; `hidden` and `layers` are the base's.

    inputs, outputs: features in and out of each targeted module, in the order of the modules.
    alpha: factor of every update, used as it is and not divided by the rank.
    chunk: longest piece of text, in tokens; prefix, suffix: token ids around each piece.
    scaling: the user's factor, which multiplies A and B of the pieces (so its square acts), not
    the bias. average: pieces are averaged instead of put one after the other.
    """

    hidden: int
    layers: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    rank: int
    latent: int
    queries: int
    encoder_blocks: int
    decoder_blocks: int
    heads: int
    kv_heads: int
    head_dim: int
    residual_blocks: int
    alpha: float
    chunk: int = 512
    prefix: tuple[int, ...] = field(default=())
    suffix: tuple[int, ...] = field(default=())
    scaling: float = 1.0
    average: bool = False
    bias: bool = True

    @property
    def modules(self) -> tuple[str, ...]:
        """The targeted modules ("mlp.down_proj"), in the order of the network's outputs."""
        return tuple(sorted(self.inputs, key=short))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"prefix": list(self.prefix), "suffix": list(self.suffix)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> PerceiverConfig:
        """The inverse of `to_dict`; raises KeyError or TypeError for other keys."""
        affixes = {name: tuple(values[name]) for name in ("prefix", "suffix")}
        return PerceiverConfig(**{**values, **affixes})


def short(module: str) -> str:
    """ "down_proj" of "mlp.down_proj"."""
    return module.rpartition(".")[2]


class GatedMLP(nn.Module):
    """down(silu(gate x) * up x), without biases."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class CrossBlock(nn.Module):
    """Latents look at a context: grouped-query attention and an MLP, normed before and after."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        width, dim = config.latent, config.head_dim
        self.head_dim, self.groups = dim, config.heads // config.kv_heads
        self.latent_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.context_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.q = nn.Linear(width, config.heads * dim, bias=False)
        self.k = nn.Linear(width, config.kv_heads * dim, bias=False)
        self.v = nn.Linear(width, config.kv_heads * dim, bias=False)
        self.o = nn.Linear(config.heads * dim, width, bias=False)
        self.attended_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = GatedMLP(width, 4 * width, width)
        self.out_norm = nn.RMSNorm(width, eps=NORM_EPS)

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """latents [Q, width], context [S, width]: [Q, width]."""
        seen = self.context_norm(context)
        q = self._heads(self.q(self.latent_norm(latents)))
        k = self._heads(self.k(seen)).repeat_interleave(self.groups, dim=0)
        v = self._heads(self.v(seen)).repeat_interleave(self.groups, dim=0)
        weights = torch.softmax(q @ k.transpose(1, 2) * self.head_dim**-0.5, dim=-1)
        mixed = (weights @ v).transpose(0, 1).flatten(1)
        latents = latents + self.attended_norm(self.o(mixed))
        out: Tensor = latents + self.out_norm(self.mlp(self.mlp_norm(latents)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.head_dim).transpose(0, 1)


class Resampler(nn.Module):
    """Learned queries through a stack of cross-attention blocks."""

    def __init__(self, config: PerceiverConfig, queries: int, blocks: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.latent))
        self.blocks = nn.ModuleList(CrossBlock(config) for _ in range(blocks))
        self.norm = nn.RMSNorm(config.latent, eps=NORM_EPS)

    def forward(self, context: Tensor) -> Tensor:
        latents: Tensor = self.queries
        for block in self.blocks:
            latents = block(latents, context)
        out: Tensor = self.norm(latents)
        return out


class LayerBlock(nn.Module):
    """A residual MLP with weights of its own for every layer of the base: x [L, ..., width]."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        inner = 4 * width
        self.norm_in = nn.LayerNorm(width)
        self.up = nn.Parameter(torch.randn(layers, width, inner) * width**-0.5)
        self.up_bias = nn.Parameter(torch.zeros(layers, inner))
        self.down = nn.Parameter(torch.randn(layers, inner, width) * inner**-0.5)
        self.down_bias = nn.Parameter(torch.zeros(layers, width))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.einsum("lmrd,ldh->lmrh", self.norm_in(x), self.up)
        inner = F.silu(inner + self.up_bias[:, None, None])
        out = torch.einsum("lmrh,lhd->lmrd", inner, self.down) + self.down_bias[:, None, None]
        found: Tensor = x + self.norm_out(out)
        return found


class PerceiverNet(nn.Module):
    """From each layer's input states to each module's A [L, r, in] and B [L, r, out]."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        layers, modules, rank = config.layers, config.modules, config.rank
        self.projection = GatedMLP(config.hidden, 4 * config.hidden, config.latent)
        self.encoder = Resampler(config, config.queries, config.encoder_blocks)
        self.decoder = Resampler(config, len(modules) * rank, config.decoder_blocks)
        self.blocks = nn.ModuleList(
            LayerBlock(layers, config.latent) for _ in range(config.residual_blocks)
        )
        widest = max(config.inputs[name] + config.outputs[name] for name in modules)
        std = 0.5 / (config.latent + widest * rank) ** 0.5
        self.head = nn.Parameter(torch.randn(layers, len(modules), config.latent, widest) * std)

        def table(values: Mapping[str, Tensor]) -> nn.ParameterDict:
            return nn.ParameterDict({short(name): nn.Parameter(values[name]) for name in modules})

        self.scaler_a = table({name: torch.ones(layers, rank) for name in modules})
        self.scaler_b = table({name: torch.zeros(layers, rank) for name in modules})
        spread = {name: 0.2 / (config.inputs[name] * rank) ** 0.5 for name in modules}
        self.bias_a = table(
            {
                name: torch.randn(layers, rank, config.inputs[name]) * spread[name]
                for name in modules
            }
        )
        self.bias_b = table(
            {name: torch.zeros(layers, rank, config.outputs[name]) for name in modules}
        )

    def summary(self, states: Tensor) -> Tensor:
        """One layer's input states [S, hidden] as vectors [n_modules, r, latent]."""
        latents: Tensor = self.decoder(self.encoder(self.projection(states)))
        return latents.view(len(self.config.modules), self.config.rank, -1)

    def forward(self, summaries: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """All layers' summaries [L, n_modules, r, latent] as (A, B) by module."""
        for block in self.blocks:
            summaries = block(summaries)
        unit = summaries / summaries.norm(dim=-1, keepdim=True)
        rows = torch.einsum("lmrd,lmdo->lmro", unit, self.head)
        found = {}
        for number, name in enumerate(self.config.modules):
            split = self.config.inputs[name]
            end = split + self.config.outputs[name]
            a = rows[:, number, :, :split] * self.scaler_a[short(name)][..., None]
            b = rows[:, number, :, split:end] * self.scaler_b[short(name)][..., None]
            found[name] = (a, b)
        return found

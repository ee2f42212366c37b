"""The network of the `m2p` family: memory states of a text to all LoRA parameters of a base.

Written from the description of SHINE (arXiv 2602.06358), whose form LatentSkill (2606.06087) and
ParametricSkills (2606.30015) share. The base reads the text followed by M learned memory tokens,
with a fixed LoRA (the meta-LoRA) attached; the states of the memory tokens after every layer,
[L, M, H], pass a few encoder layers and *are* the LoRA parameters: there is no output head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skillc_compiler.families.host import Site


@dataclass(frozen=True)
class M2PConfig:
    """Sizes of an m2p compiler; `hidden` and `layers` are the base's.

    `scale` multiplies every update, as its square root on both factors. `gain` is the user's own
    factor on top. `context` is the longest text read at once, in tokens; `long` says what happens
    to the rest of a longer one: "recurrent" reads it in further pieces, each with what was learned
    from those before it attached (SHINE-R); "truncate" drops it, as the published evaluations do.
    `prefix` are token ids in front of every piece.
    """

    hidden: int
    layers: int
    memory: int
    rank: int
    meta_rank: int
    heads: int
    feed_forward: int
    blocks: int = 4
    layer_first: bool = True
    pool: int = 1
    scale: float = 0.001
    gain: float = 1.0
    context: int = 4096
    long: str = "recurrent"
    prefix: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"prefix": list(self.prefix)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> M2PConfig:
        """The inverse of `to_dict`; raises TypeError for other keys."""
        return M2PConfig(**{**values, "prefix": tuple(values.get("prefix", ()))})


def memory_tokens(sites: Sequence[Site], hidden: int, layers: int, rank: int, pool: int = 1) -> int:
    """How many memory tokens hold the LoRA parameters of `sites` exactly; ValueError if none do."""
    values = rank * sum(site.size for site in sites) * pool
    count, rest = divmod(values, hidden * layers)
    if rest:
        raise ValueError(
            f"{values} LoRA values of rank {rank} do not divide into {layers} layers of {hidden}"
        )
    return count


class M2PNet(nn.Module):
    """From memory states [B, L, M, H] to the flat LoRA parameters [B, sum of r (in + out)]."""

    def __init__(self, config: M2PConfig, sites: Sequence[Site]) -> None:
        super().__init__()
        self.config = config
        layers, memory, hidden = config.layers, config.memory, config.hidden
        self.memory = nn.Parameter(torch.zeros(memory, hidden))
        self.layer_pe = nn.Parameter(torch.zeros(layers, hidden))
        self.token_pe = nn.Parameter(torch.zeros(memory, hidden))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden,
                config.heads,
                config.feed_forward,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=1e-5,
                batch_first=True,
                norm_first=False,
            )
            for _ in range(config.blocks)
        )
        root = config.scale**0.5
        self.meta_a = nn.ParameterList(
            torch.randn(site.d_in, config.meta_rank) * root for site in sites
        )
        self.meta_b = nn.ParameterList(torch.zeros(config.meta_rank, site.d_out) for site in sites)

    def forward(self, states: Tensor) -> Tensor:
        """The flat parameters, layer after layer."""
        states = states + self.layer_pe[:, None] + self.token_pe
        batch, layers, memory, hidden = states.shape
        for number, block in enumerate(self.blocks):
            if (number % 2 == 0) == self.config.layer_first:
                across = states.transpose(1, 2).reshape(batch * memory, layers, hidden)
                states = block(across).view(batch, memory, layers, hidden).transpose(1, 2)
            else:
                within = states.reshape(batch * layers, memory, hidden)
                states = block(within).view(batch, layers, memory, hidden)
        pooled = states.reshape(batch, layers, self.config.pool, -1, hidden).mean(2)
        return pooled.reshape(batch, -1)


def unpack(
    flat: Tensor, sites: Sequence[Site], rank: int, scale: float
) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors (A [r, in], B [out, r], PEFT's orientation) of flat parameters [N] ("rl").

    Per site, in order: in * r values are A as [in, r], the next r * out are B as [r, out]; each is
    multiplied by sqrt(scale), so B A = scale * raw B raw A. Raises ValueError if N does not fit.
    """
    wanted = rank * sum(site.size for site in sites)
    if flat.shape != (wanted,):
        raise ValueError(f"{tuple(flat.shape)} flat parameters, {wanted} expected")
    root = scale**0.5
    found, start = {}, 0
    for site in sites:
        middle, end = start + site.d_in * rank, start + site.size * rank
        a = flat[start:middle].view(site.d_in, rank) * root
        b = flat[middle:end].view(rank, site.d_out) * root
        found[site.path] = (a.T, b.T)
        start = end
    return found

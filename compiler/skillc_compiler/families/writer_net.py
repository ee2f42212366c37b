"""The network of the `writer`: which memories a text leaves, as keys and values of outer products.

At a site (a layer's `down_proj`) every token t of the text proposes one memory:

- key    k_t: the site's input when the base read t, whitened, moved by a learned residual from
              "how it reads in the document" to "how it will be asked", and normalised;
- value  v_t: W_v (e(x_{t+1}) - sum_v p(v) e(v)), the direction in which one step of the
              cross-entropy gradient would push the residual stream, plus a learned residual;
- gate   g_t in (0, 2).

The memories could be summed as they are, dW = sum_t g_t v_t k_t^T (Generative Adapter, arXiv
2411.05877, writes hidden-state outer products; fast-weight writes go back to Schmidhuber 1992). But
the keys of one text resemble each other, so a query would read all memories, the right one only a
little more. Instead dW minimises sum_t g_t |dW k_t - v_t|^2 + |dW|^2 / alpha: ridge regression in
closed form (the mesa layer's, arXiv 2309.05858), alpha learned by site; where it is small, dW is
the sum. It acts on the raw input of `down_proj`, so it is a plain LoRA; keys are made orthogonal to
the mean input, which stands in for the centring that a LoRA cannot do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skillc_compiler.ridge import Ridge

_SPARE, _ROUNDS = 32, 3  # of the subspace iteration: more directions than wanted, and rounds
_ALPHA = 0.01  # where the strength begins: nearly the sum, which a fresh network learns from sooner


@dataclass(frozen=True)
class WriterConfig:
    """Sizes of a writer; `hidden`, `inner` and `layers` are the base's."""

    hidden: int
    inner: int
    layers: int
    vocab: int
    sites: tuple[int, ...]
    width: int = 256
    blocks: int = 2
    heads: int = 8

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"sites": list(self.sites)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> WriterConfig:
        """The inverse of `to_dict`."""
        return WriterConfig(**{**values, "sites": tuple(values["sites"])})


@dataclass
class Reading:
    """What the base saw while reading a text; S tokens, batch B.

    states: layers + 1 of [B, S, hidden], the residual stream before every layer and after the last.
    inputs: one [B, S, inner] a site, the inputs of `down_proj`.
    nexts: [B, S, hidden], the embedding of the token that follows (zero at the end).
    surprise: [B, S, hidden], that embedding minus its expectation under the base's prediction.
    nll: [B, S], the negative log-likelihood of the token that follows, in nats.
    mask: [B, S], true where the token and the one that follows are text.
    """

    states: Sequence[Tensor]
    inputs: Sequence[Tensor]
    nexts: Tensor
    surprise: Tensor
    nll: Tensor
    mask: Tensor


def rotary(positions: Tensor, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [*positions, dim] of rotary embeddings, halves repeated as in Qwen3."""
    steps = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angles = positions[..., None].float() * (theta**-steps)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x` [..., dim] (RoFormer, arXiv 2104.09864; GPT-NeoX halves)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class ReaderBlock(nn.Module):
    """A bidirectional transformer block (pre-norm, rotary, GELU)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width)
        self.up = nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class _Solution(torch.autograd.Function):
    """`solve`, whose gradient is one more solve with the same factor."""

    @staticmethod
    def forward(ctx: Any, system: Tensor, wanted: Tensor) -> Tensor:
        lower = torch.linalg.cholesky_ex(system).L  # not finite where the system is not
        found = torch.cholesky_solve(wanted, lower)
        ctx.save_for_backward(lower, found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        lower, found = ctx.saved_tensors
        wanted = torch.cholesky_solve(grads[0], lower)
        return -wanted @ found.transpose(1, 2), wanted


def solve(system: Tensor, wanted: Tensor) -> Tensor:
    """x [B, S, D] of A x = b for symmetric positive definite A [B, S, S]."""
    found: Tensor = _Solution.apply(system, wanted)  # type: ignore[no-untyped-call]
    return found


def _system(alike: Tensor, alpha: Tensor) -> Tensor:
    return torch.eye(alike.shape[-1], device=alike.device) + alpha * alike


@dataclass
class Memories:
    """What one site would keep, before it is solved for.

    keys: [B, S, inner], of length one; values: [B, S, hidden]; roots: [B, S], of the gates.
    """

    keys: Tensor
    values: Tensor
    roots: Tensor


def joined(proposed: Sequence[Sequence[Memories]]) -> list[Memories]:
    """What every site would keep of a text, of what was proposed for each part of it."""
    return [_joined(parts) for parts in zip(*proposed, strict=True)]


def _joined(parts: Sequence[Memories]) -> Memories:
    if len(parts) == 1:
        return parts[0]
    return Memories(
        torch.cat([part.keys for part in parts], 1),
        torch.cat([part.values for part in parts], 1),
        torch.cat([part.roots for part in parts], 1),
    )


class WriterNet(nn.Module):
    """From a `Reading` to every site's keys [B, S, inner] and values [B, S, hidden]."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: WriterConfig) -> None:
        super().__init__()
        self.config = config
        sites, hidden, inner, width = len(config.sites), config.hidden, config.inner, config.width
        self.register_buffer("mean", torch.zeros(sites, inner))
        self.register_buffer("spread", torch.ones(sites, inner))
        self.state_norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(config.layers + 1))
        self.read = nn.Linear(hidden * (config.layers + 2), width, bias=False)
        self.blocks = nn.ModuleList(ReaderBlock(width, config.heads) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(width)
        self.key = nn.Linear(width, sites * inner, bias=False)
        self.value = nn.Linear(width, sites * hidden, bias=False)
        self.gate = nn.Linear(width + 1, sites)
        self.push = nn.Parameter(torch.eye(hidden).repeat(sites, 1, 1))
        self.scale = nn.Parameter(torch.full((sites,), 2.0 * inner**-0.5))
        self.alpha = nn.Parameter(torch.full((sites,), _ALPHA).log())
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        nn.init.normal_(self.key.weight, std=0.02)
        nn.init.normal_(self.value.weight, std=0.005)

    def forward(self, reading: Reading) -> list[tuple[Tensor, Tensor]]:
        """One (keys, values) pair a site; masked tokens have zero values."""
        return self.settle(self.propose(reading))

    def settle(self, proposed: Sequence[Memories]) -> list[tuple[Tensor, Tensor]]:
        """The pairs for what every site would keep, solved for."""
        written = []
        for site, found in enumerate(proposed):
            settled = self._settled(site, found.keys, found.values, found.roots)
            written.append((found.keys / self.spread[site], settled.to(found.values.dtype)))
        return written

    def ridge(self, site: int, found: Memories, a: Tensor) -> Ridge:
        """The regression behind the factor `a` [r, inner] of what was found in one text.

        The keys' Gram matrix is kept where `a` acts.
        """
        spread = self.spread[site].double()
        rows = a.double().to(spread.device) * spread
        keys = (found.keys * found.roots[..., None])[0].double()
        seen = keys @ rows.T @ torch.linalg.pinv(rows @ rows.T, hermitian=True)
        parts = [part.float().cpu().numpy() for part in (spread, seen.T @ seen)]
        return Ridge(float(self.alpha[site].exp()), parts[0], parts[1])

    def propose(self, reading: Reading) -> list[Memories]:
        """What every site would keep of what was read."""
        config = self.config
        features = [
            norm(h.float()) for norm, h in zip(self.state_norms, reading.states, strict=True)
        ]
        x = self.read(torch.cat((*features, reading.nexts), dim=-1))
        positions = torch.arange(x.shape[1], device=x.device)
        cos, sin = rotary(positions, config.width // config.heads, 10000.0)
        for block in self.blocks:
            x = block(x, reading.mask, cos, sin)
        z = self.norm(x)
        keys = self.key(z).unflatten(-1, (len(config.sites), config.inner))
        values = self.value(z).unflatten(-1, (len(config.sites), config.hidden))
        gates = self.gate(torch.cat((z, reading.nll[..., None].to(z.dtype)), -1)).float()
        roots = (math.log(2) / 2 + F.logsigmoid(gates) / 2).exp() * reading.mask[..., None]
        return [
            Memories(
                self._key(site, reading.inputs[site], keys[:, :, site]),
                self._value(site, reading.surprise, values[:, :, site]),
                roots[..., site],
            )
            for site in range(len(config.sites))
        ]

    def _key(self, site: int, raw: Tensor, moved: Tensor) -> Tensor:
        spread = self.spread[site]
        key = (raw.float() - self.mean[site]) / spread + moved.float() * self.config.inner**0.5
        centre = F.normalize(self.mean[site] / spread, dim=0)
        key = key - (key @ centre)[..., None] * centre
        return F.normalize(key, dim=-1)

    def _value(self, site: int, surprise: Tensor, moved: Tensor) -> Tensor:
        value = surprise @ self.push[site].to(surprise.dtype).T + moved.to(surprise.dtype)
        return value * self.scale[site].to(surprise.dtype)

    def _settled(self, site: int, key: Tensor, value: Tensor, root: Tensor) -> Tensor:
        """Values [B, S, hidden] whose sum of outer products with the keys is the ridge solution.

        root: [B, S], the gates' square roots. 1 + alpha keeps a lone memory's strength.
        """
        alpha = self.alpha[site].float().exp()
        with torch.autocast(key.device.type, enabled=False):
            rooted, wanted = key * root[..., None], value.float() * root[..., None]
            flat = rooted.transpose(1, 2)
            if key.shape[1] <= key.shape[2]:
                settled = solve(_system(rooted @ flat, alpha), wanted)
            else:  # the same by Woodbury's identity: a long text costs no cube of its length
                settled = wanted - alpha * rooted @ solve(
                    _system(flat @ rooted, alpha), flat @ wanted
                )
        return settled * root[..., None] * (1 + alpha)

    @torch.no_grad()
    def observe(self, inputs: Sequence[Tensor], mask: Tensor, momentum: float) -> None:
        """Move the running mean and spread of the sites' inputs towards these [B, S, inner]."""
        for site, seen in enumerate(inputs):
            rows = seen[mask].float()
            self.mean[site].lerp_(rows.mean(0), momentum)
            self.spread[site].lerp_(rows.std(0).clamp_min(1e-3), momentum)


def apply_write(inputs: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """dW applied to `inputs` [B, T, inner] without forming dW: [B, T, hidden]."""
    keys, values = keys.to(inputs.dtype), values.to(inputs.dtype)
    return (inputs @ keys.transpose(1, 2)) @ values


def low_rank(keys: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Nearly the best rank-`rank` LoRA (A [rank, inner], B [hidden, rank]) of sum_t v_t k_t^T.

    keys [S, inner], values [S, hidden]. Square roots of the singular values go to both sides;
    missing directions are zero rows. Where `rank` is far below S and hidden, the directions are
    found by subspace iteration (Halko et al., arXiv 0909.4061); else as Eckart-Young has them.
    """
    if rank + _SPARE < min(values.shape):
        left, right = _iterate(keys.float(), values.float(), rank)
    else:
        left, right = _decompose(keys.double(), values.double(), rank)
    weight = right.norm(dim=1)
    root = weight.sqrt()
    a = torch.zeros(rank, keys.shape[1])
    b = torch.zeros(values.shape[1], rank)
    a[: len(weight)] = right / root.clamp_min(1e-12)[:, None]
    b[:, : len(weight)] = left * root
    return a, b


def _iterate(keys: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """As `_decompose`; a few products with the square of the sum, from the same start each time."""
    if len(keys) > values.shape[1]:
        dense = values.T @ keys
        square = dense @ dense.T
    else:
        square = values.T @ (keys @ keys.T) @ values
    start = torch.Generator().manual_seed(0)
    span = torch.randn(len(square), rank + _SPARE, generator=start).to(square)
    for _ in range(_ROUNDS):
        span = torch.linalg.qr(square @ span).Q
    inner = span.T @ square @ span
    left = span @ torch.linalg.eigh(inner).eigenvectors.flip(1)[:, :rank]
    return left, (values @ left).T @ keys


def _decompose(keys: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Left singular vectors [hidden, k] of the sum and the rows [k, inner] they pick out of it."""
    if len(keys) > values.shape[1]:
        dense = values.T @ keys
        left = torch.linalg.eigh(dense @ dense.T).eigenvectors.flip(1)[:, :rank]
        return left, left.T @ dense
    q_value, r_value = torch.linalg.qr(values.T)
    q_key, r_key = torch.linalg.qr(keys.T)
    left, weight, right = torch.linalg.svd(r_value @ r_key.T, full_matrices=False)
    picked = weight[:rank, None] * (right[:rank] @ q_key.T)
    return q_value @ left[:, :rank], picked

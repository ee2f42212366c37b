"""The way of the cross-entropy gradient from a base's output back to its residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skillc_compiler.families.host import Host

# Gemma's layers have a norm between the MLP and the residual stream.
_AFTER_MLP = "post_feedforward_layernorm"


@torch.no_grad()
def pushes(host: Host, sites: Sequence[int]) -> Tensor:
    """For each site the diagonal that the norms behind it put on a gradient.

    [sites, hidden, hidden], float32, on the CPU; the model's weights must be in memory.
    Of a root-mean-square norm that is its weights; what the norm divides by is left to the gain.
    The mean square of each diagonal is 1.
    """
    final = _gains(host.model.base_model.norm, host.hidden)
    found = []
    for site in sites:
        after = getattr(host.layers[site], _AFTER_MLP, None)
        gains = final if after is None else final * _gains(after, host.hidden)
        found.append(torch.diag(gains / gains.square().mean().sqrt()))
    return torch.stack(found)


def _gains(norm: nn.Module, hidden: int) -> Tensor:
    """What a norm multiplies by: its answer to a row whose mean square is 1 already."""
    weight = next(norm.parameters())
    answer: Tensor = norm(torch.ones(1, 1, hidden, dtype=weight.dtype, device=weight.device))
    return answer[0, 0].float().cpu()

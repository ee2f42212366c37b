"""The way of the cross-entropy gradient from a base's output back to its residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from skillc_compiler.families.host import Host

# Gemma's layers have a norm between the MLP and the residual stream.
_AFTER_MLP = "post_feedforward_layernorm"


@torch.no_grad()
def pushes(host: Host, sites: Sequence[int]) -> Tensor:
    """For each site the diagonal that the norms behind it put on a gradient.

    [sites, hidden, hidden], float32, on the CPU. Of a root-mean-square norm that is its weights;
    what the norm divides by is left to the gain. The mean square of each diagonal is 1.
    """
    final = host.model.base_model.norm
    after = [getattr(host.layers[site], _AFTER_MLP, None) for site in sites]
    gains = _gains(host, [final, *(norm for norm in after if norm is not None)])
    found = []
    for norm in after:
        gain = gains[final] if norm is None else gains[final] * gains[norm]
        found.append(torch.diag(gain / gain.square().mean().sqrt()))
    return torch.stack(found)


def _gains(host: Host, norms: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
    """What each norm multiplies by: its answer to a row whose mean square is 1 already."""
    found: dict[nn.Module, Tensor] = {}

    def ask(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        ones = torch.ones_like(given[0][:1, :1])
        found[norm] = norm.forward(ones)[0, 0].float().cpu()

    # While the base runs, since a layer may have its weights only then.
    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(ask).remove)
        host.run(host.embed(host.ids([0])))
    return found

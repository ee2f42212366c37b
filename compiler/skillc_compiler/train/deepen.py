"""Deepening: a trained pair's weights for a base with more layers, which at first does the same.

A new layer adds nothing to the residual stream until it is trained, as the matrices it writes with
are zero (progressive stacking without its repetition; ReZero, arXiv 2003.04887, starts layers so,
too). So a pair that answers can get depth without being trained anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_STATE = re.compile(r"state_norms\.\d+\.weight")
_WRITES = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def deepened(
    weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], new: Sequence[int]
) -> dict[str, Tensor]:
    """A base's weights with the layers `new` (numbers in the deeper base) as `fresh` has them."""
    count = 1 + max(int(layer[1]) for name in weights if (layer := _LAYER.fullmatch(name)))
    kept = [number for number in range(count + len(new)) if number not in new]
    found = {name: value for name, value in weights.items() if not _LAYER.fullmatch(name)}
    for name, value in fresh.items():
        if not (layer := _LAYER.fullmatch(name)):
            continue
        number, part = int(layer[1]), layer[2]
        if number in new:
            found[name] = torch.zeros_like(value) if part in _WRITES else value
        else:
            found[name] = weights[f"model.layers.{kept.index(number)}.{part}"]
    return found


def deepened_writer(weights: Mapping[str, Tensor], new: Sequence[int]) -> dict[str, Tensor]:
    """A writer's weights for the deeper base: what it reads behind a new layer counts nothing yet.

    The residual stream behind layer n is state n + 1.
    """
    states = sum(map(bool, map(_STATE.fullmatch, weights)))
    hidden = len(weights["state_norms.0.weight"])
    added = {number + 1 for number in new}
    found = {name: value for name, value in weights.items() if not _STATE.fullmatch(name)}
    read, columns, old = weights["read.weight"], [], 0
    for state in range(states + len(new)):
        source = old - 1 if state in added else old
        found[f"state_norms.{state}.weight"] = weights[f"state_norms.{source}.weight"].clone()
        seen = read[:, source * hidden : (source + 1) * hidden]
        columns.append(torch.zeros_like(seen) if state in added else seen)
        old += state not in added
    found["read.weight"] = torch.cat((*columns, read[:, old * hidden :]), 1)
    return found

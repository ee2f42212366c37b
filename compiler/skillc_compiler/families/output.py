"""What a base predicts next, without a row of logits for every token at once."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 8192
"""Rows of the output layer that are multiplied at once: they bound the memory, not the result."""


def predict(hidden: Tensor, table: Tensor, successors: Tensor) -> tuple[Tensor, Tensor]:
    """The expected output embedding under the prediction, and the successors' loss.

    hidden [S, H] is what the output layer reads, table [V, H] its weight (any float type, on any
    device), successors [S] token ids. Gives sum_v p(v) table[v] as float32 [S, H], and
    -log p(successor) as float32 [S], on the device of `hidden`. The softmax runs over blocks of
    the vocabulary (Milakov and Gimelshein 2018, arXiv 1805.02867).
    """
    read = hidden.float()
    most = torch.full((len(read), 1), -torch.inf, device=read.device)
    total = torch.zeros_like(most)
    mixed = torch.zeros_like(read)
    for start in range(0, len(table), BLOCK):
        rows = table[start : start + BLOCK].to(read.device).float()
        logits = read @ rows.T
        higher = torch.maximum(most, logits.amax(-1, keepdim=True))
        kept, shares = (most - higher).exp(), (logits - higher).exp()
        total = total * kept + shares.sum(-1, keepdim=True)
        mixed = mixed * kept + shares @ rows
        most = higher
    said = (read * rows_of(table, successors, read.device)).sum(-1)
    return mixed / total, (most + total.log())[:, 0] - said


def rows_of(table: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """table[ids] as float32 on `device`."""
    return table[ids.to(table.device)].to(device).float()

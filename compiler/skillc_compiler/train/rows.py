"""Padded rows of token segments, and which positions of a row may see which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

SKILL = 0  # segment of the skill's own tokens; questions count from 1; padding is -1
IGNORE = -100


@dataclass
class Rows:
    """tokens, positions, segments, labels [B, L] int64; weights [B, L] float32; heads [B, L] bool.

    heads: what comes before the first user turn, where a *tail* adapter does not act.
    Attention stays within blocks of `block` tokens; no segment crosses a block's border.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    labels: Tensor
    weights: Tensor
    heads: Tensor
    block: int

    def to(self, device: torch.device) -> Rows:
        """The same rows on `device`."""
        parts = {name: part.to(device) for name, part in vars(self).items() if name != "block"}
        return replace(self, **parts)

    def mask(self) -> Tensor:
        """[blocks, 1, block, block]: causal, own segment and, for questions, the skill's."""
        segments = self.segments.view(-1, self.block)
        own = segments[:, :, None] == segments[:, None, :]
        skill = (segments == SKILL)[:, None, :] & (segments >= SKILL)[:, :, None]
        causal = torch.ones(self.block, self.block, dtype=torch.bool, device=segments.device).tril()
        return ((own | skill) & causal)[:, None]


class Row:
    """One row under construction."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[int] = []
        self.labels: list[int] = []
        self.weights: list[float] = []
        self.heads: list[bool] = []
        self.spans: list[tuple[int, int]] = []

    def add(
        self, ids: Sequence[int], weights: Sequence[float], segment: int, start: int, head: int = 0
    ) -> None:
        """Append a segment; weights[i] is the loss weight of predicting ids[i] from ids[:i]."""
        self.spans.append((len(self.tokens), len(self.tokens) + len(ids)))
        self.tokens += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.labels += [*ids[1:], IGNORE]
        self.weights += [*weights[1:], 0.0]
        self.heads += [i < head for i in range(len(ids))]

    def fill(self, pad: int, count: int) -> None:
        """Append padding."""
        self.tokens += [pad] * count
        self.positions += [0] * count
        self.segments += [-1] * count
        self.labels += [IGNORE] * count
        self.weights += [0.0] * count
        self.heads += [False] * count

    def copy(self, other: Row, begin: int, end: int) -> None:
        """Append a span of another row."""
        self.tokens += other.tokens[begin:end]
        self.positions += other.positions[begin:end]
        self.segments += other.segments[begin:end]
        self.labels += other.labels[begin:end]
        self.weights += other.weights[begin:end]
        self.heads += other.heads[begin:end]


def _ceil(size: int, step: int) -> int:
    return -(-size // step) * step


def in_blocks(rows: Sequence[Row], pad: int) -> Rows:
    """Pack rows of independent segments so that none crosses the border of a block."""
    longest = _ceil(max(end - begin for row in rows for begin, end in row.spans), 32)
    block = min(range(longest, 2 * longest + 64, 32), key=lambda b: _spread(rows, b))
    spaced = []
    for row in rows:
        out = Row()
        for begin, end in row.spans:
            if end - begin > (room := block - len(out.tokens) % block):
                out.fill(pad, room)
            out.copy(row, begin, end)
        spaced.append(out)
    return pack(spaced, pad, block)


def _spread(rows: Sequence[Row], block: int) -> int:
    """The padded length of the longest row when packed into blocks of `block`."""
    most = 0
    for row in rows:
        size = 0
        for begin, end in row.spans:
            room = block - size % block
            size += end - begin + (room if end - begin > room else 0)
        most = max(most, _ceil(size, block))
    return most


def pack(rows: Sequence[Row], pad: int, block: int = 0) -> Rows:
    """Pad rows to a common length: a multiple of `block`, or of 32 and one block each."""
    length = _ceil(max(len(row.tokens) for row in rows), block or 32)
    count = len(rows)
    tokens = np.full((count, length), pad, dtype=np.int64)
    positions = np.zeros((count, length), dtype=np.int64)
    segments = np.full((count, length), -1, dtype=np.int64)
    labels = np.full((count, length), IGNORE, dtype=np.int64)
    weights = np.zeros((count, length), dtype=np.float32)
    heads = np.zeros((count, length), dtype=np.bool_)
    for i, row in enumerate(rows):
        size = len(row.tokens)
        tokens[i, :size], positions[i, :size] = row.tokens, row.positions
        segments[i, :size], labels[i, :size] = row.segments, row.labels
        weights[i, :size], heads[i, :size] = row.weights, row.heads
    arrays = (tokens, positions, segments, labels, weights, heads)
    parts = [torch.from_numpy(array) for array in arrays]
    return Rows(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], block or length)

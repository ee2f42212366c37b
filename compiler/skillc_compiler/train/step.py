"""One joint step: the base reads the skill, the writer writes, the base answers both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler.families.writer_net import Reading, WriterNet
from skillc_compiler.train.nano import Nano, Trace, Writes
from skillc_compiler.train.packing import Batch
from skillc_compiler.train.rows import IGNORE, Rows


@dataclass
class Score:
    """A weighted loss and the token counts behind the accuracies."""

    loss: Tensor
    entry_right: int
    entry_all: int
    later_right: int
    later_all: int


def score(model: Nano, hidden: Tensor, rows: Rows) -> Score:
    """Weighted cross-entropy at every position with weight > 0; answers have weight >= 1."""
    weights = rows.weights.flatten()
    picked = (weights > 0).nonzero().squeeze(1)
    logits = model.logits(hidden.flatten(0, 1)[picked]).float()
    labels = rows.labels.flatten()[picked]
    weights = weights[picked]
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORE)
    with torch.no_grad():
        right = logits.argmax(-1) == labels
        entry, later = weights > 1.0, weights == 1.0
    return Score(
        (losses * weights).sum() / weights.sum(),
        int(right[entry].sum()), int(entry.sum()), int(right[later].sum()), int(later.sum()),
    )  # fmt: skip


def read_skill(model: Nano, trace: Trace, batch: Batch, lengths: list[int]) -> Reading:
    """What the writer sees of the skills' own tokens; the last token has no successor."""
    size = max(lengths)
    tokens = batch.read.tokens[:, :size]
    lens = torch.tensor(lengths)
    mask = torch.arange(size)[None] < (lens - 1)[:, None]
    successors = torch.roll(tokens, -1, dims=1)
    embed = model.model.embed_tokens.weight
    nexts = model.model.embed_tokens(successors) * mask[..., None]
    with torch.no_grad():
        logits = model.logits(trace.hidden[:, :size])
        nll = F.cross_entropy(logits.flatten(0, 1), successors.flatten(), reduction="none")
        expected = logits.softmax(-1).to(logits.dtype)
    surprise = nexts - expected @ embed
    return Reading(
        states=[h[:, :size] for h in trace.states],
        inputs=[a[:, :size] for a in trace.inputs],
        nexts=nexts,
        surprise=surprise * mask[..., None],
        nll=nll.view_as(tokens) * mask,
        mask=mask,
    )


def write(
    writer: WriterNet, reading: Reading, order: list[list[int]]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Writes by layer; row b gets the memories of the skills `order[b]` (none, one or several)."""
    writes = {}
    most = max(1, *(len(row) for row in order))
    index = torch.tensor([row + [0] * (most - len(row)) for row in order])
    used = torch.tensor([[1.0] * len(row) + [0.0] * (most - len(row)) for row in order])
    for layer, (keys, values) in zip(writer.config.sites, writer(reading), strict=True):
        if most == 1:
            writes[layer] = (keys[index[:, 0]], values[index[:, 0]] * used[:, :1, None])
        else:
            joined = values[index] * used[:, :, None, None]
            writes[layer] = (keys[index].flatten(1, 2), joined.flatten(1, 2))
    return writes


@dataclass
class Outcome:
    """The two arms of a step."""

    text: Score
    adapter: Score


def joint_step(
    model: Nano, writer: WriterNet, batch: Batch, order: list[list[int]], momentum: float
) -> Outcome:
    """Both arms of one batch; `order[b]` names the skills whose adapters row b's questions get."""
    sites = writer.config.sites
    trace = model(batch.read.tokens, batch.read.positions, batch.read.mask(), sites=sites)
    text = score(model, trace.hidden, batch.read)
    reading = read_skill(model, trace, batch, batch.lengths)
    if momentum:
        writer.observe(reading.inputs, reading.mask, momentum)
    writes: Writes = write(writer, reading, order)
    answered = model(batch.ask.tokens, batch.ask.positions, batch.ask.mask(), writes)
    return Outcome(text, score(model, answered.hidden, batch.ask))

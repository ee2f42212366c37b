"""One joint step: the base reads the skill, the writer writes, the base answers both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler.families.writer_net import Memories, Reading, WriterNet
from skillc_compiler.train import ops
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


def read_skill(model: Nano, trace: Trace, read: Rows, lengths: list[int]) -> Reading:
    """What the writer sees of the skills' own tokens; the last token has no successor."""
    size = max(lengths)
    tokens = read.tokens[:, :size]
    lens = torch.tensor(lengths, device=tokens.device)
    mask = torch.arange(size, device=tokens.device)[None] < (lens - 1)[:, None]
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


def written(
    writer: WriterNet, proposed: Sequence[Memories], order: list[list[int]], rank: int
) -> list[tuple[Tensor, Tensor]]:
    """A write a site: row b gets the memories of the skills `order[b]` (none, one or several).

    Several are solved for together, as sets are served, and cut to the sum of their ranks (0: not).
    """
    most = max(1, *(len(row) for row in order))
    device = proposed[0].keys.device
    index = torch.tensor([row + [0] * (most - len(row)) for row in order], device=device)
    used = torch.tensor(
        [[1.0] * len(row) + [0.0] * (most - len(row)) for row in order], device=device
    )
    picked = [
        Memories(
            found.keys[index].flatten(1, 2),
            found.values[index].flatten(1, 2),
            (found.roots[index] * used[..., None]).flatten(1, 2),
        )
        for found in proposed
    ]
    rank = rank * most
    return [
        (keys, truncated(keys, values, rank) if 0 < rank < values.shape[-1] else values)
        for keys, values in writer.settle(picked)
    ]


@dataclass(frozen=True)
class Options:
    """How a step's adapters are used: cut to `rank` (0: not at all), `tail` or full activation."""

    rank: int = 0
    tail: bool = False


FULL = Options()


@dataclass
class Outcome:
    """The two arms of a step, and how far the adapters are from where they should be silent.

    idle: KL (nats a token) from the bare base to the base with adapters, on unrelated texts.
    teach: the same from the text arm to the adapter arm, on the answers both gave.
    trace: what the base saw in the text arm's rows.
    """

    trace: Trace
    text: Score
    adapter: Score
    idle: Tensor | None
    teach: Tensor | None


def joint_step(
    model: Nano,
    writer: WriterNet,
    batch: Batch,
    order: list[list[int]],
    momentum: float,
    options: Options = FULL,
    *,
    taught: bool = False,
) -> Outcome:
    """Both arms of one batch; `order[b]` names the skills whose adapters row b's questions get."""
    sites = writer.config.sites
    trace = model(batch.read.tokens, batch.read.positions, batch.read.mask(), sites=sites)
    text = score(model, trace.hidden, batch.read)
    reading = read_skill(model, trace, batch.read, batch.lengths)
    if momentum:
        writer.observe(reading.inputs, reading.mask, momentum)
    proposed, alone = writer.propose(reading), [[row] for row in range(len(order))]
    own: Writes = dict(zip(sites, written(writer, proposed, alone, options.rank), strict=True))
    writes = own
    if order != alone:
        writes = dict(zip(sites, written(writer, proposed, order, options.rank), strict=True))
    ask = batch.ask
    keep = ~ask.heads if options.tail else None
    answered = model(ask.tokens, ask.positions, ask.mask(), writes, keep=keep)
    return Outcome(
        trace,
        text,
        score(model, answered.hidden, ask),
        silence(model, batch.idle, own) if batch.idle is not None else None,
        _lesson(model, trace.hidden, answered.hidden, batch, order) if taught else None,
    )


@torch.no_grad()
def _span(keys: Tensor, values: Tensor, rank: int) -> Tensor:
    """Orthonormal [B, hidden, rank] that spans (nearly) the top left singular vectors of the sum.

    One round of subspace iteration with twice a spectrum's power (Halko et al., arXiv 0909.4061).
    """
    dense = values.transpose(1, 2) @ keys
    square = dense @ dense.transpose(1, 2)
    start = torch.randn(len(dense), dense.shape[1], rank, device=dense.device)
    span: Tensor = torch.linalg.qr(square @ (square @ start)).Q
    return span


def truncated(keys: Tensor, values: Tensor, rank: int) -> Tensor:
    """Values [B, S, hidden] whose write has at most `rank`: the cut that compiling makes.

    The gradient passes through the projection, not through the choice of its directions.
    """
    with ops.exact(keys.device):
        span = _span(keys.float(), values.float(), rank)
        return (values.float() @ span) @ span.transpose(1, 2)


def silence(model: Nano, rows: Rows, writes: Writes) -> Tensor:
    """KL from the bare base to the base with row b's own adapter, mean over weighted tokens."""
    mask = rows.mask()
    picked = (rows.weights.flatten() > 0).nonzero().squeeze(1)
    with torch.no_grad():
        bare = model(rows.tokens, rows.positions, mask).hidden.flatten(0, 1)[picked]
        target = model.logits(bare).float().log_softmax(-1)
    hidden = model(rows.tokens, rows.positions, mask, writes).hidden.flatten(0, 1)[picked]
    found = model.logits(hidden).float().log_softmax(-1)
    return F.kl_div(found, target, reduction="batchmean", log_target=True)


def _lesson(
    model: Nano, read: Tensor, asked: Tensor, batch: Batch, order: list[list[int]]
) -> Tensor | None:
    """KL from the text arm's answers to the adapter arm's, where both were asked the same."""
    both = [b for b, used in enumerate(order) if b in used]
    rows = torch.tensor(both, device=batch.read.tokens.device)
    if not len(rows):
        return None
    most = batch.read.segments.clone()
    most[batch.read.weights < 1.0] = -1
    last = most.max(dim=1).values
    teacher = _answers(batch.read, rows, last)
    pupil = _answers(batch.ask, rows, last)
    if not len(teacher) or len(teacher) != len(pupil):
        return None
    with torch.no_grad():
        target = model.logits(read.flatten(0, 1)[teacher]).float().log_softmax(-1)
    found = model.logits(asked.flatten(0, 1)[pupil]).float().log_softmax(-1)
    return F.kl_div(found, target, reduction="batchmean", log_target=True)


def _answers(rows: Rows, picked: Tensor, last: Tensor) -> Tensor:
    """Flat places of the answers to row b's questions 1 to last[b], for the picked rows."""
    wanted = (rows.weights >= 1.0) & (rows.segments >= 1) & (rows.segments <= last[:, None])
    chosen = torch.zeros(len(wanted), 1, dtype=torch.bool, device=wanted.device)
    chosen[picked] = True
    return (wanted & chosen).flatten().nonzero().squeeze(1)

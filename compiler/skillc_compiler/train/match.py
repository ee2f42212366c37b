"""Matching: which line of which document answers a question, said by single attention heads.

A base of a few layers looks a command up with heads that attend, from where the answer begins, to
where commands begin. Trained by answers alone they did find commands, and of those any: of a
document's six, asked for in other words, two heads put 80% and 89% of their attention on commands'
first tokens and a sixth of that on the right one. So these heads are also trained to tell the
right one from all of a batch, across documents (InfoNCE, van den Oord et al., arXiv 1807.03748):
every question is weighed against dozens of lines instead of six. No weights are added; the heads
are those that answer. Commands that begin alike are compared also where they part: the beginning of
an answer with the token that goes on in the line. A writer's keys are taught in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.train import ops
from skillc_compiler.train.heads import Heads, projected
from skillc_compiler.train.lines import Matches
from skillc_compiler.train.lookups import NOTHING
from skillc_compiler.train.nano import Nano, Trace
from skillc_compiler.train.recipe import Matchers
from skillc_compiler.train.rows import Rows
from skillc_compiler.train.step import read_skill

_FAR = -1e4
_STANDING_OUT = 3.0  # the weight of a score's distance from the mean, in standard deviations


def compare(
    model: Nano, writer: WriterNet | None, matches: Matches, matchers: Matchers
) -> dict[str, Found]:
    """How well lines are told apart: `match` by the heads, `match_writes` by a writer's keys."""
    layers = None if writer else _layers(matchers.heads)
    sites = writer.config.sites if writer else ()
    told = _trace(model, matches.documents, sites, layers)
    found = {"match": _by_heads(model, matches, told, matchers.heads)}
    if writer is not None:
        found["match_writes"] = _by_keys(model, writer, matches, told, matchers.sites)
    return found


def _by_heads(model: Nano, matches: Matches, told: Trace, heads: Heads) -> Found:
    """How well each of the heads (layer, head) tells the right line on its own.

    Every document but a question's own also teaches that it has no answer: there the head is to
    find its first token, which stands for nothing, rather than any of its lines.
    """
    documents = projected(model, matches.documents, told, heads, "k")
    trace = _trace(model, matches.questions, layers=_layers(heads))
    questions = projected(model, matches.questions, trace, heads, "q")
    scale = model.config.head_dim**-0.5
    at, of = _places(matches.documents), _places(matches.questions)
    with ops.exact(matches.same.device):
        scores, nothings = [], []
        for query, key in zip(questions, documents, strict=True):
            asked = query[of].float() * scale
            scores.append(asked @ key[at].float().T)
            nothings.append(asked @ key[:, NOTHING].float().T)
        found = _found(scores, matches)
        lost = [
            within(score, nothing, matches, at[0])
            for score, nothing in zip(scores, nothings, strict=True)
        ]
        return Found(found.loss + torch.stack(lost).mean(), found.right)


def within(scores: Tensor, nothing: Tensor, matches: Matches, document: Tensor) -> Tensor:
    """Loss of each question in each document: its line, or `nothing` [K, documents] without one.

    document: [K], that of each line. Questions with an answer in the document weigh as much as all
    others together; of those that may have one none is asked.
    """
    inside = F.one_hot(document, nothing.shape[1]).bool()
    lines = torch.where(inside[None], scores[:, :, None], _FAR)
    right = torch.where(matches.same[:, :, None], lines, _FAR).logsumexp(1)
    has = (matches.same.float() @ inside.float()) > 0
    near = (matches.near.float() @ inside.float()) > 0
    losses = torch.logaddexp(lines.logsumexp(1), nothing) - torch.where(has, right, nothing)
    lost = losses[has].mean()
    return lost if near.all() else lost + losses[~near].mean()


def _by_keys(
    model: Nano, writer: WriterNet, matches: Matches, told: Trace, layers: Sequence[int]
) -> Found:
    """How well a writer's keys at these layers tell lines apart by what `down_proj` is given.

    A write adds up all its values, each weighed by its key: what counts is how far the right one
    stands out. So the weights of a question are compared after division by their own spread. The
    writes of a question's own document are attached while it is read, as when it is answered. No
    gradient reaches what the base read in the documents.
    """
    sites = writer.config.sites
    with torch.no_grad():
        reading = read_skill(model, told, matches.documents, matches.lengths)
    memories = writer(reading)
    writes = dict(zip(sites, memories, strict=True))
    rows = matches.questions
    asked = model(rows.tokens, rows.positions, rows.mask(), writes, sites=sites)
    at, of = _places(matches.documents), _places(rows)
    scores = []
    with ops.exact(matches.same.device):
        for layer in layers:
            site = sites.index(layer)
            weights = asked.inputs[site][of].float() @ memories[site][0][at].float().T
            weights = weights - weights.mean(1, keepdim=True)
            scores.append(_STANDING_OUT * weights / weights.std(1, keepdim=True).clamp_min(1e-6))
        return _found(scores, matches)


@dataclass
class Found:
    """The mean loss (nats) of finding lines for questions and the reverse; each one's share right.

    right: [heads or layers], float32.
    """

    loss: Tensor
    right: Tensor


def _found(scores: Sequence[Tensor], matches: Matches) -> Found:
    """Of all lines; another one about the same is neither right nor wrong."""
    losses, right = [], []
    doubtful = matches.near & ~matches.same
    for each in scores:
        clear = each.masked_fill(doubtful, _FAR)
        losses += [_nce(clear, matches.same), _nce(clear.T, matches.same.T)]
        best = each.detach().argmax(1, keepdim=True)
        right.append(matches.same.gather(1, best).float().mean())
    return Found(torch.stack(losses).mean(), torch.stack(right))


def _nce(scores: Tensor, same: Tensor) -> Tensor:
    right = scores.masked_fill(~same, float("-inf")).logsumexp(1)
    return (scores.logsumexp(1) - right).mean()


def _places(rows: Rows) -> tuple[Tensor, ...]:
    return (rows.weights > 0).nonzero(as_tuple=True)


def _layers(heads: Heads) -> int:
    """How many layers there are below the heads."""
    return max(layer for layer, _ in heads)


def _trace(model: Nano, rows: Rows, sites: Sequence[int] = (), layers: int | None = None) -> Trace:
    trace: Trace = model(rows.tokens, rows.positions, rows.mask(), sites=sites, layers=layers)
    return trace

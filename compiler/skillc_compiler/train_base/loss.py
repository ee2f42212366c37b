"""The loss of one skill: a frozen base answers with the skill's factors attached, and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from skillc_compiler.families.host import Host
from skillc_compiler.train_base.lessons import Lesson, Row
from skillc_compiler.train_base.recipe import Loss
from skillc_compiler.train_base.trainable import Trainable


@dataclass
class Told:
    """A loss with a gradient, and its parts as numbers (means over their tokens, in nats)."""

    loss: Tensor
    parts: dict[str, float]


@dataclass(frozen=True)
class Choices:
    """At each place the likeliest tokens [N, k] and their probabilities, which sum to 1."""

    tokens: Tensor
    probabilities: Tensor


def lesson_loss(student: Trainable, lesson: Lesson, weights: Loss) -> Told:
    """The loss of one skill: answers, the text arm's choices, recitation, and what is to stay."""
    host = student.host
    quiet = [Row(ids, 1) for ids in lesson.quiet]
    # Reading the text once more for every question costs the most: not for nothing.
    taught = lesson.taught if weights.teacher else []
    with torch.no_grad():
        asked = bool(weights.teacher)
        text_arm = choices(logits_of(host, taught), weights.top_k) if asked else None
        usual = choices(logits_of(host, quiet), weights.top_k)
    recited = [lesson.recited] if lesson.recited is not None else []
    with host.attached(student.factors(lesson.text)):
        said = logits_of(host, [*lesson.asked, *recited, *quiet])
    sizes = [sum(len(row.answer) for row in rows) for rows in (lesson.asked, recited, quiet)]
    answers, recitation, rest = torch.split(said, sizes)
    loss = weights.quiet * divergence(rest, usual)
    parts = {"quiet": float(loss.detach())}
    if lesson.asked:
        told = answer_loss(answers, lesson.asked, weights.entry)
        loss = loss + weights.answer * told
        parts["answer"] = float(told.detach())
    if taught and text_arm is not None:
        close = divergence(answers, text_arm)
        loss = loss + weights.teacher * close
        parts["teacher"] = float(close.detach())
    if recited:
        repeated = F.cross_entropy(recitation, wanted(recited).to(recitation.device))
        loss = loss + weights.recite * repeated
        parts["recite"] = float(repeated.detach())
    return Told(loss, parts)


def logits_of(host: Host, rows: Sequence[Row]) -> Tensor:
    """Logits [N, vocab] float32 in front of every answer token of the rows, one after another."""
    if not rows and not host.sharded:
        return torch.zeros(0, len(host.output), device=host.device)
    # No pass of the others goes through without this process: one token, no answer.
    rows = rows or [Row([0], 1)]
    # Padding comes last, where a causal model's answers do not see it.
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True)
    hidden = host.model.base_model(ids.to(host.device), use_cache=False).last_hidden_state
    parts = [hidden[n, row.start - 1 : len(row.ids) - 1] for n, row in enumerate(rows)]
    table = host.output
    logits: Tensor = F.linear(torch.cat(parts).to(table.device, table.dtype), table)
    return logits.float().to(host.device)


def choices(logits: Tensor, count: int) -> Choices:
    """The `count` likeliest tokens at each place."""
    found, tokens = logits.softmax(-1).topk(min(count, logits.shape[-1]), dim=-1)
    return Choices(tokens, found / found.sum(-1, keepdim=True))


def divergence(logits: Tensor, teacher: Choices) -> Tensor:
    """KL(teacher's likeliest || logits), mean over places, in nats."""
    told = logits.log_softmax(-1).gather(-1, teacher.tokens)
    known = teacher.probabilities
    return (known * (known.clamp_min(1e-12).log() - told)).sum(-1).mean()


def answer_loss(logits: Tensor, rows: Sequence[Row], entry: float) -> Tensor:
    """Cross-entropy of the answers' tokens, their first ones weighted by `entry`, in nats."""
    losses = F.cross_entropy(logits, wanted(rows).to(logits.device), reduction="none")
    heavy = [[entry] + [1.0] * (len(row.answer) - 1) for row in rows]
    weights = torch.tensor([w for row in heavy for w in row], device=logits.device)
    return (losses * weights).sum() / weights.sum()


def wanted(rows: Sequence[Row]) -> Tensor:
    """The answers' tokens, one after another."""
    return torch.tensor([token for row in rows for token in row.answer])

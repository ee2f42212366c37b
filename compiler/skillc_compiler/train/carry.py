"""Carrying: a layer in which a command's tokens see its first one, an answer's where it began.

What a line says is gathered where its command begins, what a question asks where its answer does;
the heads of `train.match` compare both. Where a command is half said both lie further back, and a
base of a few layers has no layer left to fetch them: of six lines whose commands begin alike the
heads found the right one .82 of the time by the first tokens, .50 by those at which they part. So
a new layer fetches them. Where to look is taught first, its queries and keys alone; then it adds a
share of what stands there to the residual stream, and joint training goes on from that.
"""

from __future__ import annotations

import random
from math import sqrt

import torch
from torch import Tensor

from skillc_compiler.data.generate import Generator, Sample, Shape
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.lookups import Lookups, looked, occurrences
from skillc_compiler.train.nano import Attention, Layer, Nano
from skillc_compiler.train.packing import Batch, Item, Weights, make_batch
from skillc_compiler.train.progress import Progress
from skillc_compiler.train.recipe import Carry
from skillc_compiler.train.rows import Rows

_SHAPE = Shape((2, 7), 6, 0.4, 0.0, 0.1, 0.05, others=0.45)
_IN_TEXT = 4
_LONGEST = 700  # tokens of a document
_SHARP = 1.5  # the scale of queries and keys to begin with
_FROM_AFAR, _STAYING = (
    80,
    60,
)  # tokens of a row that are taught to look elsewhere, and at themselves


def teach_carrying(
    model: Nano, layer: int, encoder: Encoder, carry: Carry, seed: int
) -> list[float]:
    """Teach a new layer where to look, then let it carry; the attention there, step by step."""
    attention = _attention(model, layer)
    with torch.no_grad():
        attention.q_norm.weight.fill_(_SHARP)
        attention.k_norm.weight.fill_(_SHARP)
    matrices = [attention.q_proj.weight, attention.k_proj.weight]
    norms = [attention.q_norm.weight, attention.k_norm.weight]
    groups = [{"params": matrices, "lr": carry.rate}, {"params": norms, "lr": 3 * carry.rate}]
    optimizer = torch.optim.Adam(groups)
    heads = [(layer, head) for head in range(model.config.num_attention_heads)]
    progress, shares, tokens = Progress("carry", carry.steps, 0), [], 0
    for step in range(carry.steps):
        batch, lookups = make_carries(encoder, random.Random(f"{seed}/{step}/carry"), carry.skills)
        rows = batch.read
        with torch.no_grad():
            trace = model(rows.tokens, rows.positions, rows.mask(), layers=layer)
        loss, share = looked(model, rows, trace, lookups, heads)
        torch.autograd.backward(loss)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        shares.append(share)
        tokens += rows.tokens.numel()
        progress.update(step + 1, f"seen {share:.3f}", tokens)
        if step + 1 == carry.steps:
            _let_carry(attention, trace.states[layer][rows.segments >= 0], carry.share)
    return shares


def make_carries(
    encoder: Encoder, rng: random.Random, skills: int, split: str = "train"
) -> tuple[Batch, Lookups]:
    """Documents and questions with answers, and for some of their tokens where they should look."""
    generator = Generator(split, rng.getrandbits(40), _SHAPE)
    samples = [generator.sample() for _ in range(skills)]
    items = [Item(sample) for sample in samples]
    batch = make_batch(
        items, encoder, Weights(), rng, max_skill=_LONGEST, in_text=_IN_TEXT, recite=0
    )
    lookups = Lookups()
    for row, (sample, size) in enumerate(zip(samples, batch.lengths, strict=True)):
        sources = {
            **command_sources(sample, encoder, size),
            **answer_sources(batch.read, row, encoder),
        }
        used = int((batch.read.segments[row] >= 0).sum())
        staying = [place for place in range(used) if sources.get(place, place) == place]
        moving = [place for place in sources if sources[place] != place]
        for places, most in ((moving, _FROM_AFAR), (staying, _STAYING)):
            for place in rng.sample(places, min(most, len(places))):
                lookups.add(row, place, [sources.get(place, place)])
    return batch, lookups


def command_sources(sample: Sample, encoder: Encoder, size: int) -> dict[int, int]:
    """By place of a token of a command or value in a document of `size` tokens: its first one's."""
    told = encoder.tokenizer.encode(sample.text, add_special_tokens=False)
    shift = len(encoder.open_system)
    found: dict[int, int] = {}
    for value in {fact.value for fact in sample.facts}:
        for at in occurrences(sample.text, value):
            first, last = told.char_to_token(at), told.char_to_token(at + len(value) - 1)
            if first is not None and last is not None:
                span = range(first + shift, min(last + shift + 1, size))
                found.update(dict.fromkeys(span, first + shift))
    return found


def answer_sources(rows: Rows, row: int, encoder: Encoder) -> dict[int, int]:
    """By place of a token of an answer: that of the token before the answer."""
    tokens, segments = rows.tokens[row].tolist(), rows.segments[row].tolist()
    opening = encoder.open_assistant
    found: dict[int, int] = {}
    start = None
    for place, token in enumerate(tokens):
        if start is not None and (token == encoder.end or segments[place] != segments[start]):
            start = None
        if start is not None:
            found[place] = start
        elif tokens[max(0, place + 1 - len(opening)) : place + 1] == opening:
            start = place
    return found


def _attention(model: Nano, layer: int) -> Attention:
    found = model.model.layers[layer]
    assert isinstance(found, Layer)
    return found.self_attn


@torch.no_grad()
def _let_carry(attention: Attention, states: Tensor, share: float) -> None:
    """Values and outputs that add, of what is looked at, `share` at the size that `states` have."""
    size = states.square().mean(-1).sqrt().mean()
    matrix = attention.v_proj.weight
    turned = torch.linalg.qr(torch.randn(matrix.shape[1], matrix.shape[0])).Q.T
    scale = sqrt(share * float(size))
    matrix.copy_(scale * turned)
    attention.o_proj.weight.copy_(scale * turned.T)

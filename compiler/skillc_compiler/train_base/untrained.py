"""Compilers before their first step: sizes from base and recipe, weights from the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.calibrate import candidates
from skillc_compiler.families.chat_prompt import base_prompt
from skillc_compiler.families.gradient import pushes
from skillc_compiler.families.host import Host
from skillc_compiler.families.m2p import M2P
from skillc_compiler.families.m2p_net import M2PConfig, M2PNet, memory_tokens
from skillc_compiler.families.perceiver import Perceiver
from skillc_compiler.families.perceiver_net import PerceiverConfig, PerceiverNet
from skillc_compiler.families.taps import SITE
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import WriterConfig, WriterNet
from skillc_compiler.train_base.lessons import Lessons, lessons_of
from skillc_compiler.train_base.recipe import Recipe
from skillc_compiler.train_base.trainable import Trainable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base

_IDENTITY = ("in-training", "0" * 64)
_OBSERVED = 16
"""Skills whose activations give the mean and spread of a site's inputs."""
_SAMPLED = 4096
"""Embeddings whose spread the memory tokens begin with."""


def untrained(base: Base, model: Any, tokenizer: Tokenizer, recipe: Recipe, seed: int) -> Trainable:
    """The recipe's compiler for `base`, the same in every process. Raises CompilerError."""
    makers: dict[str, Callable[[Base, Any, Tokenizer, Recipe, int], Trainable]] = {
        "writer": _writer,
        "m2p": _m2p,
        "perceiver": _perceiver,
    }
    torch.manual_seed(seed)
    student = makers[recipe.family](base, model, tokenizer, recipe, seed)
    student.net.to(student.host.device).train()
    return student


def _writer(base: Base, model: Any, tokenizer: Tokenizer, recipe: Recipe, seed: int) -> Writer:
    """One step of the gradient on the text, whatever the text."""
    host = Host(model)
    net = WriterNet(writer_config(host, recipe))
    net.push.data.copy_(pushes(host, net.config.sites))
    net.scale.data.mul_(recipe.writer.gain)
    writer = Writer(base, model, tokenizer, net, _IDENTITY)
    _observe(writer, lessons_of(writer, recipe, seed))
    return writer


def writer_config(host: Host, recipe: Recipe) -> WriterConfig:
    """The sizes of a writer for this base. Raises CompilerError for sites that it has not."""
    (first, *_) = host.sites([SITE])
    layers, shape = len(host.layers), recipe.writer
    sites = shape.sites or candidates(layers)
    if not all(0 <= site < layers for site in sites):
        raise CompilerError(f"recipe {recipe.name}: sites {list(sites)}, the base has {layers}")
    return WriterConfig(
        hidden=host.hidden,
        inner=first.d_in,
        layers=layers,
        vocab=len(host.table),
        sites=tuple(sorted(sites)),
        width=shape.width,
        blocks=shape.blocks,
        heads=shape.heads,
    )


@torch.no_grad()
def _observe(writer: Writer, lessons: Lessons) -> None:
    """Mean and spread of the sites' inputs, over generated texts; fixed from then on."""
    for number in range(_OBSERVED):
        reading = writer.read(lessons.make(-1, number).text)
        writer.net.observe(reading.inputs, reading.mask, 1 / (number + 1))


def _m2p(base: Base, model: Any, tokenizer: Tokenizer, recipe: Recipe, seed: int) -> M2P:
    """The published start, with memory tokens of the size of the base's embeddings."""
    host, shape = Host(model), recipe.m2p
    sites, layers = host.sites(), len(host.layers)
    if host.hidden % shape.heads:
        raise CompilerError(f"recipe {recipe.name}: heads in [m2p] must divide {host.hidden}")
    try:
        memory = memory_tokens(sites, host.hidden, layers, shape.rank)
    except ValueError as error:
        raise CompilerError(f"recipe {recipe.name}: rank in [m2p]: {error}") from error
    config = M2PConfig(
        hidden=host.hidden,
        layers=layers,
        memory=memory,
        rank=shape.rank,
        meta_rank=shape.meta_rank,
        heads=shape.heads,
        feed_forward=shape.widening * host.hidden,
        blocks=shape.blocks,
        scale=shape.scale,
        context=recipe.data.max_skill,
        prefix=_frame(base, tokenizer),
    )
    net = M2PNet(config, sites)
    nn.init.normal_(net.memory, std=float(host.table[:_SAMPLED].float().std()))
    return M2P(base, model, tokenizer, net, _IDENTITY)


def _perceiver(
    base: Base, model: Any, tokenizer: Tokenizer, recipe: Recipe, seed: int
) -> Perceiver:
    """The published start: every update is zero, the bias too."""
    host, shape = Host(model), recipe.perceiver
    (first, *_) = host.sites([SITE])
    config = PerceiverConfig(
        hidden=host.hidden,
        layers=len(host.layers),
        inputs={SITE: first.d_in},
        outputs={SITE: first.d_out},
        rank=shape.rank,
        latent=shape.latent,
        queries=shape.queries,
        encoder_blocks=shape.encoder_blocks,
        decoder_blocks=1,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        residual_blocks=shape.residual_blocks,
        alpha=shape.gain * 2 * shape.rank**1.5,
        chunk=shape.chunk,
        prefix=_frame(base, tokenizer),
    )
    return Perceiver(base, model, tokenizer, PerceiverNet(config), _IDENTITY)


def _frame(base: Base, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens in front of a system message: where a writer's text stands too."""
    frame, _ = base_prompt(base, tokenizer).reading("text")
    return tuple(frame)

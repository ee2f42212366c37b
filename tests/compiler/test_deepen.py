"""A pair with a layer more: it answers as before until it is trained."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from skillc_compiler.bases import find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.train.cli import load_pair
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.recipe import Recipe, load_recipe
from skillc_compiler.train.rows import Rows
from skillc_compiler.train.step import read_skill


def rows(tokens: torch.Tensor) -> Rows:
    shape = tokens.shape
    positions = torch.arange(shape[1]).expand(shape)
    zeros = torch.zeros(shape, dtype=torch.long)
    heads = torch.zeros(shape, dtype=torch.bool)
    return Rows(tokens, positions, zeros, tokens, torch.ones(shape), heads, block=shape[1])


def deeper(recipe: Recipe, new: tuple[int, ...]) -> Recipe:
    """The recipe with layers more at `new`, sites and all else where they were."""
    count = recipe.base.num_hidden_layers + len(new)
    kept = [number for number in range(count) if number not in new]
    sites = tuple(kept[site] for site in recipe.writer.sites)
    return replace(
        recipe,
        base=replace(recipe.base, num_hidden_layers=count),
        writer=replace(recipe.writer, layers=count, sites=sites),
        deepen=new,
    )


def shipped() -> Recipe:
    """A recipe of the shape of the base that ships."""
    base = find_base("nano")
    assert base.compiler_dir is not None
    writer = json.loads((base.compiler_dir / "compiler.json").read_text("utf-8"))["writer"]
    name = "nano-deep" if writer["layers"] == 5 else "nano"
    return replace(load_recipe(name), deepen=())


@pytest.mark.parametrize("new", [(2,), (0,), (1, 3), (6,)])
def test_new_layers_change_nothing_yet(new: tuple[int, ...]) -> None:
    old = shipped()
    size = old.base.num_hidden_layers
    new = tuple(min(layer, size) for layer in new)
    tokens = torch.randint(0, old.base.vocab_size, (1, 40))
    written = []
    for recipe in (old, deeper(old, new)):
        model, writer = Nano(recipe.base), WriterNet(recipe.writer)
        load_pair(find_base("nano"), model, writer, recipe.deepen)
        read = rows(tokens)
        with torch.no_grad():
            trace = model(read.tokens, read.positions, read.mask(), sites=recipe.writer.sites)
            memories = writer(read_skill(model, trace, read, [40]))
        written.append([trace.hidden, *(part for pair in memories for part in pair)])
    for before, after in zip(*written, strict=True):
        assert torch.allclose(before, after, atol=1e-4)


def test_new_layers_can_be_trained() -> None:
    old = shipped()
    recipe = deeper(old, (2,))
    model = Nano(recipe.base)
    load_pair(find_base("nano"), model, None, recipe.deepen)
    read = rows(torch.randint(0, recipe.base.vocab_size, (1, 20)))
    hidden = model(read.tokens, read.positions, read.mask()).hidden
    torch.autograd.backward(model.logits(hidden).square().mean())
    named = dict(model.named_parameters())
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        gradient = named[f"model.layers.2.{part}.weight"].grad
        assert gradient is not None and gradient.abs().max() > 0


def test_a_layer_too_few_is_no_start() -> None:
    recipe = deeper(shipped(), (1, 3))
    with pytest.raises(CompilerError, match="cannot be started from"):
        load_pair(find_base("nano"), Nano(recipe.base), None, (1,))

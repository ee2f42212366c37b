"""A new layer learns to look to where a command, or an answer, begins, and carries it on."""

from __future__ import annotations

import random

import pytest
import torch
from tests.compiler.test_deepen import deeper, shipped

from skillc_compiler.bases import find_base
from skillc_compiler.data.generate import Generator, Shape
from skillc_compiler.gguf_base import read_tokenizer
from skillc_compiler.train.carry import command_sources, make_carries, teach_carrying
from skillc_compiler.train.cli import load_pair
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.nano import Layer, Nano
from skillc_compiler.train.recipe import Carry


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(read_tokenizer(find_base("nano").gguf))


def test_tokens_look_to_where_commands_and_answers_begin(encoder: Encoder) -> None:
    batch, lookups = make_carries(encoder, random.Random(3), skills=4)
    elsewhere = {"document": 0, "answer": 0, "itself": 0}
    for row, place, (source,) in zip(lookups.rows, lookups.places, lookups.wanted, strict=True):
        tokens = batch.read.tokens[row].tolist()
        assert source <= place
        if source == place:
            elsewhere["itself"] += 1
        elif place < batch.lengths[row]:
            elsewhere["document"] += 1
        else:
            opening = encoder.open_assistant
            assert tokens[source + 1 - len(opening) : source + 1] == opening
            assert encoder.end not in tokens[source : place + 1]
            elsewhere["answer"] += 1
    assert min(elsewhere.values()) > 20


def test_every_token_of_a_command_looks_to_its_first(encoder: Encoder) -> None:
    generator = Generator("val", 0, Shape((2, 7), 6))
    for _ in range(20):
        sample = generator.sample()
        tokens = encoder.skill(sample.text)
        found = command_sources(sample, encoder, len(tokens))
        said = []
        for source in set(found.values()):
            span = [place for place, start in found.items() if start == source]
            assert span == list(range(source, source + len(span)))
            said.append(encoder.tokenizer.decode([tokens[place] for place in span]))
        for fact in sample.facts:
            if fact.kind == "command":
                assert any(fact.value in each for each in said), (fact.value, said)
        assert all(place < 30 for place in command_sources(sample, encoder, 30))


def test_a_new_layer_is_taught_to_carry(encoder: Encoder) -> None:
    recipe = deeper(shipped(), (2,))
    torch.manual_seed(0)
    model = Nano(recipe.base)
    assert load_pair(find_base("nano"), model, None, recipe.deepen)
    others = {n: p.clone() for n, p in model.state_dict().items() if ".layers.2." not in n}
    shares = teach_carrying(model, 2, encoder, Carry(steps=12, skills=2), seed=0)
    assert shares[-1] > max(0.5, 3 * shares[0])
    layer = model.model.layers[2]
    assert isinstance(layer, Layer)
    attention = layer.self_attn
    carried = attention.o_proj.weight @ attention.v_proj.weight
    size = carried.diagonal().mean()
    assert size > 1.0 and torch.allclose(carried, size * torch.eye(len(carried)), atol=1e-3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())

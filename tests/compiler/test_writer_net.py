"""The writer's mathematics: factors, memories, and the plain module against transformers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.compiler import tiny
from torch.nn import functional as F

from skillc_compiler.families.writer_net import (
    Reading,
    WriterConfig,
    WriterNet,
    apply_write,
    joined,
    low_rank,
    solve,
)
from skillc_compiler.gguf_base import read_base_weights
from skillc_compiler.torch_base import load_torch_base
from skillc_compiler.train.nano import Nano, NanoConfig

CONFIG = NanoConfig(
    vocab_size=520,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
)
WRITER = WriterConfig(
    hidden=64, inner=96, layers=2, vocab=520, sites=(0, 1), width=32, blocks=1, heads=2
)


def reading(length: int, batch: int = 1) -> Reading:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[:, -1] = False
    return Reading(
        [noise(batch, length, 64) for _ in range(3)],
        [noise(batch, length, 96) + 1 for _ in range(2)],
        noise(batch, length, 64),
        noise(batch, length, 64),
        noise(batch, length).abs(),
        mask,
    )


def test_full_rank_factors_are_the_sum_of_outer_products() -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(20, 96), torch.randn(20, 64)
    a, b = low_rank(keys, values, 20)
    assert torch.allclose(b @ a, values.T @ keys, atol=1e-4)


@pytest.mark.parametrize("length", [50, 200])
def test_truncation_is_the_best_approximation(length: int) -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(length, 96), torch.randn(length, 64)
    a, b = low_rank(keys, values, 8)
    dense = values.T @ keys
    singular = torch.linalg.svdvals(dense)
    error = torch.linalg.matrix_norm(dense - b @ a)
    assert torch.isclose(error, singular[8:].square().sum().sqrt(), rtol=1e-4)
    assert a.shape == (8, 96) and b.shape == (64, 8)
    assert torch.allclose(a.norm(dim=1), b.norm(dim=0), rtol=1e-3)


@pytest.mark.parametrize("length", [150, 600])
def test_iterated_directions_are_as_good_as_the_best(length: int) -> None:
    torch.manual_seed(0)
    keys = torch.randn(length, 320)
    values = torch.randn(length, 256) * torch.logspace(0, -2, 256)
    a, b = low_rank(keys, values, 64)
    dense = values.T @ keys
    best = torch.linalg.svdvals(dense)[64:].square().sum().sqrt()
    assert torch.linalg.matrix_norm(dense - b @ a) < 1.005 * best
    assert torch.allclose(a.norm(dim=1), b.norm(dim=0), rtol=1e-3)
    again = low_rank(keys, values, 64)
    assert torch.equal(a, again[0]) and torch.equal(b, again[1])


def test_fewer_memories_than_rank_leave_zero_directions() -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(3, 96), torch.randn(3, 64)
    a, b = low_rank(keys, values, 8)
    assert a.shape == (8, 96) and not a[3:].any()
    assert torch.allclose(b @ a, values.T @ keys, atol=1e-4)


def test_apply_write_is_the_dense_update() -> None:
    torch.manual_seed(0)
    keys, values, inputs = torch.randn(1, 9, 96), torch.randn(1, 9, 64), torch.randn(1, 5, 96)
    dense = values[0].T @ keys[0]
    assert torch.allclose(apply_write(inputs, keys, values)[0], inputs[0] @ dense.T, atol=1e-3)


def test_keys_ignore_the_mean_input() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    net.mean.normal_(1.0, 0.3)
    net.spread.uniform_(0.5, 2.0)
    for site, (keys, values) in enumerate(net(reading(12))):
        assert keys.shape == (1, 12, 96) and values.shape == (1, 12, 64)
        assert (keys[0] @ net.mean[site]).abs().max() < 1e-4


def test_masked_tokens_write_nothing() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    seen = reading(12)
    seen.mask[:, 6:] = False
    for _, values in net(seen):
        assert not values[:, 6:].any()
        assert values[:, :6].any()


def _solved(
    net: WriterNet, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor
) -> torch.Tensor:
    """dW [hidden, inner] of one text's memories."""
    settled = net._settled(0, key[None], value[None], gate.sqrt()[None])[0]
    return settled.T @ key


def test_a_small_alpha_sums_the_memories() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    net.alpha.data.fill_(math.log(1e-6))
    key, value = F.normalize(torch.randn(12, 96), dim=-1), torch.randn(12, 64)
    gate = torch.rand(12) * 2
    with torch.no_grad():
        found = _solved(net, key, value, gate)
    assert torch.allclose(found, (value * gate[:, None]).T @ key, atol=1e-4)


def test_a_large_alpha_tells_keys_apart_that_resemble_each_other() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    net.alpha.data.fill_(math.log(1e4))
    key = F.normalize(torch.randn(12, 96) * 0.3 + torch.randn(96), dim=-1)
    value = torch.randn(12, 64)
    assert (key @ key.T).min() > 0.8
    with torch.no_grad():
        found = _solved(net, key, value, torch.ones(12))
    assert torch.allclose(found @ key.T, value.T, atol=0.02)


def test_a_closed_gate_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    key, value = F.normalize(torch.randn(12, 96) + 1, dim=-1), torch.randn(12, 64)
    gate = torch.ones(12)
    gate[8:] = 0
    with torch.no_grad():
        found = _solved(net, key, value, gate)
        alone = _solved(net, key[:8], value[:8], gate[:8])
    assert torch.allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("length", [20, 200])
def test_the_memories_minimise_the_ridge_regression(length: int) -> None:
    """Texts shorter and longer than a key has entries, which are solved differently."""
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    net.alpha.data.fill_(math.log(0.7))
    key, value = F.normalize(torch.randn(length, 96), dim=-1), torch.randn(length, 64)
    gate = torch.rand(length) * 2
    with torch.no_grad():
        found = _solved(net, key, value, gate) * 0.7 / 1.7
    slope = ((found @ key.T - value.T) * gate) @ key + found / 0.7
    assert slope.abs().max() < 1e-3 * found.abs().max()


def test_the_parts_of_a_text_are_solved_for_together() -> None:
    torch.manual_seed(0)
    net = WriterNet(WRITER)
    net.alpha.data.fill_(math.log(0.7))
    with torch.no_grad():
        parts = [net.propose(reading(30)), net.propose(reading(100))]
        for site, (keys, values) in enumerate(net.settle(joined(parts))):
            key = torch.cat([part[site].keys for part in parts], 1)[0]
            value = torch.cat([part[site].values for part in parts], 1)[0]
            gate = torch.cat([part[site].roots for part in parts], 1)[0].square()
            wanted = _solved(net, key, value, gate)
            assert torch.allclose(values[0].T @ keys[0] * net.spread[site], wanted, atol=1e-3)


def test_the_solution_has_the_gradient_of_its_system() -> None:
    torch.manual_seed(0)
    root = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def solved(root: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return solve(torch.eye(5, dtype=torch.float64) + root @ root.transpose(1, 2), wanted)

    assert torch.autograd.gradcheck(solved, (root, wanted))


def test_observe_moves_the_statistics() -> None:
    net = WriterNet(WRITER)
    seen = reading(400)
    net.observe(seen.inputs, seen.mask, 1.0)
    assert torch.allclose(net.mean, torch.ones(2, 96), atol=0.3)
    assert torch.allclose(net.spread, torch.ones(2, 96), atol=0.3)


@pytest.mark.slow
def test_nano_equals_transformers(tmp_path: Path) -> None:
    """The module that trains computes what Qwen3ForCausalLM computes from the shipped file."""
    base = tiny.write_base(tmp_path / "base.gguf").path
    model, _ = load_torch_base(base)
    config, state = read_base_weights(base)
    nano = Nano(CONFIG)
    nano.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    assert CONFIG.to_hf()["head_dim"] == config["head_dim"]
    tokens = torch.randint(0, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(40, 40, dtype=torch.bool).tril().expand(2, 1, 40, 40)
    with torch.inference_mode():
        trace = nano(tokens, torch.arange(40).expand(2, 40), mask)
        assert torch.allclose(nano.logits(trace.hidden), model(tokens).logits, atol=1e-4)

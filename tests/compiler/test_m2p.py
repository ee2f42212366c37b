"""The m2p family: the published shapes, unpacking by hand, and how it reads a base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler import published_cases as cases

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.host import Host, Site
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.m2p import M2P
from skillc_compiler.families.m2p_net import M2PConfig, M2PNet, memory_tokens, unpack
from skillc_compiler.gguf_names import LINEARS
from skillc_compiler.published.convert import import_compiler

QWEN3_8B = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 1024),
    "self_attn.v_proj": (4096, 1024),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (4096, 12288),
    "mlp.up_proj": (4096, 12288),
    "mlp.down_proj": (12288, 4096),
}


def sites_of(shapes: dict[str, tuple[int, int]], layers: int) -> list[Site]:
    return [
        Site(f"model.layers.{layer}.{name}", layer, name, *shapes[name])
        for layer in range(layers)
        for name in LINEARS
    ]


def test_the_published_configuration_has_the_published_shapes() -> None:
    sites = sites_of(QWEN3_8B, 36)
    memory = memory_tokens(sites, 4096, 36, rank=8)
    assert memory == 148
    config = M2PConfig(4096, 36, memory, 8, 128, heads=32, feed_forward=8192)
    with torch.device("meta"):
        net = M2PNet(config, sites)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["layer_pe"] == (36, 4096) and shapes["token_pe"] == (148, 4096)
    assert shapes["blocks.3.self_attn.in_proj_weight"] == (12288, 4096)
    assert shapes["blocks.0.linear1.weight"] == (8192, 4096)
    assert not any(block.norm_first for block in net.blocks)
    generated = 8 * sum(site.size for site in sites)
    assert generated == 148 * 4096 * 36 == 21_823_488
    count = {name: value.numel() for name, value in net.state_dict().items()}
    meta = sum(value for name, value in count.items() if name.startswith("meta_"))
    assert meta == 349_175_808
    assert sum(count.values()) - meta == pytest.approx(538e6, rel=0.01)


def test_what_does_not_divide_has_no_number_of_memory_tokens() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        memory_tokens(sites_of(QWEN3_8B, 36)[:7], 4096, 36, rank=1)


def test_unpacking_by_hand() -> None:
    sites = [Site("a", 0, "a", 2, 3), Site("b", 0, "b", 1, 2)]
    flat = torch.tensor(
        [1, 2, 3, 4, 10, 20, 30, 40, 50, 60, 5, 6, 7, 8, 9, 11], dtype=torch.float64
    )
    found = unpack(flat, sites, rank=2, scale=0.01)
    # A as [in, r] is [[1, 2], [3, 4]], B as [r, out] is [[10, 20, 30], [40, 50, 60]]; times 0.1.
    assert torch.allclose(found["a"][0], torch.tensor([[0.1, 0.3], [0.2, 0.4]]).double())
    assert torch.allclose(found["a"][1], torch.tensor([[1, 4], [2, 5], [3, 6]]).double())
    a, b = found["b"]
    assert torch.allclose(b @ a, 0.01 * torch.tensor([[5 * 7 + 6 * 9], [5 * 8 + 6 * 11]]).double())


@settings(deadline=None, max_examples=25)
@given(
    rank=st.integers(1, 4), d_in=st.integers(1, 5), d_out=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_the_scale_acts_once_on_the_update(rank: int, d_in: int, d_out: int, seed: int) -> None:
    sites = [Site("a", 0, "a", d_in, d_out)]
    torch.manual_seed(seed)
    flat = torch.randn(rank * (d_in + d_out), dtype=torch.float64)
    raw_a, raw_b = unpack(flat, sites, rank, 1.0)["a"]
    a, b = unpack(flat, sites, rank, 0.001)["a"]
    assert torch.allclose(b @ a, 0.001 * raw_b @ raw_a)
    assert torch.allclose(a, raw_a * 0.001**0.5) and torch.allclose(b, raw_b * 0.001**0.5)


def test_a_flat_vector_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(9,\) flat parameters, 10 expected"):
        unpack(torch.zeros(9), [Site("a", 0, "a", 2, 3)], 2, 1.0)


@pytest.mark.parametrize("layer_first", [True, False])
def test_blocks_alternate_between_layers_and_tokens(layer_first: bool) -> None:
    config = M2PConfig(8, 3, 5, 1, 1, 2, 16, layer_first=layer_first)
    net = M2PNet(config, [])
    seen: list[tuple[int, ...]] = []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    net(torch.randn(1, 3, 5, 8))
    across, within = (5, 3, 8), (3, 5, 8)
    assert seen == ([across, within] if layer_first else [within, across]) * 2


def test_blocks_mix_only_along_their_axis() -> None:
    torch.manual_seed(0)
    net = M2PNet(M2PConfig(8, 3, 5, 1, 1, 2, 16, blocks=1), []).eval()
    with torch.no_grad():
        states = torch.randn(1, 3, 5, 8)
        changed = states.clone()
        changed[0, 1, 2] += torch.randn(8)
        differs = (net(states) - net(changed)).view(3, 5, 8).abs().amax(-1) > 1e-6
    wanted = torch.zeros(3, 5, dtype=torch.bool)
    wanted[:, 2] = True
    assert torch.equal(differs, wanted)


def test_norms_come_after_the_residual_sum() -> None:
    """With all other weights zero a post-norm block normalises its input; a pre-norm one copies."""
    net = M2PNet(M2PConfig(8, 2, 3, 1, 1, 2, 16, blocks=1), []).eval()
    for name, value in net.named_parameters():
        value.data.fill_(1.0 if "norm" in name and "weight" in name else 0.0)
    with torch.no_grad():
        out = net(torch.randn(1, 2, 3, 8) * 5 + 3).view(6, 8)
    assert torch.allclose(out.mean(-1), torch.zeros(6), atol=1e-5)
    assert torch.allclose(out.std(-1, correction=0), torch.ones(6), atol=1e-3)


def test_pooling_takes_the_mean_of_groups() -> None:
    net = M2PNet(M2PConfig(4, 1, 6, 1, 1, 1, 4, blocks=0, pool=2), [])
    states = torch.arange(24.0).view(1, 1, 6, 4)
    assert torch.equal(net(states).view(3, 4), (states[0, 0, :3] + states[0, 0, 3:]) / 2)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> M2P:
    folder = tmp_path_factory.mktemp("m2p")
    checkpoint = cases.write_memory_token(folder / "checkpoint")
    base = cases.base(folder / "tiny")
    import_compiler("shine", checkpoint, base, heads=4)
    loaded = load_compiler(cases.opened(base))
    assert isinstance(loaded, M2P)
    return loaded


def test_a_larger_rank_changes_nothing_and_a_smaller_one_cuts_best(compiler: M2P) -> None:
    full, wide, narrow = (compiler.compile(cases.skill(), rank=rank) for rank in (4, 64, 2))
    assert (full.rank, wide.rank, narrow.rank) == (4, 4, 2)
    assert narrow.alpha == narrow.manifest.rank == 2
    path = "model.layers.1.mlp.up_proj"
    assert np.array_equal(full.delta(path), wide.delta(path))
    singular = np.linalg.svd(full.delta(path), compute_uv=False)
    error = np.linalg.norm(full.delta(path) - narrow.delta(path))
    assert error == pytest.approx(float(np.sqrt((singular[2:] ** 2).sum())), rel=1e-3)


def test_a_long_text_is_read_in_pieces_that_know_each_other(compiler: M2P) -> None:
    text = cases.skill("More words about grafting trees in the orchard. " * 6)
    ids = compiler.tokens(text.text)
    half = -(-len(ids) // 2)
    config = M2PConfig.from_dict({**compiler.config.to_dict(), "context": half})
    long = M2P(compiler.base, compiler.host.model, compiler.tokenizer, compiler.net)
    long.config = config
    adapter = long.compile(text, rank=64)
    assert adapter.rank == 8
    path = "model.layers.0.self_attn.q_proj"
    with torch.inference_mode():
        first = long.read(ids[:half], {})
        apart = long.read(ids[half:], {})
        after = long.read(ids[half:], first)
    assert np.allclose(adapter.pairs[path].a[:4], first[path][0], atol=1e-5)
    assert np.allclose(adapter.pairs[path].a[4:], after[path][0], atol=1e-5)
    assert not np.allclose(after[path][0], apart[path][0], atol=1e-4)
    long.config = M2PConfig.from_dict({**config.to_dict(), "long": "truncate"})
    assert np.allclose(long.compile(text).pairs[path].a, first[path][0], atol=1e-5)


def test_gain_multiplies_the_update(compiler: M2P) -> None:
    louder = M2P(compiler.base, compiler.host.model, compiler.tokenizer, compiler.net)
    louder.config = M2PConfig.from_dict({**compiler.config.to_dict(), "gain": 2.0})
    path = "model.layers.0.mlp.down_proj"
    plain, loud = compiler.compile(cases.skill()), louder.compile(cases.skill())
    assert np.allclose(loud.delta(path), 2 * plain.delta(path), atol=1e-6)


def test_compiling_is_deterministic_and_fails_skill_by_skill(compiler: M2P) -> None:
    heard: list[Any] = []
    made = compiler.compile_many(
        [cases.skill(), cases.skill()], on_done=lambda skill, result: heard.append(result)
    )
    assert heard == made
    one, two = made
    assert not isinstance(one, CompilerError) and not isinstance(two, CompilerError)
    assert all(np.array_equal(one.pairs[p].b, two.pairs[p].b) for p in one.pairs)
    failed = compiler.compile_many([cases.skill()], rank=0)
    assert isinstance(failed[0], CompilerError) and "rank 0" in str(failed[0])


def test_what_torch_raises_over_one_skill_costs_that_skill(
    compiler: M2P, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(text: str) -> list[int]:
        raise RuntimeError("too odd")

    monkeypatch.setattr(compiler, "tokens", explode)
    (failed,) = compiler.compile_many([cases.skill()])
    assert isinstance(failed, CompilerError) and "unexpected RuntimeError: too odd" in str(failed)


def tiny_models() -> Sequence[Any]:
    """Random models of other architectures that transformers has."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 520,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
    }
    kinds = ("Llama", "Mistral", "Qwen2", "Gemma3")
    models = []
    for kind in kinds:
        suffix = "TextConfig" if kind == "Gemma3" else "Config"
        config = getattr(transformers, f"{kind}{suffix}")(**sizes)
        models.append(getattr(transformers, f"{kind}ForCausalLM")(config))
    return models


def test_any_decoder_of_transformers_can_be_read(compiler: M2P) -> None:
    for model in tiny_models():
        host = Host(model)
        sites = host.sites()
        assert [site.name for site in sites] == list(LINEARS) * 2, type(model).__name__
        memory = memory_tokens(sites, host.hidden, 2, rank=8)
        torch.manual_seed(1)
        net = M2PNet(M2PConfig(64, 2, memory, 8, 2, 4, 64), sites).eval()
        net.requires_grad_(False)
        net.memory.normal_()
        other = M2P(compiler.base, model, compiler.tokenizer, net)
        adapter = other.compile(cases.skill())
        assert set(adapter.pairs) == {site.path for site in sites}
        pair = adapter.pairs["model.layers.1.self_attn.k_proj"]
        assert pair.b.shape == (sites[1].d_out, 8)


def test_the_meta_lora_acts_only_while_reading(compiler: M2P) -> None:
    model, ids = compiler.host.model, compiler.host.ids([1, 2, 3])
    with torch.inference_mode():
        before = model(ids).logits
        with_meta = compiler.memory_states([1, 2, 3], {})
        compiler.net.meta_b[0].mul_(2)
        other = compiler.memory_states([1, 2, 3], {})
        compiler.net.meta_b[0].mul_(0.5)
        assert torch.equal(model(ids).logits, before)
    assert with_meta.shape == (2, cases.MEMORY, 64)
    assert not torch.allclose(with_meta, other)


def test_a_compiler_for_another_shape_is_refused(tmp_path: Path) -> None:
    base = cases.base(tmp_path / "tiny")
    import_compiler("shine", cases.write_memory_token(tmp_path / "c"), base, heads=4)
    path = base.gguf.parent / "compiler.json"
    path.write_text(path.read_text().replace('"memory": 70', '"memory": 71'))
    with pytest.raises(CompilerError, match="made for another shape of base"):
        load_compiler(cases.opened(base))
    path.write_text(path.read_text().replace('"memory"', '"memories"'))
    with pytest.raises(CompilerError, match=r"compiler.json: does not fit"):
        load_compiler(cases.opened(base))

"""The perceiver family: chunks, rank blocks and scales, as Doc-to-LoRA has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler import published_cases as cases

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.perceiver import Perceiver, combine, split
from skillc_compiler.families.perceiver_net import PerceiverConfig, PerceiverNet
from skillc_compiler.published.convert import import_compiler
from skillc_compiler.published.doc_to_lora import AFFIXES

NAME = "mlp.down_proj"
CONFIG = PerceiverConfig(
    hidden=8, layers=3, inputs={NAME: 5}, outputs={NAME: 4}, rank=2, latent=8, queries=3,
    encoder_blocks=1, decoder_blocks=1, heads=2, kv_heads=1, head_dim=4, residual_blocks=1,
    alpha=2 * 2**1.5,
)  # fmt: skip


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(100, 200), min_size=1, max_size=60),
    size=st.integers(1, 25),
    affixes=st.tuples(
        st.lists(st.integers(1, 9), max_size=3), st.lists(st.integers(11, 19), max_size=3)
    ),
)
def test_chunks_are_even_and_give_the_text_back(
    ids: list[int], size: int, affixes: tuple[list[int], list[int]]
) -> None:
    prefix, suffix = affixes
    chunks = split(ids, size, prefix, suffix)
    whole = [*prefix, *ids, *suffix]
    bare = [
        chunk[len(prefix) if n else 0 : len(chunk) - (len(suffix) if n < len(chunks) - 1 else 0)]
        for n, chunk in enumerate(chunks)
    ]
    assert [token for piece in bare for token in piece] == whole
    assert max(map(len, bare)) <= size
    assert len({len(piece) for piece in bare[:-1]}) <= 1
    for number, chunk in enumerate(chunks):
        if number:
            assert chunk[: len(prefix)] == prefix
        if number < len(chunks) - 1:
            assert chunk[len(chunk) - len(suffix) :] == suffix


def test_chunks_by_hand() -> None:
    assert split([1, 2, 3, 4, 5, 6], 4, [0], [9]) == [[0, 1, 2, 3, 9], [0, 4, 5, 6, 9]]
    assert split([1, 2], 9, [0], [9]) == [[0, 1, 2, 9]]
    with pytest.raises(ValueError, match="chunks of 0"):
        split([1], 0, [], [])


def made(number: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {NAME: (torch.full((3, 2, 5), float(number)), torch.full((3, 2, 4), -float(number)))}


def test_chunks_come_in_order_and_the_bias_once_and_last() -> None:
    net = PerceiverNet(CONFIG)
    a, b = combine([made(1), made(2), made(3)], net)[NAME]
    assert a.shape == (3, 8, 5) and b.shape == (3, 8, 4)
    assert a[0, :6, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert b[2, :6, 3].tolist() == [-1, -1, -2, -2, -3, -3]
    assert torch.equal(a[:, 6:], net.bias_a["down_proj"])
    assert torch.equal(b[:, 6:], net.bias_b["down_proj"])


def test_the_users_scaling_multiplies_both_factors_but_not_the_bias() -> None:
    net = PerceiverNet(replace(CONFIG, scaling=0.5))
    a, b = combine([made(1), made(2)], net)[NAME]
    assert a[0, :4, 0].tolist() == [0.5, 0.5, 1, 1] and b[0, 3, 0] == -1
    assert torch.equal(a[:, 4:], net.bias_a["down_proj"])


def test_averaged_chunks_and_no_bias() -> None:
    a, _ = combine([made(1), made(3)], PerceiverNet(replace(CONFIG, average=True, bias=False)))[
        NAME
    ]
    assert a.shape == (3, 2, 5) and torch.all(a == 2)


def test_a_fresh_network_changes_nothing() -> None:
    """scaler_B starts at 0 and bias_B too: every update is 0 until it is trained."""
    net = PerceiverNet(CONFIG)
    with torch.no_grad():
        a, b = net(torch.stack([net.summary(torch.randn(7, 8)) for _ in range(3)]))[NAME]
    assert a.abs().sum() > 0 and b.abs().sum() == 0
    assert not net.bias_b["down_proj"].any()


def test_rows_depend_on_direction_not_on_length() -> None:
    """The vectors are L2-normalised before the head."""
    net = PerceiverNet(replace(CONFIG, residual_blocks=0))
    summaries = torch.randn(3, 1, 2, 8)
    with torch.no_grad():
        one, three = net(summaries)[NAME][0], net(3 * summaries)[NAME][0]
        unit = summaries[1, 0, 1] / summaries[1, 0, 1].square().sum().sqrt()
        by_hand = unit @ net.head[1, 0][:, :5]
    assert torch.allclose(one, three, atol=1e-6)
    assert torch.allclose(one[1, 1], by_hand, atol=1e-6)


def test_layers_have_weights_of_their_own() -> None:
    net = PerceiverNet(CONFIG)
    summaries = torch.randn(1, 1, 2, 8).expand(3, 1, 2, 8)
    with torch.no_grad():
        a = net(summaries)[NAME][0]
    assert not torch.allclose(a[0], a[1]) and not torch.allclose(a[1], a[2])


def test_the_order_of_the_text_reaches_the_perceiver_only_through_the_base() -> None:
    """Cross-attention has no positions: permuted states give the same summary."""
    net = PerceiverNet(CONFIG)
    states = torch.randn(9, 8)
    with torch.no_grad():
        assert torch.allclose(net.summary(states), net.summary(states.flip(0)), atol=1e-5)


def test_the_published_configuration_has_the_published_sizes() -> None:
    config = PerceiverConfig(
        hidden=2304, layers=26, inputs={NAME: 9216}, outputs={NAME: 2304}, rank=8, latent=512,
        queries=8, encoder_blocks=8, decoder_blocks=1, heads=16, kv_heads=4, head_dim=128,
        residual_blocks=1, alpha=2 * 8**1.5,
    )  # fmt: skip
    assert round(config.alpha, 2) == 45.25
    with torch.device("meta"):
        net = PerceiverNet(config)
    sizes: dict[str, int] = {}
    for name, value in net.state_dict().items():
        part = name.partition(".")[0]
        sizes[part] = sizes.get(part, 0) + value.numel()
    millions = {part: round(size / 1e6, 1) for part, size in sizes.items()}
    assert millions["projection"] == 47.2 and millions["decoder"] == 5.8
    assert millions["encoder"] == 46.2 and millions["head"] == 153.4
    assert millions["blocks"] == 54.6
    assert round((sizes["bias_a"] + sizes["bias_b"]) / 1e6, 1) == 2.4
    assert round(sum(sizes.values()) / 1e6) == 309


def bring_in(folder: Path, **changes: Any) -> Perceiver:
    checkpoint = cases.write_doc2lora(folder / "d2l")
    base = cases.base(folder / "tiny")
    import_compiler("doc2lora", checkpoint, base, changes=changes)
    loaded = load_compiler(cases.opened(base))
    assert isinstance(loaded, Perceiver)
    return loaded


def test_a_smaller_rank_is_the_best_cut_and_folds_the_scale(tmp_path: Path) -> None:
    compiler = bring_in(tmp_path)
    full, cut = compiler.compile(cases.skill(), rank=16), compiler.compile(cases.skill(), rank=6)
    assert (full.rank, full.alpha, cut.rank, cut.alpha) == (16, 16.0, 6, 6.0)
    path = "model.layers.0.mlp.down_proj"
    singular = np.linalg.svd(full.delta(path), compute_uv=False)
    error = np.linalg.norm(full.delta(path) - cut.delta(path))
    assert error == pytest.approx(float(np.sqrt((singular[6:] ** 2).sum())), rel=1e-3)


def test_affixes_change_what_is_read(tmp_path: Path) -> None:
    bare, wrapped = bring_in(tmp_path / "bare"), bring_in(tmp_path / "wrapped", prefix=(1, 300))
    path = "model.layers.0.mlp.down_proj"
    one, two = bare.compile(cases.skill()), wrapped.compile(cases.skill())
    assert not np.allclose(one.delta(path), two.delta(path))
    assert {name: len(pair[0]) for name, pair in AFFIXES.items()} == {
        "gemma": 4, "mistral": 7, "qwen": 8,
    }  # fmt: skip


def test_a_compiler_for_another_shape_is_refused(tmp_path: Path) -> None:
    compiler = bring_in(tmp_path)
    path = compiler.base.gguf.parent / "compiler.json"
    path.write_text(path.read_text().replace('"mlp.down_proj": 96', '"mlp.down_proj": 97'))
    with pytest.raises(CompilerError, match="made for another shape of base"):
        load_compiler(compiler.base)

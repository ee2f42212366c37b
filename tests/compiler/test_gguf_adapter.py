"""Adapters written as GGUF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import tiny
from tests.compiler.llama import Llama, loaded

from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_adapter import adapter_to_gguf, pad_rank
from skillc_compiler.gguf_base import BaseInfo, tensor_values
from skillc_compiler.gguf_check import read_header, validate_adapter
from skillc_compiler.gguf_names import LINEARS, tensor_names

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseInfo:
    return tiny.write_base(tmp_path_factory.mktemp("base") / "base.gguf")


def with_pair(base: BaseInfo, module: str, pair: LoraPair) -> Adapter:
    made = tiny.adapter(base, ["mlp.up_proj"], rank=4)
    return replace(made, pairs={module: pair})


def ones(rank: int, d_in: int, d_out: int) -> LoraPair:
    return LoraPair(np.ones((rank, d_in), np.float32), np.ones((d_out, rank), np.float32))


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_same_adapter_same_bytes(base: BaseInfo, dtype: str) -> None:
    first = tiny.adapter(base, LINEARS, rank=12)
    shuffled = replace(first, pairs=dict(sorted(first.pairs.items(), reverse=True)))
    data = adapter_to_gguf(first, base, dtype)
    assert adapter_to_gguf(shuffled, base, dtype) == data
    assert adapter_to_gguf(tiny.adapter(base, LINEARS, rank=12, seed=1), base, dtype) != data


@pytest.mark.parametrize(("dtype", "bound"), [("f32", 2e-6), ("f16", 2e-3), ("q8_0", 2e-2)])
def test_the_file_holds_the_deltas(base: BaseInfo, dtype: str, bound: float) -> None:
    adapter = tiny.adapter(base, LINEARS, rank=12)
    data = adapter_to_gguf(adapter, base, dtype)
    checked = validate_adapter(data, base)
    names = tensor_names(base.arch, base.n_layers)
    assert len(checked.tensors) == 2 * len(adapter.pairs) == 28
    for module in adapter.pairs:
        factors = []
        for half in ("lora_a", "lora_b"):
            info = checked.tensors[f"{names[module]}.{half}"]
            factors.append(tensor_values(info, data[info.offset : info.offset + info.size]))
        a, b = factors
        delta = checked.alpha / a.shape[0] * (b @ a)
        assert np.abs(delta - adapter.delta(module)).max() < bound


def test_header_says_whose_it_is(base: BaseInfo) -> None:
    adapter = tiny.adapter(base, ["mlp.down_proj"], rank=4, alpha=6.5)
    fields = read_header(adapter_to_gguf(adapter, base)).fields
    assert fields["general.name"].value == "tiny"
    assert fields["skillc.base_hash"].value == base.hash
    assert fields["skillc.skill_hash"].value == "1" * 64
    assert fields["adapter.lora.alpha"].value == 6.5


def test_q8_0_pads_ranks_and_f32_does_not(base: BaseInfo) -> None:
    adapter = tiny.adapter(base, ["mlp.down_proj"], rank=12)
    assert validate_adapter(adapter_to_gguf(adapter, base, "f32"), base).rank == 12
    assert validate_adapter(adapter_to_gguf(adapter, base, "q8_0"), base).rank == 32


def test_q8_0_with_narrow_inputs_loads(tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "base.gguf", intermediate_size=80)
    adapter = tiny.adapter(base, ["mlp.down_proj"], rank=8)
    data = adapter_to_gguf(adapter, base, "q8_0")
    tensors = validate_adapter(data, base).tensors
    kinds = [tensors[f"blk.0.ffn_down.weight.{half}"].dtype.name for half in ("lora_a", "lora_b")]
    assert kinds == ["F16", "Q8_0"]
    (tmp_path / "adapter.gguf").write_bytes(data)
    with Llama(base.path) as llama, loaded(llama, tmp_path / "adapter.gguf") as handle:
        assert np.isfinite(llama.logits([1, 2, 3], [(handle, 1.0)])).all()


def test_padding_keeps_the_delta() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((20, 6), (5, 20)))
    pair = LoraPair(a, b)
    padded_a, padded_b = pad_rank(pair, 32)
    assert (padded_a.shape, padded_b.shape) == ((32, 6), (5, 32))
    np.testing.assert_allclose(padded_b @ padded_a / 32, pair.b @ pair.a / 20, atol=1e-6)
    assert pad_rank(pair, 4)[0] is pair.a


@pytest.mark.parametrize(
    ("module", "pair", "message"),
    [
        ("model.layers.2.mlp.up_proj", ones(4, 64, 96), "not a linear module"),
        ("model.layers.0.mlp.router", ones(4, 64, 96), "not a linear module"),
        ("model.layers.0.self_attn.q_norm", ones(4, 32, 32), "not a linear module"),
        ("model.embed_tokens", ones(4, 64, 520), "not a linear module"),
        ("lm_head", ones(4, 64, 520), "not a linear module"),
        (UP, ones(4, 96, 64), "is 96 x 64 in base tiny, the adapter's 64 x 96"),
        (UP, ones(257, 64, 96), "rank 257"),
    ],
)
def test_targets_the_base_lacks(base: BaseInfo, module: str, pair: LoraPair, message: str) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        adapter_to_gguf(with_pair(base, module, pair), base)
    assert module in str(caught.value)


def test_another_base_is_refused(base: BaseInfo) -> None:
    adapter = tiny.adapter(base, ["mlp.up_proj"], rank=4)
    with pytest.raises(AdapterError, match="build it again"):
        adapter_to_gguf(adapter, replace(base, hash="0" * 64))


@pytest.mark.parametrize("alpha", [1e-50, 1e5])
def test_alpha_out_of_range(base: BaseInfo, alpha: float) -> None:
    adapter = tiny.adapter(base, ["mlp.up_proj"], rank=4, alpha=alpha)
    with pytest.raises(AdapterError, match="alpha"):
        adapter_to_gguf(adapter, base)


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(base: BaseInfo, dtype: str, value: float) -> None:
    pair = ones(32, 64, 96)
    pair.a[3, 5] = value
    with pytest.raises(AdapterError, match=r"ffn_up.*cannot hold"):
        adapter_to_gguf(with_pair(base, UP, pair), base, dtype)


def test_values_too_large_for_f16(base: BaseInfo) -> None:
    pair = ones(32, 64, 96)
    pair.b[3, 5] = 1e5
    with pytest.raises(AdapterError, match="F16 cannot hold"):
        adapter_to_gguf(with_pair(base, UP, pair), base, "f16")


def test_unknown_dtype_and_architecture(base: BaseInfo) -> None:
    adapter = tiny.adapter(base, ["mlp.up_proj"], rank=4)
    with pytest.raises(AdapterError, match="bf16"):
        adapter_to_gguf(adapter, base, "bf16")
    with pytest.raises(AdapterError, match="phi3"):
        adapter_to_gguf(adapter, replace(base, arch="phi3"))

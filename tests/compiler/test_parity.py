"""An adapter acts in llama.cpp as its PEFT folder does in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler import tiny
from tests.compiler.llama import Llama, loaded

from skillc_compiler.adapter import Adapter, LoraPair, save_peft
from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.gguf_names import LINEARS
from skillc_compiler.torch_base import load_torch_base

pytestmark = [
    pytest.mark.slow,
    # peft asks transformers for an attribute that transformers has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

Logits = npt.NDArray[np.float32]
TOKENS = [1, 300, 41, 77, 200, 505, 90, 90, 12, 310, 2, 1, 45, 350, 411, 60, 33, 250, 18, 7] * 3


@dataclass
class Setup:
    """One base in both engines."""

    base: BaseInfo
    llama: Llama
    model: Any

    def peft(self, folder: Path, scale: float) -> Logits:
        """Logits of transformers with the PEFT folder at `scale`."""
        import torch
        from peft import PeftModel

        model = PeftModel.from_pretrained(self.model, folder)
        try:
            for module in model.modules():
                if hasattr(module, "set_scale"):
                    module.set_scale("default", scale)
            with torch.inference_mode():
                found: Logits = model(torch.tensor([TOKENS])).logits[0].numpy()
            return found
        finally:
            model.unload()

    def served(self, data: bytes, folder: Path, scale: float) -> Logits:
        """Logits of llama.cpp with these bytes attached at `scale`."""
        path = folder / "adapter.gguf"
        path.write_bytes(data)
        with loaded(self.llama, path) as handle:
            return self.llama.logits(TOKENS, [(handle, scale)])


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def setup(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setup]:
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    base = tiny.write_base(path, tie_word_embeddings=request.param)
    with Llama(path) as llama:
        yield Setup(base, llama, load_torch_base(path)[0])


def compare(setup: Setup, adapter: Adapter, folder: Path, dtype: str, scale: float) -> float:
    """The largest logit difference, after checking that the adapter changes the logits at all."""
    save_peft(adapter, folder / "peft")
    data = adapter_to_gguf(adapter, setup.base, dtype)
    theirs, ours = setup.peft(folder / "peft", scale), setup.served(data, folder, scale)
    assert np.abs(theirs - setup.llama.logits(TOKENS)).max() > 0.1
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("linear", LINEARS)
def test_each_target(setup: Setup, tmp_path: Path, linear: str) -> None:
    adapter = tiny.adapter(setup.base, [linear], rank=8, seed=1)
    assert compare(setup, adapter, tmp_path, "f32", 1.0) < 1e-4


@pytest.mark.parametrize("scale", [0.5, 1.0, -1.5])
def test_all_targets_at_scales(setup: Setup, tmp_path: Path, scale: float) -> None:
    adapter = tiny.adapter(setup.base, LINEARS, rank=8, seed=2)
    assert compare(setup, adapter, tmp_path, "f32", scale) < 1e-4


# q8_0 rounds each block of 32 to 1/127 of its largest value; the effect here is 3 to 5 logits.
@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-4), ("f16", 5e-3), ("q8_0", 0.15)])
@pytest.mark.parametrize("rank", [4, 20, 32])
def test_storage_types_and_padding(
    setup: Setup, tmp_path: Path, dtype: str, bound: float, rank: int
) -> None:
    adapter = tiny.adapter(setup.base, LINEARS, rank=rank, seed=3, alpha=7.0)
    assert compare(setup, adapter, tmp_path, dtype, 1.0) < bound


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_pairs_of_different_ranks(setup: Setup, tmp_path: Path, dtype: str) -> None:
    wide = tiny.adapter(setup.base, ["mlp.down_proj"], rank=40, seed=4)
    narrow = tiny.adapter(setup.base, ["mlp.up_proj", "self_attn.q_proj"], rank=3, seed=5)
    both = Adapter({**narrow.pairs, **wide.pairs}, wide.alpha, wide.manifest)
    assert compare(setup, both, tmp_path, dtype, 1.0) < (1e-4 if dtype == "f32" else 0.15)


def test_one_layer_only(setup: Setup, tmp_path: Path) -> None:
    whole = tiny.adapter(setup.base, ["mlp.down_proj"], rank=8, seed=6)
    last = {m: p for m, p in whole.pairs.items() if "layers.1." in m}
    adapter = Adapter(last, whole.alpha, whole.manifest)
    assert compare(setup, adapter, tmp_path, "f32", 1.0) < 1e-4


def test_lm_head_only_where_the_base_has_one(setup: Setup, tmp_path: Path) -> None:
    pair = LoraPair(np.ones((1, 64), np.float32), np.ones((520, 1), np.float32))
    made = tiny.adapter(setup.base, ["mlp.up_proj"], rank=1)
    adapter = Adapter({"lm_head": pair}, 0.01, made.manifest)
    if setup.base.tied:
        with pytest.raises(AdapterError, match="lm_head is not a linear module"):
            adapter_to_gguf(adapter, setup.base)
    else:
        assert compare(setup, adapter, tmp_path, "f32", 1.0) < 1e-4


def test_detaching_restores_the_base_bitwise(setup: Setup, tmp_path: Path) -> None:
    before = setup.llama.logits(TOKENS)
    for seed in range(3):
        adapter = tiny.adapter(setup.base, LINEARS, rank=8, seed=seed)
        attached = setup.served(adapter_to_gguf(adapter, setup.base), tmp_path, 1.0)
        assert np.abs(attached - before).max() > 0.1
        assert np.array_equal(setup.llama.logits(TOKENS), before)


def test_delta_is_what_both_apply(setup: Setup, tmp_path: Path) -> None:
    import torch

    module = "model.layers.1.mlp.down_proj"
    adapter = tiny.adapter(setup.base, ["mlp.down_proj"], rank=8, seed=8)
    adapter = Adapter({module: adapter.pairs[module]}, adapter.alpha, adapter.manifest)
    ours = setup.served(adapter_to_gguf(adapter, setup.base), tmp_path, 1.0)
    weight = setup.model.get_submodule(module).weight
    saved = weight.detach().clone()
    with torch.inference_mode():
        weight += torch.from_numpy(adapter.delta(module))
        theirs = setup.model(torch.tensor([TOKENS])).logits[0].numpy()
        weight.copy_(saved)
    assert np.abs(ours - theirs).max() < 1e-4

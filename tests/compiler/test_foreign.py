"""Adapters trained elsewhere: read from PEFT folders and GGUFs, and merged into a base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import stand_in, tiny
from tests.compiler.llama import Llama, loaded, quantize

from skillc_compiler.adapter import Adapter, LoraPair, save_peft
from skillc_compiler.errors import AdapterError
from skillc_compiler.foreign import FOREIGN, read_foreign
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo, read_base_info, read_base_weights
from skillc_compiler.gguf_header import read_header
from skillc_compiler.merge import write_merged
from skillc_compiler.skill import Skill, parse_skill

TOKENS = [1, 300, 41, 77, 200, 505, 90, 12, 310, 2] * 4
TEXT = b"---\nname: orchard\ndescription: How to pick apples.\n---\n\nPick them.\n"


@pytest.fixture(scope="module")
def skill() -> Skill:
    return parse_skill(TEXT, folder="orchard")


@pytest.fixture(scope="module")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> BaseInfo:
    """The architecture whose rows change places."""
    root = tmp_path_factory.mktemp("llama")
    return stand_in.write_gguf(stand_in.write_folder(root / "llama", "llama"), root / "base.gguf")


def same(ours: Adapter, theirs: Adapter, bound: float) -> None:
    assert ours.pairs.keys() == theirs.pairs.keys()
    for module in theirs.pairs:
        assert np.abs(ours.delta(module) - theirs.delta(module)).max() < bound, module


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-6), ("f16", 1e-3), ("q8_0", 1e-2)])
def test_a_gguf_gives_its_factors_back(
    llama_base: BaseInfo, skill: Skill, tmp_path: Path, dtype: str, bound: float
) -> None:
    adapter = stand_in.adapter(llama_base, stand_in.targets(llama_base), rank=6)
    path = tmp_path / "adapter.gguf"
    path.write_bytes(adapter_to_gguf(adapter, llama_base, dtype))
    found = read_foreign(path, skill, llama_base)
    assert found.gguf == path.read_bytes()
    same(found.adapter, adapter, bound)
    manifest = found.adapter.manifest
    assert (manifest.compiler_id, manifest.skill_hash) == (FOREIGN, skill.hash)
    assert (manifest.base_hash, manifest.source) == (llama_base.hash, "adapter.gguf")


def test_without_scaling_in_the_file(skill: Skill, tmp_path: Path) -> None:
    """alpha 0 says that the scale is in B, whatever the ranks are."""
    base = tiny.write_base(tmp_path / "base.gguf")
    wide = tiny.adapter(base, ["mlp.up_proj"], rank=8, alpha=8.0)
    narrow = tiny.adapter(base, ["mlp.down_proj"], rank=2, alpha=8.0)
    folded = {m: LoraPair(p.a, p.b * np.float32(4)) for m, p in narrow.pairs.items()}
    data = adapter_to_gguf(Adapter({**wide.pairs, **narrow.pairs}, 8.0, wide.manifest), base)
    fields = data.index(b"adapter.lora.alpha") + len("adapter.lora.alpha") + 4
    path = tmp_path / "adapter.gguf"
    path.write_bytes(data[:fields] + b"\0\0\0\0" + data[fields + 4 :])
    found = read_foreign(path, skill, base).adapter
    same(found, Adapter({**wide.pairs, **narrow.pairs}, 8.0, wide.manifest), 10.0)
    for module, pair in {**wide.pairs, **narrow.pairs}.items():
        np.testing.assert_allclose(found.delta(module), pair.b @ pair.a, atol=1e-5)
    assert folded.keys() < found.pairs.keys()


def test_a_peft_folder(skill: Skill, tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "base.gguf")
    adapter = tiny.adapter(base, ["mlp.up_proj", "self_attn.q_proj"], rank=4)
    save_peft(adapter, tmp_path / "peft")
    found = read_foreign(tmp_path / "peft", skill, base, "f32")
    same(found.adapter, adapter, 1e-6)
    assert found.warnings == ("it says that it was trained on tiny",)
    assert found.adapter.manifest.compiler_hash != adapter.manifest.compiler_hash


def edit(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return change


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def empty(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def not_json(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{", "utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (edit(init_lora_weights="pissa_niter_4"), "changes the base"),
        (edit(use_dora=True), "use_dora is not supported"),
        (edit(peft_type="IA3"), "not a LoRA configuration"),
        (edit(lora_alpha=0), "lora_alpha must be"),
        (pickled, "pickled"),
        (empty, "no such file"),
        (not_json, "not JSON"),
    ],
)
def test_what_is_refused(
    skill: Skill, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    base = tiny.write_base(tmp_path / "base.gguf")
    save_peft(tiny.adapter(base, ["mlp.up_proj"], rank=4), tmp_path / "peft")
    damage(tmp_path / "peft")
    with pytest.raises(AdapterError, match=problem) as caught:
        read_foreign(tmp_path / "peft", skill, base)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_shape_is_refused(skill: Skill, tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "base.gguf")
    other = tiny.write_base(tmp_path / "other.gguf", intermediate_size=128)
    adapter = tiny.adapter(other, ["mlp.up_proj"], rank=4)
    save_peft(adapter, tmp_path / "peft")
    with pytest.raises(AdapterError, match="is 96 x 64 in base tiny, the adapter's 128 x 64"):
        read_foreign(tmp_path / "peft", skill, base)
    (tmp_path / "a.gguf").write_bytes(adapter_to_gguf(adapter, other))
    with pytest.raises(AdapterError, match=r"a\.gguf: adapter refused"):
        read_foreign(tmp_path / "a.gguf", skill, base)


@pytest.mark.slow
def test_merged_weights_give_the_adapters_logits(llama_base: BaseInfo, tmp_path: Path) -> None:
    adapter = stand_in.adapter(llama_base, stand_in.targets(llama_base), rank=6)
    (tmp_path / "a.gguf").write_bytes(adapter_to_gguf(adapter, llama_base))
    changed = write_merged(llama_base, adapter, tmp_path / "merged.gguf", name="both")
    assert changed == len(adapter.pairs) == 15
    with Llama(llama_base.path) as llama, loaded(llama, tmp_path / "a.gguf") as handle:
        bare = llama.logits(TOKENS)
        attached = llama.logits(TOKENS, [(handle, 1.0)])
    merged = read_base_info(tmp_path / "merged.gguf")
    assert merged.name == "both"
    assert {k: v for k, v in merged.metadata.items() if "general." not in k} == {
        k: v for k, v in llama_base.metadata.items() if "general." not in k
    }
    with Llama(merged.path) as llama:
        ours = llama.logits(TOKENS)
    assert np.abs(attached - bare).max() > 1
    assert np.abs(ours - attached).max() < 1e-4


@pytest.mark.slow
def test_merging_into_a_quantised_base(tmp_path: Path) -> None:
    """What changes becomes Q8_0, what does not is copied byte for byte."""
    source, target = tmp_path / "wide.gguf", tmp_path / "q4.gguf"
    tiny.write_base(source, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    quantize(source, target, "Q4_K_M")
    base = read_base_info(target)
    adapter = tiny.adapter(base, ["mlp.up_proj"], rank=4)
    write_merged(base, adapter, tmp_path / "merged.gguf", name="both")
    before, after = read_header(target).tensors, read_header(tmp_path / "merged.gguf").tensors
    changed = {name for name in before if before[name].dtype is not after[name].dtype}
    assert changed == {"blk.0.ffn_up.weight"}
    assert after["blk.0.ffn_up.weight"].dtype.name == "Q8_0"
    _, old = read_base_weights(target)
    _, new = read_base_weights(tmp_path / "merged.gguf")
    for name, value in new.items():
        module = name.removesuffix(".weight")
        delta = adapter.delta(module) if module in adapter.pairs else np.float32(0)
        assert np.abs(value - old[name] - delta).max() < (2e-2 if module in adapter.pairs else 1e-9)
    with Llama(tmp_path / "merged.gguf") as llama:
        assert np.isfinite(llama.logits(TOKENS)).all()

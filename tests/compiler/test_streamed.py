"""Bases read layer by layer from the disk: the same numbers, one layer in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.compiler import stand_in
from tests.compiler.test_writer_bases import SKILL, install, open_writer

from skillc_compiler import torch_base
from skillc_compiler.bases import Base
from skillc_compiler.errors import BaseModelError
from skillc_compiler.families.host import Host
from skillc_compiler.torch_base import load_base, load_frozen, stays_on_disk

TOKENS = torch.arange(3, 35)[None]


def on_disk(base: Base, **load: str) -> Base:
    return Base(base.name, base.gguf, base.compiler_dir, base.hf, {"layers": "disk", **load})


@pytest.fixture(scope="module", params=list(stand_in.KINDS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp(request.param)
    folder = stand_in.write_folder(root / "hf", request.param)
    stand_in.write_gguf(folder, root / "base.gguf")
    return Base(request.param, root / "base.gguf", root, folder)


def test_both_sides_give_the_logits_of_the_whole_model(base: Base) -> None:
    with torch.inference_mode():
        wanted = load_base(base)[0](TOKENS).logits
        for one in (base, Base(base.name, base.gguf, base.compiler_dir)):
            model, _ = load_frozen(on_disk(one))
            assert Host(model).streamed
            for _ in range(2):
                assert torch.allclose(model(TOKENS).logits, wanted, atol=1e-4)
    assert float(wanted.std()) > 0.1


def test_one_layer_is_in_memory_at_a_time(base: Base) -> None:
    model, _ = load_frozen(on_disk(base))
    layers = Host(model).layers
    most: list[int] = []

    def real() -> int:
        return sum(all(p.device.type == "cpu" for p in layer.parameters()) for layer in layers)

    def count(module: Any, arguments: Any, output: Any) -> None:
        most.append(real())

    for layer in layers:
        next(iter(layer.children())).register_forward_hook(count)
    with torch.inference_mode():
        model(TOKENS)
    assert set(most) == {1} and len(most) == len(layers)
    assert real() == 0
    # What a failed pass leaves behind is no layer either.
    handle = next(iter(layers[1].children())).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"), torch.inference_mode():
        model(TOKENS)
    handle.remove()
    assert real() == 0


def fail(module: Any, arguments: Any, output: Any) -> None:
    raise RuntimeError("stop")


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_an_adapter_compiled_from_the_disk_is_the_same(kind: str, tmp_path: Path) -> None:
    folder = stand_in.write_folder(tmp_path / "hf", kind)
    stand_in.write_gguf(folder, tmp_path / "base.gguf")
    base = Base(kind, tmp_path / "base.gguf", tmp_path, folder)
    install(base, site=1, gain=4.0)
    whole, streamed = open_writer(base), open_writer(on_disk(base))
    assert streamed.host.streamed and not whole.host.streamed
    wanted = whole.compile(SKILL, rank=8)
    (made,) = streamed.compile_many([SKILL], rank=8)
    assert not isinstance(made, Exception)
    (module,) = wanted.pairs
    delta = wanted.delta(module)
    assert abs(made.delta(module) - delta).max() <= 1e-3 * abs(delta).max()
    assert made.manifest.probe == pytest.approx(wanted.manifest.probe, abs=0.05)


def test_memory_decides_unless_told(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_load(**load: str) -> bool:
        return stays_on_disk(Base(base.name, base.gguf, None, base.hf, load))

    assert not with_load()
    weights = sum(p.numel() for p in load_base(base)[0].parameters())
    monkeypatch.setattr(torch_base, "available_memory", lambda: 5 * weights)
    assert with_load() and not with_load(dtype="bfloat16")
    assert not with_load(layers="memory") and not with_load(device_map="auto")
    monkeypatch.setattr(torch_base, "available_memory", lambda: None)
    assert not with_load() and with_load(layers="disk")


def test_what_is_missing_or_of_another_shape_is_one_line(tmp_path: Path) -> None:
    folder = stand_in.write_folder(tmp_path / "hf", "qwen3")
    stand_in.write_gguf(folder, tmp_path / "base.gguf")
    base = on_disk(Base("qwen3", tmp_path / "base.gguf", None, folder))
    name = "model.layers.1.mlp.down_proj.weight"
    (shard,) = [p for p in folder.glob("*.safetensors") if name in load_file(p)]
    tensors = load_file(shard)
    save_file({**tensors, name: tensors[name][:, :32].contiguous()}, shard)
    model, _ = load_frozen(base)
    with pytest.raises(BaseModelError, match=r"down_proj.weight is \(64, 32\), not \(64, 96\)"):
        model(TOKENS)
    save_file({n: value for n, value in tensors.items() if n != name}, shard)
    with pytest.raises(BaseModelError, match=f"lacks the parameter {name}"):
        load_frozen(base)

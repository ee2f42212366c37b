"""What learns or searches on a base whose layers are on the disk: as in memory, layer by layer."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiler import stand_in
from tests.compiler.test_train_families import RECIPE

from skillc_compiler import streamed, torch_base
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base
from skillc_compiler.families import calibrate as calibration
from skillc_compiler.families.chat_prompt import base_prompt
from skillc_compiler.families.distill import Distill
from skillc_compiler.families.distill_settings import DistillConfig, bind
from skillc_compiler.families.gradient import pushes
from skillc_compiler.families.host import Host
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.skill import parse_skill
from skillc_compiler.torch_base import load_frozen
from skillc_compiler.train_base import processes, trainer
from skillc_compiler.train_base.lessons import lessons_of
from skillc_compiler.train_base.loss import lesson_loss
from skillc_compiler.train_base.recipe import FAMILIES, load_recipe

TEXT = "---\nname: graft\ndescription: Grafting.\n---\n\nRun `./graft --fast` to test the tree.\n"
SKILL = parse_skill(TEXT.encode(), folder="graft")
OUTSIDE = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
# Where the layers of a base are; in the last two, accelerate takes them there and back.
PLACES: dict[str, dict[str, Any]] = {
    "layers": {"layers": "disk"},
    "map": {
        "device_map": {
            **dict.fromkeys(OUTSIDE, "cpu"), "model.layers.0": "cpu", "model.layers.1": "disk"
        }
    },
    "everything": {"device_map": {"": "disk"}},
}  # fmt: skip


@pytest.fixture(scope="module", params=["qwen2", "gemma3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return written(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return written(tmp_path_factory.mktemp("qwen"), "qwen2")


def written(root: Path, kind: str) -> Base:
    folder = stand_in.write_folder(root / "hf", kind, num_hidden_layers=2)
    stand_in.write_gguf(folder, root / "base.gguf")
    return Base(kind, root / "base.gguf", None, folder, {})


def placed(base: Base, load: Mapping[str, Any]) -> Base:
    return Base(base.name, base.gguf, base.compiler_dir, base.hf, load)


def factors(host: Host) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {
        site.path: (
            (torch.randn(2, site.d_in, generator=generator) / 8).requires_grad_(),
            (torch.randn(site.d_out, 2, generator=generator) / 8).requires_grad_(),
        )
        for site in host.sites()
    }


def gradients(base: Base) -> list[torch.Tensor]:
    """Of a loss of the logits, for the factors that were attached when these were computed."""
    host = Host(load_frozen(base)[0])
    made = factors(host)
    with host.attached(made):
        logits = host.model(host.ids(range(3, 30)), use_cache=False).logits
    torch.autograd.backward(logits.log_softmax(-1)[..., 5].mean())
    assert all(p.grad is None for p in host.model.parameters())
    return [half.grad for pair in made.values() for half in pair if half.grad is not None]


@pytest.mark.parametrize("place", PLACES)
def test_gradients_are_those_in_memory(base: Base, place: str) -> None:
    wanted, found = gradients(base), gradients(placed(base, PLACES[place]))
    assert len(wanted) == len(found) == 2 * 2 * 7
    for one, two in zip(wanted, found, strict=True):
        assert float(one.abs().max()) > 0
        assert torch.allclose(one, two, atol=1e-5 * float(one.abs().max()) + 1e-9)


def test_a_backward_pass_holds_one_layer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stand_in.write_folder(tmp_path / "hf", "qwen3", num_hidden_layers=5)
    stand_in.write_gguf(folder, tmp_path / "base.gguf")
    alive: list[tuple[str, weakref.ref[Any]]] = []
    others: list[int] = []

    def get(shelf: Any, name: str) -> torch.Tensor:
        values = np.array(shelf._weights[name])
        held = {layer(known) for known, array in alive if array() is not None}
        others.append(len(held - {layer(name)}))
        if name.startswith("model.layers."):
            alive.append((name, weakref.ref(values)))
        return torch.from_numpy(values)

    monkeypatch.setattr(streamed.FolderShelf, "__getitem__", get)
    on_disk = Base("b", tmp_path / "base.gguf", None, folder, {"layers": "disk"})
    assert len(gradients(on_disk)) == 2 * 5 * 7
    read = [layer(name) for name, _ in alive]
    # Every layer on the way forth and on the way back.
    assert [n for n, last in zip(read, [-1, *read], strict=False) if n != last] == [
        0, 1, 2, 3, 4, 3, 2, 1, 0
    ]  # fmt: skip
    assert max(others) <= 1


def layer(name: str) -> int:
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


@pytest.mark.parametrize("place", PLACES)
def test_the_norms_behind_a_site_are_read(base: Base, place: str) -> None:
    wanted = pushes(Host(load_frozen(base)[0]), (0, 1))
    found = pushes(Host(load_frozen(placed(base, PLACES[place]))[0]), (0, 1))
    assert torch.equal(wanted, found)
    assert torch.equal(found[0], found[1]) == (base.name == "qwen2")


def calibrated(base: Base, root: Path, load: Mapping[str, Any]) -> tuple[Any, ...]:
    root.mkdir()
    (root / "base.gguf").symlink_to(base.gguf)
    copy = Base(base.name, root / "base.gguf", None, base.hf, load)
    heard: list[calibration.Trial] = []
    found = calibration.calibrate(copy, skills=1, most_flips=1.0, note=heard.append)
    return heard, found.best, found.none, found.text


def test_calibrating_finds_the_same(
    qwen: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "GAINS", (4.0,))
    monkeypatch.setattr(calibration, "RANKS", (4, 32))
    wanted = calibrated(qwen, tmp_path / "memory", {})
    assert len(wanted[0]) == 4
    for name, load in PLACES.items():
        assert calibrated(qwen, tmp_path / name, load) == wanted, name


def distilled(base: Base) -> Adapter:
    model, tokenizer = load_frozen(base)
    config = DistillConfig(steps=3, answer=3, questions=1, batch=4)
    compiler = Distill(base, model, tokenizer, base_prompt(base, tokenizer), config)
    compiler.note = lambda progress: None
    return compiler.compile(SKILL, rank=2)


def test_distilling_learns_the_same(qwen: Base, tmp_path: Path) -> None:
    (tmp_path / "base.gguf").symlink_to(qwen.gguf)
    bind(Base(qwen.name, tmp_path / "base.gguf", None), DistillConfig(steps=3))
    home = Base(qwen.name, tmp_path / "base.gguf", tmp_path, qwen.hf, {"layers": "disk"})
    opened = load_compiler(home)
    assert isinstance(opened, Distill) and opened.host.streamed
    wanted = distilled(placed(home, {}))
    for name, load in PLACES.items():
        made = distilled(placed(home, load))
        assert made.pairs.keys() == wanted.pairs.keys()
        for path, pair in made.pairs.items():
            assert np.abs(pair.b).max() > 1e-3
            assert np.allclose(pair.b, wanted.pairs[path].b, atol=1e-4), (name, path)
            assert np.allclose(pair.a, wanted.pairs[path].a, atol=1e-4), (name, path)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_gets_the_same_gradients(family: str, qwen: Base, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    recipe = load_recipe(str(tmp_path / "small.toml"), family)

    def learned(load: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        run = trainer.begin(placed(qwen, load), recipe, torch.device("cpu"), 0)
        lesson = lessons_of(run.student, recipe, 0).make(0, 1)
        torch.autograd.backward(lesson_loss(run.student, lesson, recipe.loss).loss)
        return {n: p.grad for n, p in run.student.net.named_parameters() if p.grad is not None}

    wanted, found = learned({}), learned(PLACES["layers"])
    assert wanted.keys() == found.keys()
    assert any(float(value.abs().max()) > 0 for value in wanted.values())
    for name, value in wanted.items():
        size = float(value.abs().max())
        assert torch.allclose(value, found[name], atol=1e-3 * size + 1e-7), name


def test_what_memory_cannot_hold_goes_to_the_device_layer_by_layer(
    qwen: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices(load: Mapping[str, Any]) -> set[str]:
        # The device without memory stands in for a GPU.
        model, _ = processes.open_whole(placed(qwen, load), torch.device("meta"))
        return {p.device.type for p in model.parameters()}

    taken: list[str] = []
    real = streamed.load_by_layers

    def spy(*given: Any) -> Any:
        taken.append("by layers")
        return real(*given)

    monkeypatch.setattr(streamed, "load_by_layers", spy)
    assert devices({}) == {"meta"} and taken == []
    monkeypatch.setattr(torch_base, "available_memory", lambda: 1)
    assert devices({}) == {"meta"} and taken == ["by layers"]
    assert devices({"layers": "memory"}) == {"meta"} and len(taken) == 1
    model, _ = processes.open_whole(placed(qwen, {}), torch.device("cpu"))
    assert Host(model).streamed and len(taken) == 1

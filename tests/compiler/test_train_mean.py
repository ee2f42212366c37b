"""The mean of several runs: of every weight, exported as a run is; anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skillc_compiler.bases import find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.gguf_base import read_tokenizer
from skillc_compiler.train.cli import train_mean
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.recipe import load_recipe


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    recipe = load_recipe("nano")
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        run = tmp_path / f"run{seed}"
        run.mkdir()
        read_tokenizer(find_base("nano").gguf).save(str(run / "tokenizer.json"))
        state = {
            "model": Nano(recipe.base).state_dict(),
            "writer": WriterNet(recipe.writer).state_dict(),
            "optimizers": [],
            "step": 7,
        }
        torch.save(state, run / "joint.pt")
        found.append(run)
    return found


def test_every_weight_is_the_mean(runs: list[Path], tmp_path: Path) -> None:
    train_mean(runs, "nano", tmp_path / "out")
    states = [torch.load(run / "joint.pt", weights_only=True) for run in runs]
    made = torch.load(tmp_path / "out" / "joint.pt", weights_only=True)
    assert made["step"] == 7
    for part in ("model", "writer"):
        assert made[part].keys() == states[0][part].keys()
        for name, value in made[part].items():
            wanted = torch.stack([state[part][name] for state in states]).mean(0)
            assert torch.allclose(value, wanted, atol=1e-6)
    shipped = load_file(tmp_path / "out" / "export" / "compiler.safetensors")
    assert torch.allclose(shipped["read.weight"].float(), made["writer"]["read.weight"], atol=1e-3)
    with pytest.raises(CompilerError, match="has a checkpoint already"):
        train_mean(runs, "nano", tmp_path / "out")


def test_runs_that_do_not_fit_together(runs: list[Path], tmp_path: Path) -> None:
    path = runs[2] / "joint.pt"
    state = torch.load(path, weights_only=True)
    deeper = Nano(replace(load_recipe("nano").base, num_hidden_layers=5))
    torch.save(state | {"model": deeper.state_dict()}, path)
    with pytest.raises(CompilerError, match=r"another model than .*run0: only runs of"):
        train_mean(runs, "nano", tmp_path / "out")
    text = (runs[1] / "tokenizer.json").read_text("utf-8")
    (runs[1] / "tokenizer.json").write_text(text + " ", encoding="utf-8")
    with pytest.raises(CompilerError, match="run1 has another tokenizer"):
        train_mean(runs, "nano", tmp_path / "out")
    path.unlink()
    with pytest.raises(CompilerError, match=r"no trained compiler in .*run2"):
        train_mean(runs[2:], "nano", tmp_path / "out")
    assert not (tmp_path / "out").exists()

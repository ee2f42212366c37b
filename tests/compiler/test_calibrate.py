"""Calibration of an untrained writer: what is chosen, and that the result is a compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.compiler import published_cases as cases

from skillc_compiler.errors import CompilerError
from skillc_compiler.families import calibrate as module
from skillc_compiler.families.calibrate import Trial, calibrate, candidates, choose, untrained
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import Reading, WriterConfig


def test_candidates_are_spread_over_the_upper_two_thirds() -> None:
    assert candidates(1) == (0,) and candidates(2) == (0, 1)
    assert candidates(6) == (2, 3, 4, 5)
    assert candidates(36) == (12, 17, 21, 26, 30, 35)


def test_the_best_is_the_one_that_leaves_unrelated_prompts_alone() -> None:
    loud = Trial((3,), 16.0, 32, right=0.9, flips=0.5)
    good = Trial((3,), 4.0, 32, right=0.6, flips=0.01)
    wide = Trial((2, 3), 4.0, 32, right=0.6, flips=0.0)
    poor = Trial((2,), 1.0, 32, right=0.2, flips=0.0)
    assert choose([loud, poor, wide, good], 0.02) == good
    assert choose([loud, good], 0.001) == good
    assert choose([loud, good, poor], 0.5) == loud


def test_an_untrained_writer_is_a_step_of_the_gradient() -> None:
    net = untrained(WriterConfig(4, 6, 1, 10, sites=(0,), width=8, blocks=0, heads=1))
    torch.manual_seed(2)
    inputs, surprise = torch.randn(1, 3, 6), torch.randn(1, 3, 4)
    mask = torch.tensor([[True, True, False]])
    states = [torch.randn(1, 3, 4) for _ in range(2)]
    reading = Reading(states, [inputs], torch.randn(1, 3, 4), surprise, torch.ones(1, 3), mask)
    ((keys, values),) = net(reading)
    # The population mean is zero here: keys are the normalised inputs, values scaled surprises.
    assert torch.allclose(keys, inputs / inputs.norm(dim=-1, keepdim=True), atol=1e-5)
    assert torch.allclose(values, surprise * mask[..., None] * 2 * 6**-0.5, atol=1e-5)


def test_a_calibrated_writer_compiles_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GAINS", (1.0, 64.0))
    base = cases.base(tmp_path / "tiny")
    heard: list[Trial] = []
    found = calibrate(base, skills=2, most_flips=1.0, note=heard.append)
    assert found.trials == len(heard) == 2 * 2 + 2 + 2
    assert found.best == choose(heard, 1.0) and found.helps and found.best.right > found.none
    record = json.loads((found.folder or tmp_path).joinpath("compiler.json").read_text())
    assert record["calibration"]["gain"] == found.best.gain
    writer = load_compiler(cases.opened(base))
    assert isinstance(writer, Writer) and writer.id == "writer-untrained"
    assert writer.net.config.sites == found.best.sites
    bench = module.Bench(base, 2)
    for skill, made in zip(bench.skills, bench.memories, strict=True):
        adapter = writer.compile(skill, rank=found.best.rank)
        for layer in found.best.sites:
            a, b = made[layer]
            wanted = found.best.gain * b[:, : found.best.rank] @ a[: found.best.rank]
            delta = torch.from_numpy(adapter.delta(f"model.layers.{layer}.mlp.down_proj"))
            assert torch.allclose(delta, wanted, atol=1e-3 * float(wanted.abs().max()))


def test_what_does_not_help_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GAINS", (1e-9,))
    base = cases.base(tmp_path / "tiny")
    found = calibrate(base, skills=1)
    assert not found.helps and found.best.flips == 0 and found.folder is None
    assert [path.name for path in base.gguf.parent.iterdir()] == ["base.gguf"]


def test_the_search_ends_in_time_and_keeps_its_place(tmp_path: Path) -> None:
    base = cases.base(tmp_path / "tiny")
    heard: list[Trial] = []
    calibrate(base, skills=1, minutes=1e-9, note=heard.append)
    assert len(heard) == 1
    for name in ("compiler.safetensors", "compiler.json"):
        (base.gguf.parent / name).write_bytes(b"{}")
    with pytest.raises(CompilerError, match="has a compiler: replace it with --force"):
        calibrate(cases.opened(base))

"""Processes that share the layers of a base (FSDP): they train what one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.compiler import stand_in
from tests.compiler.test_train_families import RECIPE

from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.train_base import cli, processes, trainer
from skillc_compiler.train_base.recipe import FAMILIES, load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skillc home with two random bases; every third skill is a text that nothing asks about."""
    root = tmp_path_factory.mktemp("home")
    for name, kind in (("tiny3", "qwen3"), ("gemma", "gemma3")):
        folder = stand_in.write_folder(root / "hf" / name, kind, num_hidden_layers=2)
        place = root / "bases" / name
        place.mkdir(parents=True)
        info = stand_in.write_gguf(folder, place / "base.gguf")
        record = {"hf": {"folder": str(folder)}, "gguf": {"sha256": info.hash}, "load": {}}
        (place / "base.json").write_text(json.dumps(record))
    # Three skills for two processes: one of them has nothing to learn from in the second round.
    text = RECIPE.replace("skills = 2", "skills = 3\nreal = 0.4")
    (root / "small.toml").write_text(text)
    (root / "real.jsonl").write_text(json.dumps({"text": "Only `real` text. " * 9}) + "\n")
    return root


@pytest.fixture(autouse=True)
def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLC_HOME", str(home))


def launch(home: Path, *verb: str) -> str:
    """Run a module in two processes as on two devices; gives what they told."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp"]
    command += ["--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["--num_cpu_threads_per_process", "1", "-m", *verb]
    paths = [str(ROOT), *(str(ROOT / part) for part in ("compiler", "runtime", "plugin"))]
    cpu = {"ACCELERATE_USE_CPU": "true", "SKILLC_HOME": str(home)}
    done = subprocess.run(
        command,
        env={**os.environ, **cpu, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def train(home: Path, out: Path, family: str, minutes: float = 0) -> None:
    recipe, texts = str(home / "small.toml"), [home / "real.jsonl"]
    cli.train_compiler("tiny3", recipe, out, family=family, texts=texts, minutes=minutes)


def read(out: Path) -> Any:
    return torch.load(out / "compiler.pt")


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["step"] == two["step"] == 2
    assert one["net"].keys() == two["net"].keys()
    for name, value in one["net"].items():
        found = two["net"][name]
        if name.endswith("in_proj_bias"):
            # Softmax does not feel the keys' bias: its gradient is noise, which Adam scales up.
            value.chunk(3)[1].copy_(found.chunk(3)[1])
        assert torch.allclose(value, found, atol=1e-4), name


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_processes_that_share_the_base_train_what_one_does(home: Path, tmp_path: Path) -> None:
    inputs = [str(home / "small.toml"), str(home / "real.jsonl")]
    launch(home, "tests.compiler.sharded_process", *inputs, str(tmp_path))
    for family in FAMILIES:
        alone = tmp_path / f"{family}-alone"
        train(home, alone, family)
        same(read(alone), read(tmp_path / family))
        one, two = log(alone)[-1], log(tmp_path / family)[-1]
        assert {name: value for name, value in one.items() if name.startswith("val_")} == {
            name: value for name, value in two.items() if name.startswith("val_")
        }
    # What was begun in two processes is ended in one.
    assert read(tmp_path / "begun")["step"] == 1
    train(home, tmp_path / "begun", "m2p")
    same(read(tmp_path / "m2p-alone"), read(tmp_path / "begun"))
    start = trainer.begin(
        find_base("gemma"), load_recipe(str(home / "small.toml")), torch.device("cpu"), 0
    ).student.net.state_dict()
    for number in range(2):
        part = json.loads((tmp_path / f"part-{number}.json").read_text())
        assert part["sharded"] and part["held"] <= 0.51 * part["whole"]
        for name, value in torch.load(tmp_path / f"start-{number}.pt").items():
            assert torch.allclose(value, start[name], atol=1e-5), name


@pytest.mark.slow
def test_the_verb_goes_on_with_a_run_of_one_process(home: Path, tmp_path: Path) -> None:
    train(home, tmp_path / "whole", "writer")
    train(home, tmp_path / "parts", "writer", minutes=1e-9)
    assert read(tmp_path / "parts")["step"] == 1
    verb = ["skillc", "train", "compiler", "--base", "tiny3", "--out", str(tmp_path / "parts")]
    verb += ["--recipe", str(home / "small.toml"), "--texts", str(home / "real.jsonl")]
    told = launch(home, *verb)
    assert told.count("writer 2/2") == 1  # one of the two tells
    same(read(tmp_path / "whole"), read(tmp_path / "parts"))
    assert [entry["step"] for entry in log(tmp_path / "parts")] == [1, 2]


@pytest.mark.parametrize("option", ["device_map", "quantize"])
def test_a_base_with_a_place_of_its_own_is_refused(option: str) -> None:
    found = find_base("tiny3")
    base = Base("tiny3", found.gguf, None, found.hf, {option: "auto"})
    with pytest.raises(CompilerError, match="which FSDP does not take: add it") as caught:
        processes.open_shared(base, torch.device("cpu"))
    assert f"--{option.replace('_', '-')}" in str(caught.value) and "\n" not in str(caught.value)


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Accelerator", lambda: SimpleNamespace(num_processes=1))
    assert processes.begin_processes().num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CompilerError, match="2 processes were started, and accelerate joins 1"):
        processes.begin_processes()


def test_one_process_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not processes.shared()

"""A whole recipe at toy size: every stage, in order, resumed where it stopped, then exported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from skillc_compiler.bases import find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.gguf_base import read_base_info, read_base_weights
from skillc_compiler.train.cli import load_pair
from skillc_compiler.train.feed import Feed, Step
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.recipe import load_recipe
from skillc_compiler.train.tokens import generated_text, train_tokenizer
from skillc_compiler.train.trainer import Run
from skillc_compiler.train.validate import validation

TINY = {
    "vocab_size = 4096": "vocab_size = 512",
    "hidden_size = 256": "hidden_size = 32",
    "intermediate_size = 768": "intermediate_size = 64",
    "num_hidden_layers = 4": "num_hidden_layers = 2",
    "num_attention_heads = 4": "num_attention_heads = 2",
    "num_key_value_heads = 4": "num_key_value_heads = 2",
    "head_dim = 64": "head_dim = 16",
    "sites = [0, 1, 2, 3]": "sites = [0, 1]",
    "width = 256": "width = 32",
    "blocks = 2": "blocks = 1",
    "skills = 16 ": "skills = 2 ",
    "ranks = [0, 64, 64, 64, 32, 16]": "ranks = [0, 4]",
    "drills = 700": "drills = 1",
    "heads = [[2, 0], [2, 3], [3, 1]]": "heads = [[1, 0]]",
    "sites = [2, 3] ": "sites = [1] ",
    "match = 16 ": "match = 2 ",
}
STAGES = ("copy", "drill", "lookup", "text", "joint")


def shipped() -> str:
    folder = resources.files("skillc_compiler.train") / "recipes"
    return (folder / "nano.toml").read_text(encoding="utf-8")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = shipped()
    for old, new in TINY.items():
        assert old in text, old
        text = text.replace(old, new)
    lines = ["steps = 2" if line.startswith("steps = ") else line for line in text.splitlines()]
    path = tmp_path / "tiny.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def skillc_train(what: str, recipe: Path, out: Path, *more: str) -> None:
    """As a process: torch.compile warns of things that only torch can change."""
    command = [sys.executable, "-m", "skillc", "train", what, "--recipe", str(recipe), "--out"]
    done = subprocess.run([*command, str(out), *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_all_stages_run_resume_and_export(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    skillc_train("base", recipe, out)
    skillc_train("compiler", recipe, out)
    assert all((out / f"{stage}.pt").is_file() for stage in STAGES)
    info = read_base_info(out / "export" / "base.gguf")
    assert (info.arch, info.hidden) == ("qwen3", 32)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    assert [row["stage"] for row in rows] == ["text", "joint"]  # where a stage ends by validating
    assert rows[-1]["step"] == 2 and "val_adapter_entry" in rows[-1]
    before = {stage: (out / f"{stage}.pt").stat().st_mtime_ns for stage in STAGES}
    skillc_train("base", recipe, out)
    assert {stage: (out / f"{stage}.pt").stat().st_mtime_ns for stage in STAGES} == before


@pytest.mark.slow
def test_minutes_are_those_of_all_stages(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    skillc_train("base", recipe, out, "--minutes", "0.0001")
    assert [stage for stage in STAGES if (out / f"{stage}.pt").is_file()] == ["copy"]
    skillc_train("base", recipe, out, "--minutes", "60")
    assert [stage for stage in STAGES if (out / f"{stage}.pt").is_file()] == list(STAGES[:-1])


@pytest.mark.slow
def test_a_run_starts_from_an_installed_pair(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    skillc_train("base", recipe, first)
    skillc_train("compiler", recipe, first)
    monkeypatch.setenv("SKILLC_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "bases").mkdir(parents=True)
    (first / "export").rename(tmp_path / "home" / "bases" / "tiny")
    more = tmp_path / "more.toml"
    more.write_text(f"extends = {str(recipe)!r}\n[joint]\nlr = 1e-9\nadam_lr = 1e-9\n", "utf-8")
    skillc_train("compiler", more, second, "--start", "tiny")
    old = read_base_weights(tmp_path / "home" / "bases" / "tiny" / "base.gguf")[1]
    new = read_base_weights(second / "export" / "base.gguf")[1]
    assert all(np.allclose(old[name], new[name], atol=1e-3) for name in old)
    tokenizers = [(out / "tokenizer.json").read_text("utf-8") for out in (first, second)]
    assert Tokenizer.from_str(tokenizers[0]).get_vocab() == (
        Tokenizer.from_str(tokenizers[1]).get_vocab()
    )


def test_a_pair_of_another_shape_is_no_start(tmp_path: Path) -> None:
    recipe = load_recipe("nano")
    small = Nano(replace(recipe.base, num_hidden_layers=3))
    with pytest.raises(CompilerError, match="base nano: cannot be started from") as caught:
        load_pair(find_base("nano"), small, None)
    assert "\n" not in str(caught.value)
    bare = replace(find_base("nano"), compiler_dir=None)
    with pytest.raises(CompilerError, match="has no compiler"):
        load_pair(bare, Nano(recipe.base), None)


def test_a_recipe_extends_another_one() -> None:
    nano, more = load_recipe("nano"), load_recipe("nano-more")
    assert (more.name, more.title) == ("nano", "nano-more")
    assert (more.base, more.writer, more.matchers) == (nano.base, nano.writer, nano.matchers)
    assert more.drill == nano.drill and more.joint.weights == nano.joint.weights
    assert more.joint.data.skills < nano.joint.data.skills
    assert more.joint.data.slim == 0.03 and more.joint.data.filler == nano.joint.data.filler
    assert not more.joint.drills and not more.joint.observe


def test_a_stage_has_its_own_data_and_weights() -> None:
    found = load_recipe("nano")
    assert found.lookup.data.lookup == 1.0 and found.lookup.data.real == 0.0
    assert found.joint.data.skills == found.text.data.skills == found.copy.data.skills
    assert found.joint.weights != found.copy.weights


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[lookup", "[looking", "'lookup'"),
        ("filler = 0.3", "fillers = 0.3", "fillers"),
        ("heads = [[2, 0],", "heads = [[2],", "no layer and head"),
        ("heads = [[2, 0],", "heads = [[4, 0],", "no layer and head"),
        ("sites = [2, 3] ", "sites = [2, 7] ", "sites that"),
    ],
)
def test_a_broken_recipe_is_one_line(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(shipped().replace(old, new), encoding="utf-8")
    with pytest.raises(CompilerError, match=reason) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_validation_asks_about_documents_whatever_the_stage_drills() -> None:
    recipe = load_recipe("nano")
    assert recipe.joint.drills and recipe.joint.data.drill
    tokenizer = train_tokenizer(generated_text(0, 300), 2048).to_str()
    feed = Feed(recipe.joint.data, tokenizer, (), 1, drills=recipe.joint.drills)
    seen: list[Feed] = []

    def spy(held: Feed, number: int, size: float) -> Step:
        seen.append(held)
        raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(validation.__globals__, "make_step", spy)
        with pytest.raises(StopIteration):
            validation(feed, recipe)(Run(Nano(recipe.base), None))
    assert (seen[0].drills, seen[0].data.drill, seen[0].split) == (0, 0.0, "val")

"""Every family that can be trained: two steps, resuming, export, and the adapters that come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiler import tiny

from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.bound import cut
from skillc_compiler.families.interface import FAMILIES as KNOWN
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.skill import Skill, parse_skill
from skillc_compiler.train_base import cli, trainer
from skillc_compiler.train_base.lessons import lessons_of
from skillc_compiler.train_base.loss import lesson_loss
from skillc_compiler.train_base.recipe import FAMILIES, Recipe, load_recipe
from skillc_compiler.train_base.trainable import Trainable

RECIPE = """
[writer]
sites = [1]
width = 16
blocks = 1
heads = 2
[m2p]
rank = 2
meta_rank = 2
blocks = 2
heads = 2
[perceiver]
rank = 2
latent = 16
queries = 4
encoder_blocks = 1
heads = 2
kv_heads = 1
head_dim = 8
chunk = 40
[data]
skills = 2
facts = [1, 1]
questions = 1
recite = 32
[schedule]
steps = 2
rate = 1e-2
warmup = 1
decay = 0.0
check_every = 100
check_skills = 1
"""
TARGETS = {
    "writer": {"model.layers.1.mlp.down_proj"},
    "perceiver": {f"model.layers.{layer}.mlp.down_proj" for layer in range(2)},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skillc home with a small random base that is a GGUF alone."""
    root = tmp_path_factory.mktemp("home")
    (root / "bases" / "tiny").mkdir(parents=True)
    tiny.write_base(root / "bases" / "tiny" / "base.gguf")
    return root


@pytest.fixture(autouse=True)
def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLC_HOME", str(home))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def begun(recipe: Recipe) -> trainer.Run:
    return trainer.begin(find_base("tiny"), recipe, torch.device("cpu"), 0)


def skill() -> Skill:
    """Longer than one of the perceiver's chunks."""
    text = "---\nname: deploy\ndescription: how to deploy\n---\n\nRun `kubectl apply -f x.yaml`.\n"
    return parse_skill(text.encode(), folder="deploy")


def updates(adapter: Adapter) -> dict[str, Any]:
    """The changes of the weights, by module path."""
    return {
        path: adapter.alpha / len(pair.a) * pair.b @ pair.a for path, pair in adapter.pairs.items()
    }


def in_training(student: Trainable, text: str) -> dict[str, Any]:
    """The same as a step of the training would attach it."""
    frame, ids = student.reading(text)
    with torch.no_grad():
        made = student.factors([*frame, *ids])
    return {path: (b @ a).numpy() for path, (a, b) in made.items()}


def test_every_family_with_a_network_can_be_trained() -> None:
    assert set(FAMILIES) == set(KNOWN) - {"distill"}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_resumed_exported_and_compiled(
    family: str, recipe: Path, tmp_path: Path, home: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cli.train_compiler("tiny", str(recipe), whole, family=family)
    cli.train_compiler("tiny", str(recipe), parts, family=family, minutes=1e-9)
    assert torch.load(parts / "compiler.pt")["step"] == 1
    cli.train_compiler("tiny", str(recipe), parts, family=family)
    first, second = (torch.load(folder / "compiler.pt") for folder in (whole, parts))
    assert first["step"] == second["step"] == 2
    assert all(torch.equal(first["net"][name], value) for name, value in second["net"].items())

    folder = cli.export_compiler("tiny", whole, force=True)
    assert folder == home / "bases" / "tiny"
    table = json.loads((folder / "compiler.json").read_text())
    assert (table["family"], table["id"], table["steps"]) == (family, f"{family}-tiny", 2)
    adapter = load_compiler(find_base("tiny")).compile(skill(), rank=64)
    assert adapter.manifest.compiler_id == f"{family}-tiny"

    run = begun(load_recipe(str(recipe), family))
    untrained = in_training(run.student, skill().text)
    run.restore(first)
    trained, served = in_training(run.student, skill().text), updates(adapter)
    assert trained.keys() == served.keys() == TARGETS.get(family, trained.keys())
    for path, change in trained.items():
        size = float(np.abs(change).max())
        assert np.abs(change - untrained[path]).max() > 0.02 * size, path
        difference = float(np.abs(change - served[path]).max())
        # The file's weights are rounded to half precision.
        assert difference < min(1e-3, 4e-3 * size + 1e-7), path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_one_skill_falls(family: str, recipe: Path) -> None:
    settings = load_recipe(str(recipe), family)
    run = begun(settings)
    lessons = lessons_of(run.student, settings, 0)
    lesson = next(found for place in range(20) if (found := lessons.make(0, place)).asked)
    losses = []
    for _ in range(20):
        told = lesson_loss(run.student, lesson, settings.loss)
        torch.autograd.backward(told.loss)
        run.optimizer.step()
        run.optimizer.zero_grad()
        losses.append(float(told.loss.detach()))
    assert min(losses[-3:]) < 0.9 * losses[0], losses
    assert all(p.grad is None for p in run.student.host.model.parameters())


def test_without_a_weight_the_text_arm_is_not_asked(recipe: Path) -> None:
    settings = load_recipe(str(recipe))
    run = begun(settings)
    lessons = lessons_of(run.student, settings, 0)
    lesson = next(found for place in range(20) if (found := lessons.make(0, place)).asked)
    both = lesson_loss(run.student, lesson, settings.loss)
    bare = replace(settings.loss, teacher=0.0)
    assert lesson_loss(run.student, lesson, bare).parts.keys() == both.parts.keys() - {"teacher"}


def test_the_same_skills_whatever_the_family(recipe: Path) -> None:
    made = []
    for family in FAMILIES:
        settings = load_recipe(str(recipe), family)
        student = begun(settings).student
        lesson = lessons_of(student, settings, 0).make(3, 1)
        made.append((lesson.asked, lesson.taught, lesson.quiet))
    assert made[0] == made[1] == made[2]


def test_a_run_of_another_family_is_refused(recipe: Path, tmp_path: Path) -> None:
    cli.train_compiler("tiny", str(recipe), tmp_path, minutes=1e-9)
    with pytest.raises(CompilerError, match="another recipe or seed"):
        cli.train_compiler("tiny", str(recipe), tmp_path, family="m2p")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[m2p]\nrank = 2", "[m2p]\nrank = 1", "rank in \\[m2p\\]: 2240 LoRA values"),
        ("blocks = 2\nheads = 2", "blocks = 2\nheads = 3", "heads in \\[m2p\\] must divide 64"),
    ],
)
def test_sizes_that_the_base_does_not_take_are_one_line(
    old: str, new: str, line: str, recipe: Path
) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(CompilerError, match=line) as caught:
        begun(load_recipe(str(recipe), "m2p"))
    assert "\n" not in str(caught.value)


def test_a_recipe_names_its_family(recipe: Path) -> None:
    recipe.write_text("family = 'perceiver'\n" + RECIPE)
    assert load_recipe(str(recipe)).family == "perceiver"
    assert load_recipe(str(recipe), "m2p").family == "m2p"


def test_only_what_is_of_higher_rank_is_cut() -> None:
    torch.manual_seed(0)
    low, high = (torch.randn(2, 5), torch.randn(4, 2)), (torch.randn(4, 5), torch.randn(4, 4))
    found = cut({"low": low, "high": high}, 3)
    assert found["low"][0] is low[0] and found["high"][0].shape == (3, 5)
    change, (a, b) = high[1] @ high[0], found["high"]
    best = torch.linalg.svdvals(change)[3]
    assert torch.allclose(torch.linalg.matrix_norm(change - b @ a, 2), best, rtol=1e-4)

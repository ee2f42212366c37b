"""Training of a writer on a frozen base: lessons, losses, resuming, several processes, export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compiler import stand_in

from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.skill import parse_skill
from skillc_compiler.train_base import cli, trainer
from skillc_compiler.train_base.lessons import Lesson, Row, lessons_of
from skillc_compiler.train_base.loss import Choices, answer_loss, divergence, lesson_loss
from skillc_compiler.train_base.recipe import Recipe, load_recipe

RECIPE = """
[writer]
sites = [1]
width = 16
blocks = 1
heads = 2
gain = 2.0
[data]
skills = 2
facts = [1, 2]
questions = 2
[schedule]
steps = {steps}
rate = 1e-2
warmup = 1
decay = 0.0
save_every = 2
check_every = 100
check_skills = 1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skillc home with one random Qwen3 base, as a folder and as a GGUF."""
    root = tmp_path_factory.mktemp("home")
    folder = stand_in.write_folder(root / "hf", "qwen3")
    place = root / "bases" / "tiny3"
    place.mkdir(parents=True)
    info = stand_in.write_gguf(folder, place / "base.gguf")
    record = {"hf": {"folder": str(folder)}, "gguf": {"sha256": info.hash}, "load": {}}
    (place / "base.json").write_text(json.dumps(record))
    return root


@pytest.fixture(autouse=True)
def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLC_HOME", str(home))


def recipe_file(folder: Path, steps: int = 4, extra: str = "") -> Path:
    path = folder / "small.toml"
    path.write_text(RECIPE.format(steps=steps) + extra)
    return path


def recipe(tmp_path: Path, steps: int = 4) -> Recipe:
    return load_recipe(str(recipe_file(tmp_path, steps)))


def begun(tmp_path: Path) -> tuple[trainer.Run, Recipe]:
    settings = recipe(tmp_path)
    return trainer.begin(find_base("tiny3"), settings, torch.device("cpu"), 0), settings


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_lessons_ask_with_and_without_the_text(tmp_path: Path) -> None:
    run, settings = begun(tmp_path)
    lessons = lessons_of(run.student, settings, 0, ())
    lesson = next(found for place in range(20) if len((found := lessons.make(0, place)).asked) == 2)
    decode = run.student.tokenizer.decode
    text = decode(lesson.text, skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\n---\nname: ")
    for asked, taught in zip(lesson.asked, lesson.taught, strict=True):
        assert asked.answer == taught.answer and asked.answer[-1] == 2
        prompt = decode(taught.ids[: taught.start], skip_special_tokens=False)
        assert prompt.startswith(text) and text not in decode(asked.ids, skip_special_tokens=False)
    assert lesson.recited is not None and len(lesson.quiet) == 2
    assert lessons.make(0, 1) == lessons.make(0, 1) != lessons.make(1, 1)
    held = lessons_of(run.student, settings, 0, (), split="val")
    assert held.make(0, 1) != lessons.make(0, 1)


def test_texts_that_are_cut_are_not_asked_about(tmp_path: Path) -> None:
    run, _ = begun(tmp_path)
    short = recipe_file(tmp_path, extra="").read_text().replace("facts", "max_skill = 40\nfacts")
    (tmp_path / "short.toml").write_text(short)
    settings = load_recipe(str(tmp_path / "short.toml"))
    lesson = lessons_of(run.student, settings, 0, ()).make(0, 0)
    assert lesson.asked == [] and lesson.recited is not None
    assert len(lesson.text) == 40 + len(run.student.reading("a")[0])
    real = lessons_of(run.student, settings, 0, ("Only `real` text here. " * 9,))
    assert any(
        "real" in run.student.tokenizer.decode(real.make(0, place).text) for place in range(30)
    )


def test_losses_against_a_count_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    rows = [Row([9, 1], 1), Row([9, 0, 1], 1)]
    each = -logits.log_softmax(-1)[torch.arange(3), torch.tensor([1, 0, 1])]
    wanted = (3 * each[0] + 3 * each[1] + each[2]) / 7
    assert torch.allclose(answer_loss(logits, rows, 3.0), wanted)
    teacher = Choices(torch.tensor([[0], [1], [1]]), torch.ones(3, 1))
    told = -logits.log_softmax(-1)[torch.arange(3), torch.tensor([0, 1, 1])].mean()
    assert torch.allclose(divergence(logits, teacher), told)
    same = Choices(torch.tensor([[0, 1]] * 3), logits.softmax(-1))
    assert abs(float(divergence(logits, same))) < 1e-6


def test_only_the_network_gets_gradients(tmp_path: Path) -> None:
    run, settings = begun(tmp_path)
    lesson = lessons_of(run.student, settings, 0, ()).make(0, 0)
    told = lesson_loss(run.student, lesson, settings.loss)
    torch.autograd.backward(told.loss)
    named = dict(run.student.net.named_parameters())
    moved = [name for name, p in named.items() if p.grad is not None and p.grad.abs().max() > 0]
    assert {"push", "scale", "key.weight", "value.weight", "read.weight"} <= set(moved)
    assert all(p.grad is None for p in run.student.host.model.parameters())
    assert told.parts.keys() == {"quiet", "answer", "teacher", "recite"}
    bare = lesson_loss(run.student, Lesson(lesson.text, [], [], None, lesson.quiet), settings.loss)
    assert bare.parts.keys() == {"quiet"}


def test_the_loss_falls_and_the_export_compiles(tmp_path: Path) -> None:
    out = tmp_path / "run"
    path = str(recipe_file(tmp_path, steps=24))
    cli.train_compiler("tiny3", path, out)
    entries = log(out)
    assert [entry["step"] for entry in entries] == list(range(1, 25))
    first, last = entries[:8], entries[-8:]
    mean = [sum(entry["loss"] for entry in part) / 8 for part in (first, last)]
    assert mean[1] < 0.95 * mean[0]  # steps differ by a few hundredths; .92 to .93 with four seeds
    assert {"val_adapter", "val_none", "val_text", "val_flips"} <= entries[-1].keys()
    folder = cli.export_compiler("tiny3", out, force=True)
    compiler = load_compiler(find_base("tiny3"))
    assert isinstance(compiler, Writer) and compiler.id == "writer-tiny3"
    record = json.loads((folder / "compiler.json").read_text())
    assert (record["steps"], record["recipe"]["name"]) == (24, "small")
    skill = parse_skill(b"---\nname: a\ndescription: b\n---\n\nRun `./c`.\n", folder="a")
    adapter = compiler.compile(skill, rank=4)
    assert set(adapter.pairs) == {"model.layers.1.mlp.down_proj"}
    with pytest.raises(CompilerError, match="has a compiler: replace it with --force"):
        cli.export_compiler("tiny3", out)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(recipe_file(tmp_path))
    cli.train_compiler("tiny3", path, tmp_path / "whole")
    real, calls = trainer.step, []

    def stopping(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(trainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        cli.train_compiler("tiny3", path, tmp_path / "parts")
    monkeypatch.setattr(trainer, "step", real)
    cli.train_compiler("tiny3", path, tmp_path / "parts")
    whole, parts = (torch.load(tmp_path / name / "compiler.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    for name, value in whole["net"].items():
        assert torch.equal(value, parts["net"][name]), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    cli.train_compiler("tiny3", str(recipe_file(tmp_path)), out, minutes=1e-9)
    assert torch.load(out / "compiler.pt")["step"] == 1
    with pytest.raises(CompilerError, match="another recipe or seed"):
        cli.train_compiler("tiny3", str(recipe_file(tmp_path)), out, seed=1)
    other = stand_in.write_folder(tmp_path / "hf", "qwen3", seed=1)
    info = stand_in.write_gguf(other, tmp_path / "base.gguf")
    assert info.hash
    with pytest.raises(CompilerError, match="trained on another base than 'other'"):
        cli.write_trained(Base("other", tmp_path / "base.gguf", None), out, tmp_path)
    with pytest.raises(CompilerError, match="no trained compiler"):
        cli.export_compiler("tiny3", tmp_path, force=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[writer]\nwidht = 3", "no key 'widht' in \\[writer\\]"),
        ("[other]\na = 1", "no section \\[other\\]"),
        ("[data]\nskills = 0", "skills must be a whole number"),
        ("[data]\nskills = 'a'", "skills in \\[data\\] must be a number"),
        ("[writer]\nwidth = 7", "width must be a multiple"),
        ("[data]\nfacts = [3, 2]", "facts must be the least and the most"),
        ("[writer", "small.toml: "),
        ("family = 'distill'", "family 'distill' cannot be trained"),
        ("family = 3", "family 3 cannot be trained"),
        ("[m2p]\nrank = 1.5", "rank in \\[m2p\\] must be a whole number"),
        ("[perceiver]\nkv_heads = 3", "heads must be a multiple of kv_heads"),
    ],
)
def test_recipes_that_make_no_sense_are_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(text)
    with pytest.raises(CompilerError, match=line) as caught:
        load_recipe(str(tmp_path / "small.toml"))
    assert "\n" not in str(caught.value)


def test_the_shipped_recipe_has_every_key() -> None:
    found = load_recipe()
    assert (found.name, found.family) == ("frozen", "writer")
    assert found.data.skills == 16 and found.writer.sites == ()
    assert load_recipe(family="m2p").to_dict().keys().isdisjoint({"writer", "perceiver"})
    with pytest.raises(CompilerError, match="the shipped one is 'frozen'"):
        load_recipe("nano")


def test_sites_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    text = recipe_file(tmp_path).read_text().replace("sites = [1]", "sites = [1, 2]")
    (tmp_path / "far.toml").write_text(text)
    with pytest.raises(CompilerError, match=r"sites \[1, 2\], the base has 2"):
        trainer.begin(
            find_base("tiny3"), load_recipe(str(tmp_path / "far.toml")), torch.device("cpu"), 0
        )


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path, home: Path) -> None:
    path = recipe_file(tmp_path, steps=2)
    cli.train_compiler("tiny3", str(path), tmp_path / "one")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    verb = ["-m", "skillc", "train", "compiler", "--base", "tiny3", "--recipe", str(path)]
    roots = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(str(roots / part) for part in ("compiler", "runtime", "plugin"))
    done = subprocess.run(
        [*launch, *verb, "--out", str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": paths, "SKILLC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("writer 2/2") == 1  # one of the two tells
    one, two = (torch.load(tmp_path / name / "compiler.pt") for name in ("one", "two"))
    assert two["step"] == 2
    start = trainer.begin(
        find_base("tiny3"), load_recipe(str(path)), torch.device("cpu"), 0
    ).student.net.state_dict()
    for name, value in one["net"].items():
        assert torch.allclose(value, two["net"][name], atol=1e-4), name
    assert not torch.equal(one["net"]["value.weight"], start["value.weight"])

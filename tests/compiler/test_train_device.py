"""Training on a device: everything that a step makes is where its batch is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from tests.compiler.test_joint_step import BASE, WRITER
from torch import Tensor

from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.train import ops
from skillc_compiler.train.feed import Feed, Step, make_step, stream
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.recipe import Matchers, Recipe, load_recipe
from skillc_compiler.train.step import Options
from skillc_compiler.train.tokens import generated_text, train_tokenizer
from skillc_compiler.train.trainer import Run, _loss, optimizers
from skillc_compiler.train.validate import validation

META = torch.device("meta")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    nano = load_recipe("nano")
    return replace(
        nano, base=BASE, writer=WRITER, matchers=Matchers(((1, 0),), (1,)),
        joint=replace(nano.joint, look_weight=0.3, teach_weight=0.2, steps=100),
    )  # fmt: skip


@pytest.fixture(scope="module")
def feed(recipe: Recipe) -> Feed:
    data = replace(recipe.joint.data, skills=2, match=2, drill=0.0, idle=16)
    tokenizer = train_tokenizer(generated_text(0, 200), 512).to_str()
    return Feed(data, tokenizer, (), 1, weights=recipe.joint.weights)


@pytest.fixture(scope="module")
def step(feed: Feed) -> Step:
    """One with everything in it: idle texts, matches, lookups, a set, a rank, a tail."""
    found = make_step(feed, 0, 0.2)
    found = replace(found, order=[[0], [0, 1]], options=Options(rank=4, tail=True))
    assert found.matches and found.batch.idle and found.batch.lookups.rows
    return found


def run() -> Run:
    torch.manual_seed(0)
    return Run(Nano(BASE), WriterNet(WRITER))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a dataclass, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))


def test_a_step_moves_as_a_whole(step: Step) -> None:
    here, there = list(tensors(step)), list(tensors(step.to(META)))
    assert len(here) == len(there) > 20
    assert all(each.device == META for each in there)
    assert all(each.device.type == "cpu" for each in here)
    assert step.to(torch.device("cpu")).order == step.order


def test_a_loss_makes_nothing_elsewhere(recipe: Recipe, step: Step) -> None:
    """What names no device is made on the default one, and does not mix with the batch."""
    student = run()
    with META:
        loss, rates = _loss(student, step, recipe.joint, 0.1, recipe)
        torch.autograd.backward(loss)
    assert loss.device.type == "cpu" and torch.isfinite(loss)
    assert {"look", "match", "match_writes", "idle", "teach"} <= rates.keys()


def test_neither_do_optimisers(recipe: Recipe) -> None:
    student = run()
    before = [p.detach().clone() for p in student.model.parameters()]
    made = optimizers(student.model, student.writer, recipe.joint, recipe.schedule)
    for group in (g for each in made for g in each.param_groups):
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    with META:
        for optimizer in made:
            optimizer.step()
    after = list(student.model.parameters())
    assert all(each.device.type == "cpu" for each in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_workers_make_the_same_steps_in_the_same_order(feed: Feed) -> None:
    sizes = [0.1] * 5
    one, several = (list(stream(feed, 1, 5, sizes, workers=n)) for n in (1, 2))
    assert len(one) == len(several) == 4
    for this, other in zip(one, several, strict=True):
        assert all(map(torch.equal, tensors(this), tensors(other)))


def test_validation_moves_its_steps(
    recipe: Recipe, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[torch.device] = []
    plain = Step.to

    def spy(given: Step, device: torch.device) -> Step:
        moved.append(device)
        return plain(given, device)

    monkeypatch.setattr(Step, "to", spy)
    student = run()
    found = validation(feed, recipe)(student)
    assert set(moved) == {student.device} and "val_adapter_entry" in found


@pytest.mark.parametrize(("gpu", "wanted"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(
    gpu: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert ops.best_device().type == wanted


def test_without_a_compiler_for_the_device_operations_stay_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    before = dict(ops._used)
    ops.fuse(torch.device("cuda"))
    assert ops._used == before
    assert "no Triton" in capsys.readouterr().err

"""Muon: the update it makes, and that torch's own makes the same one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skillc_compiler.train import ops
from skillc_compiler.train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_updates_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 50))
    assert weight.min() > 0.5 and weight.max() < 1.3


@pytest.mark.parametrize("bfloat16", [True, False])
def test_steps_are_those_of_torch(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "has_bfloat16", lambda device: bfloat16)
    torch.manual_seed(0)
    start, grads = torch.randn(6, 10), torch.randn(3, 6, 10)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for optimizer, parameter in ((Muon([ours], lr=0.02, weight_decay=0.1), ours), (other, theirs)):
        for grad in grads:
            parameter.grad = grad.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert torch.linalg.vector_norm(ours - theirs) < 0.02 * moved
    assert moved > 0.01


def test_a_state_is_restored() -> None:
    torch.manual_seed(0)
    grads, start = torch.randn(2, 4, 6), torch.randn(4, 6)
    whole = nn.Parameter(start.clone())
    optimizer = Muon([whole], lr=0.1)
    for grad in grads:
        whole.grad = grad
        optimizer.step()
    part = nn.Parameter(start.clone())
    first = Muon([part], lr=0.1)
    part.grad = grads[0]
    first.step()
    second = Muon([part], lr=0.1)
    second.load_state_dict(first.state_dict())
    part.grad = grads[1]
    second.step()
    assert torch.equal(part, whole)

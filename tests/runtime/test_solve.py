"""Adapters solved for together: the regression on the keys of all, not the sum of regressions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from skillc_compiler.bases import find_base
from skillc_compiler.errors import AdapterError
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import joined
from skillc_compiler.gguf_adapter import adapter_targets, adapter_to_gguf
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.gguf_check import validate_adapter
from skillc_compiler.ridge import Ridge
from skillc_compiler.skill import parse_skill
from skillc_runtime.solve import Part, solved_together
from skillc_runtime.stack import Layer, stack

Matrix = npt.NDArray[np.float64]
INNER, HIDDEN, ALPHA = 24, 16, 0.7
SPREAD = np.random.default_rng(0).uniform(0.5, 2, INNER)


def regression(keys: Matrix, values: Matrix) -> Matrix:
    """dW [HIDDEN, INNER] in inputs divided by SPREAD, in closed form."""
    gram = np.eye(INNER) + ALPHA * keys.T @ keys
    return (1 + ALPHA) * values.T @ keys @ np.linalg.inv(gram)


def memories(count: int, seed: int) -> tuple[Matrix, Matrix]:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, INNER)), random.normal(size=(count, HIDDEN))


def compiled(keys: Matrix, values: Matrix, rank: int, spread: Matrix = SPREAD) -> Part:
    """As a compiler cuts the solution to a rank, with the Gram matrix where it acts."""
    left, sizes, right = np.linalg.svd(regression(keys, values) / spread, full_matrices=False)
    roots = np.sqrt(sizes[:rank])
    a, b = right[:rank] * roots[:, None], left[:, :rank] * roots
    seen = keys @ np.linalg.pinv(a * spread)
    narrow = np.float32
    ridge = Ridge(ALPHA, spread.astype(narrow), (seen.T @ seen).astype(narrow))
    return Part(a.astype(narrow), b.astype(narrow), ridge)


def change(parts: list[Part], found: list[npt.NDArray[np.float32]]) -> Matrix:
    changes = [b.astype(np.float64) @ part.a for part, b in zip(parts, found, strict=True)]
    total: Matrix = np.sum(changes, axis=0)
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_nothing_is_lost_while_all_keys_fit_the_rank(count: int) -> None:
    texts = [memories(5, seed) for seed in range(count)]
    parts = [compiled(*text, rank=5) for text in texts]
    exact = regression(*(np.concatenate(each) for each in zip(*texts, strict=True))) / SPREAD
    found = change(parts, solved_together(parts))
    summed = change(parts, [part.b for part in parts])
    assert np.abs(found - exact).max() < 1e-4
    assert np.abs(summed - exact).max() > 0.1


def test_scales_are_those_of_the_values() -> None:
    texts = [memories(4, 0), memories(4, 1)]
    parts = [compiled(*text, rank=4) for text in texts]
    scaled = [Part(parts[0].a, -0.5 * parts[0].b, parts[0].ridge), parts[1]]
    keys = np.concatenate([texts[0][0], texts[1][0]])
    values = np.concatenate([-0.5 * texts[0][1], texts[1][1]])
    found = change(scaled, solved_together(scaled))
    assert np.abs(found - regression(keys, values) / SPREAD).max() < 1e-4


def test_skills_that_are_cut_to_a_rank() -> None:
    """What is served for two skills is what the compiler would write for both as one text."""
    folder = Path(__file__).parents[2] / "examples" / "orchard" / ".skills"
    skills = [
        parse_skill((folder / name / "SKILL.md").read_bytes(), folder=name)
        for name in ("testing", "deploy")
    ]
    writer = load_compiler(find_base("nano"))
    assert isinstance(writer, Writer)
    adapters = [writer.compile(skill) for skill in skills]
    with torch.inference_mode():
        both = writer.net.settle(joined([writer.proposed(skill.text) for skill in skills]))
    base = read_base_info(find_base("nano").gguf)
    data = [adapter_to_gguf(adapter, base, "f16") for adapter in adapters]
    layers = [Layer(each, validate_adapter(each, base), 1.0) for each in data]
    stacked = stack(layers, base.arch)
    whole = Layer(stacked, validate_adapter(stacked, base), 1.0)
    targets = adapter_targets(adapters[0], base)
    for (keys, values), (module, target) in zip(both, targets.items(), strict=True):
        exact = (values[0].T @ keys[0]).numpy()
        a, b = whole.factors(target)
        summed = sum(adapter.delta(module) for adapter in adapters)
        apart = np.linalg.norm(summed - exact)
        assert np.linalg.norm(b @ a - exact) < 0.25 * apart


def test_what_does_not_belong_together_stays_as_it_is() -> None:
    one, other = (compiled(*memories(4, seed), rank=4) for seed in range(2))
    elsewhere = compiled(*memories(4, 2), rank=4, spread=2 * SPREAD)
    plain = Part(one.a, one.b, None)
    for parts in ([one], [one, elsewhere], [one, plain], [plain, plain]):
        for part, b in zip(parts, solved_together(parts), strict=True):
            assert b is part.b
    mixed = solved_together([plain, one, elsewhere, other])
    assert mixed[0] is plain.b and mixed[2] is elsewhere.b
    alone = solved_together([one, other])
    assert np.array_equal(mixed[1], alone[0]) and np.array_equal(mixed[3], alone[1])


def test_what_has_no_solution_is_refused() -> None:
    """alpha A A^T M = -1: nothing that a compiler writes, but a file may say so."""
    a, b = np.eye(2, INNER, dtype=np.float32), np.ones((HIDDEN, 2), np.float32)
    ones = np.ones(INNER, np.float32)
    half = Ridge(1.0, ones, -0.5 * np.eye(2, dtype=np.float32))
    with pytest.raises(AdapterError, match="cannot be solved for together"):
        solved_together([Part(a, b, half), Part(a, b, half)])


def test_rows_of_padding_do_no_harm() -> None:
    parts = [compiled(*memories(4, seed), rank=4) for seed in range(2)]
    padded = [
        Part(
            np.pad(part.a, ((0, 4), (0, 0))),
            np.pad(part.b, ((0, 0), (0, 4))),
            Ridge(ALPHA, part.ridge.spread, np.pad(part.ridge.gram, (0, 4))),
        )
        for part in parts
        if part.ridge is not None
    ]
    expected = change(parts, solved_together(parts))
    assert np.allclose(change(padded, solved_together(padded)), expected, atol=1e-5)

"""Parts of the evaluation that need no model: adapter arithmetic, suffix cache, tables, targets."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plugin.project import FakeCompiler

from skillc.evaluate import cli, suite
from skillc.evaluate.cases import generated_cases
from skillc.evaluate.factors import (
    cosines,
    from_deltas,
    inner,
    means,
    stable_rank,
    summed,
    truncated,
)
from skillc.evaluate.report import bootstrap
from skillc.evaluate.scoring import is_chosen, literals
from skillc.evaluate.suffix_cache import SuffixCache
from skillc.evaluate.targets import FLOORS, TARGETS
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import find_base

MODULE = "model.layers.0.mlp.down_proj"


@pytest.fixture
def adapters(home: object) -> list[Adapter]:
    compiler = FakeCompiler(find_base("tiny"))
    return [compiler.compile(case.skill, rank=6) for case in generated_cases("test", 5, 1)]


def test_truncation_is_the_best_of_its_rank(adapters: list[Adapter]) -> None:
    whole = adapters[0].delta(MODULE)
    weight = np.linalg.svd(whole).S
    for rank in (2, 6, 9):
        cut = truncated(adapters[0], rank)
        assert cut.rank == rank == cut.manifest.rank
        lost = np.linalg.norm(whole - cut.delta(MODULE))
        assert lost == pytest.approx(np.sqrt((weight[rank:] ** 2).sum()), abs=1e-3)


def test_sums_and_means_are_those_of_the_deltas(adapters: list[Adapter]) -> None:
    deltas = [adapter.delta(MODULE) for adapter in adapters]
    total = summed(adapters, 64)
    assert np.allclose(total.delta(MODULE), sum(deltas), atol=1e-3)
    folds = list(means(adapters, 64))
    assert [list(fold) for fold, _ in folds] == [[0], [1], [2], [3], [4]]
    for (number,), mean in folds:
        others = [delta for i, delta in enumerate(deltas) if i != number]
        assert np.allclose(mean.delta(MODULE), sum(others) / 4, atol=1e-3)
    assert len(list(means(adapters * 6, 2))) == 10


def test_cosines_and_stable_rank(adapters: list[Adapter]) -> None:
    a, b = adapters[0].delta(MODULE), adapters[1].delta(MODULE)
    assert inner(adapters[0], adapters[1]) == pytest.approx(float((a * b).sum()), rel=1e-3)
    assert cosines([adapters[0], adapters[0]]) == [pytest.approx(1.0)]
    assert len(cosines(adapters)) == 10
    one = from_deltas({MODULE: np.outer(a[:, 0], a[0])}, 4, adapters[0], "one")
    assert stable_rank(one) == pytest.approx(1.0, abs=1e-3)
    assert 1.0 < stable_rank(adapters[0]) <= 6.0


def test_the_suffix_cache_continues_the_longest_match() -> None:
    text = [1, 2, 3, 4, 9, 2, 3, 5]
    cache = SuffixCache(text)
    assert cache.after([7, 1, 2, 3], []) == 4
    assert cache.after([7, 2, 3], []) == 5
    assert cache.after([3], []) is None
    assert cache.after([7], [4]) == 9
    assert cache.after([7], [8, 4]) is None
    assert cache.after([4, 9], [2]) == 3


def test_the_chosen_literal_is_the_one_the_answer_begins_like() -> None:
    (case, *_) = generated_cases("test", 1, 1)
    ask = next(ask for ask in case.asks if ask.kind == "command")
    expected = ask.question.answer
    assert expected in literals(case.skill.text)
    assert is_chosen(ask, expected, case.skill.text)
    assert is_chosen(ask, expected[:-1] + "#", case.skill.text)
    longer = f"{case.skill.text}\n`{expected} --more`\n"
    assert is_chosen(ask, expected, longer) and not is_chosen(ask, expected[:-1], longer)
    assert not is_chosen(ask, "nothing like it", case.skill.text)
    for other in literals(case.skill.text) - {expected}:
        assert not is_chosen(ask, other, case.skill.text)


def test_the_bootstrap_is_the_statistics_own() -> None:
    low, high = bootstrap([1.0, 2.0, 3.0, 4.0] * 5, lambda drawn: sum(drawn) / len(drawn))
    assert 1.8 < low < 2.5 < high < 3.2


def test_every_suite_has_targets_and_floors() -> None:
    assert tuple(suite.SUITES) == cli.SUITES
    assert set(TARGETS) == set(FLOORS) == set(cli.SUITES)
    assert set(cli.CURVED) < set(cli.SUITES)

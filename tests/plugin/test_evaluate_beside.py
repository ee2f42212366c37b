"""Suites in processes of their own: their order, their errors, how many at once."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from skillc.evaluate.bench import Result, Settings
from skillc.evaluate.beside import beside, jobs_of
from skillc_compiler.errors import CompilerError, SkillcError
from skillc_compiler.families.parallel import cores

SETTINGS = Settings()


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find this module."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])


def work(name: str) -> Result:
    """A suite of this module, which processes import."""
    if name == "fails":
        raise CompilerError("no compiler here")
    if name == "dies":
        os._exit(3)
    if name == "first":
        time.sleep(0.5)
    return Result({"process": float(os.getpid())}, name)


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_results_keep_their_order_and_come_from_other_processes() -> None:
    found = dict(beside(work, ["first", "second", "third"], 2))
    assert [(name, result.table) for name, result in found.items()] == [
        (name, name) for name in ("first", "second", "third")
    ]
    processes = {result.figures["process"] for result in found.values()}
    assert len(processes) == 2 and float(os.getpid()) not in processes


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        (["second", "fails"], CompilerError, "no compiler here"),
        (["second", "dies"], SkillcError, "ended while dies ran: try --jobs 1"),
    ],
)
def test_an_error_ends_all(names: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(beside(work, names, 1))


def test_small_bases_get_a_process_a_core() -> None:
    assert jobs_of(SETTINGS, 1) == 1
    assert jobs_of(SETTINGS, 8) == min(cores(), 8)
    assert jobs_of(replace(SETTINGS, threads=2), 8) == 1
    assert jobs_of(replace(SETTINGS, jobs=3), 8) == 3

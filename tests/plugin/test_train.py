"""`skillc train` passes its options on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.plugin.project import Run

from skillc.verbs import train_verb


@pytest.mark.parametrize("stage", ["base", "compiler"])
def test_options_reach_the_trainer(
    stage: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def record(name: str) -> Any:
        return lambda *args, **options: calls.append((name, args, options))

    trainer = SimpleNamespace(train_base=record("base"), train_compiler=record("compiler"))
    monkeypatch.setattr(train_verb, "trainer", lambda: trainer)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("{}\n", "utf-8")
    out = tmp_path / "out"
    done = run("train", stage, "--out", out, "--minutes", "1.5", "--seed", "3", "--texts", texts)
    assert done.code == 0, done.err
    assert calls == [(stage, ("nano", out), {"texts": (texts,), "seed": 3, "minutes": 1.5})]


def test_a_base_has_a_trainer_of_its_own(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def record(name: str) -> Any:
        return lambda *args, **options: calls.append((name, args, options))

    trainer = SimpleNamespace(train_compiler=record("train"), export_compiler=record("export"))
    monkeypatch.setattr(train_verb, "base_trainer", lambda: trainer)
    out = tmp_path / "out"
    out.mkdir()
    assert run("train", "compiler", "--base", "tiny", "--out", out, "--seed", "3").code == 0
    other = ("--family", "m2p", "--recipe", "own.toml")
    assert run("train", "compiler", "--base", "tiny", "--out", out, *other).code == 0
    assert run("train", "export", "--base", "tiny", "--out", out, "--force").code == 0
    given = {"texts": (), "minutes": 0.0}
    assert calls == [
        ("train", ("tiny", "frozen", out), {"family": None, "seed": 3, **given}),
        ("train", ("tiny", "own.toml", out), {"family": "m2p", "seed": 0, **given}),
        ("export", ("tiny", out), {"force": True}),
    ]
    done = run("train", "export", "--out", out, "--force")
    assert (done.code, "--force has no meaning without --base" in done.err) == (2, True)
    done = run("train", "compiler", "--out", out, "--family", "m2p")
    assert (done.code, "--family has no meaning without --base" in done.err) == (2, True)
    done = run("train", "compiler", "--base", "tiny", "--out", out, "--family", "distill")
    assert (done.code, "'distill' is not one of" in done.err) == (2, True)
    done = run("train", "export", "--base", "tiny", "--recipe", "nano", "--out", out)
    assert (done.code, "DIR knows its recipe" in done.err) == (2, True)


def test_without_torch(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("skillc_compiler.train")]:
        monkeypatch.delitem(sys.modules, name)
    done = run("train", "base", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err == ("skillc: error: torch is not installed: pip install 'skillc[compiler]'\n")


def test_an_output_folder_is_needed(run: Run) -> None:
    done = run("train", "base")
    assert (done.code, "Missing option '--out'" in done.err) == (2, True)


def test_a_finished_pair_is_gone_on_with(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def train(*args: Any, start: Any, **options: Any) -> None:
        calls.append((*args, start.name))

    monkeypatch.setattr(train_verb, "trainer", lambda: SimpleNamespace(train_compiler=train))
    assert run("train", "compiler", "--start", "nano", "--out", tmp_path).code == 0
    assert calls == [("nano-more", tmp_path, "nano")]
    done = run("train", "compiler", "--start", "nano", "--base", "nano", "--out", tmp_path)
    assert (done.code, "--start has no meaning with --base" in done.err) == (2, True)
    done = run("train", "compiler", "--start", "gone", "--out", tmp_path)
    assert (done.code, "gone" in done.err) == (2, True)


def test_finished_runs_are_averaged(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    made = SimpleNamespace(train_mean=lambda *args: calls.append(args))
    monkeypatch.setattr(train_verb, "trainer", lambda: made)
    runs = (tmp_path / "a", tmp_path / "b")
    for folder in runs:
        folder.mkdir()
    assert run("train", "mean", *runs, "--out", tmp_path / "out").code == 0
    assert calls == [(runs, "nano-more", tmp_path / "out")]
    done = run("train", "mean", tmp_path / "gone", "--out", tmp_path / "out")
    assert (done.code, "does not exist" in done.err) == (2, True)
    done = run("train", "mean", "--out", tmp_path / "out")
    assert (done.code, "Missing argument" in done.err) == (2, True)
